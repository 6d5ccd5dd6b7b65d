"""Memory, collectives and bounds of time of a training run on TPUs that this machine does not have (`durian plan`).

The TPU compiler compiles the real training step for the real topology, on a CPU. Memory and collectives are the
compiler's. Times are bounds, computed from them and from the chip's figures; nothing is measured.
"""

import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from durian_jax.errors import InputError, cut
from durian_jax.families import DEFAULT, get_family
from durian_jax.files import write_json
from durian_jax.hardware.chips import GIB, Chip, group_bandwidth, parse_topology
from durian_jax.planning import hlo
from durian_jax.planning.tpu_compiler import compiler_environment
from durian_jax.progress import clock
from durian_jax.training.config import RunConfig
from durian_jax.training.sharding import MESH_AXES, check_batch, mesh_shape

# Treat the dump as complete once its size has not changed for this many seconds.
_SETTLED_SECONDS = 4.0

# A line of the log of TensorFlow and XLA.
_LOGGED = re.compile(r"[IWEF]\d{4} ")


@dataclass(frozen=True)
class Plan:
    """What a run takes on a topology; all values are plain, for JSON.

    Attributes:
        config: name of the config.
        topology, mesh, chips: of the run.
        batch: number of clips per step, on all chips.
        remat, attention: of the config.
        parameters, trained: number of all parameters and of those that train.
        hbm_bytes_per_chip: memory of a chip.
        peak_bytes_per_chip: arguments and temporaries, without the program itself.
        fits: whether the peak fits the chip.
        memory: bytes per chip of each kind of array.
        largest_buffers: shape, bytes, count and origin of the largest temporaries.
        flops_per_step: of the model, on all chips.
        filled_flops_per_chip: with recomputation and with matrix units filled up.
        collectives: kind -> count, bytes per chip and seconds.
        collective_bytes_per_chip, memory_traffic_per_chip: bytes per step.
        bounds: seconds of compute, memory and network.
        estimated_step_seconds: the largest bound.
        mfu_bound: model FLOPs over the chips' peak in that time.
        steps, hours, chip_hours: of the whole run.
        compile_seconds: duration of the compilation.
        complete: whether machine code was made.
        compiler: the compiler's own figures, if machine code was made.
    """

    config: str
    topology: str
    mesh: dict[str, int]
    chips: int
    batch: int
    remat: str
    attention: str
    parameters: int
    trained: int
    hbm_bytes_per_chip: int
    peak_bytes_per_chip: int
    fits: bool
    memory: dict[str, int]
    largest_buffers: list[dict[str, Any]]
    flops_per_step: int
    filled_flops_per_chip: int
    collectives: dict[str, dict[str, Any]]
    collective_bytes_per_chip: int
    memory_traffic_per_chip: int
    bounds: dict[str, float]
    estimated_step_seconds: float
    mfu_bound: float
    steps: int
    hours: float
    chip_hours: float
    compile_seconds: float
    complete: bool
    compiler: dict[str, float] | None = None


def plan(config: ConfigDict, topology: str, *, full: bool = False, name: str = "", progress: bool = True) -> Plan:
    """Compile a run's step for a topology and return what it takes.

    Args:
        config: of the run, with its mesh and batch size.
        topology: such as "v5e:16x16".
        full: also make machine code, which takes far longer; else stop when memory and collectives are known.
        name: of the config, for the report.
        progress: show for how long the compiler has been running.

    Raises:
        InputError: a topology, mesh or batch that does not fit, or a compiler that is missing or fails.
    """
    chip, shape = parse_topology(topology)
    run = RunConfig.read(config)
    mesh = mesh_shape(run.mesh, math.prod(shape) * chip.devices)
    check_batch(dict(zip(MESH_AXES, mesh, strict=True)), run.batch_size, run.data.frames)
    environment = compiler_environment()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="durian-plan-") as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(config.to_json())
        family = config.get("family", DEFAULT)
        write_json(folder / "family.json", {"name": family, "parts": asdict(get_family(family))})
        failure = _compile(folder, topology, full, progress, environment)
        return _read(folder, config, chip, shape, topology, name, failure, time.monotonic() - start)


def _compile(folder: Path, topology: str, full: bool, progress: bool, environment: dict[str, str]) -> str:
    """Run the compiler in its own process until it has written what we read; return its error if memory is short."""
    command = [sys.executable, "-m", "durian_jax.planning.ahead", str(folder), topology, *(["full"] if full else [])]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        with clock(f"tracing for {topology}", progress, log_seconds=60) as describe:
            while process.poll() is None and not (_settled(folder) and not full):
                if (folder / "lowered.json").exists():
                    describe(f"compiling for {topology}")
                time.sleep(0.5)
    finally:
        finished = process.poll()
        process.kill()
        process.wait()
    if finished in (None, 0):
        return ""
    if finished == -signal.SIGKILL:
        raise InputError(f"the compiler for {topology} was killed, most likely because this machine's memory was full: "
                         "the paper's size takes 8 GiB with --config.remat=full and 16 with none; stop other programs, "
                         "or use a larger machine")
    text = (folder / "log").read_text(errors="replace")
    if "RESOURCE_EXHAUSTED" in text and "hbm" in text.lower():
        return text
    refused = [line.partition("InputError: ")[2] for line in text.splitlines() if "errors.InputError: " in line]
    if refused:
        raise InputError(refused[-1])
    raise InputError(f"the step cannot be compiled for {topology}: {_reason(text)}")


def _reason(log: str) -> str:
    """Return the line of a failed compiler that says why; lines of its log, such as "E0000 ...", are no reason."""
    lines = [line for line in log.splitlines() if line.strip() and not _LOGGED.match(line)]
    reasons = [line for line in lines if "Error" in line] or lines or [log]
    return cut(reasons[-1], 600)


def _settled(folder: Path) -> bool:
    """Whether the program with its buffers is complete."""
    files = [*folder.glob("dump/*after_buffer_assignment.txt"), *folder.glob("dump/*memory-usage-report.txt")]
    return len(files) == 2 and time.time() - max(file.stat().st_mtime for file in files) > _SETTLED_SECONDS


def _read(folder: Path, config: ConfigDict, chip: Chip, shape: tuple[int, ...], topology: str, name: str, failure: str,
          seconds: float) -> Plan:
    read = lambda file: json.loads((folder / file).read_text())
    only = lambda pattern: next(iter(sorted(folder.glob(f"dump/*{pattern}"))), None)
    facts = read("facts.json")
    chips = len(facts["coordinates"])
    # If memory is short the compiler writes a program without buffers.
    text = only("after_buffer_assignment.txt") or only("before_buffer_assignment.txt")
    if text is None:
        raise InputError("the compiler has written no program: " + failure[:1500])
    program = hlo.read_program(text)
    assignment = only("buffer-assignment.txt")
    if failure:
        peak = hlo.short_of(failure)
    elif assignment is not None:
        peak = hlo.peak_bytes(assignment)
    else:
        raise InputError("the compiler has written no assignment of buffers; run `durian plan` again")
    arguments = sum(facts["bytes"].values())
    collectives = collective_times(hlo.exchanges(program, chips), chip, shape, facts["coordinates"])
    traffic = hlo.memory_traffic(program)
    bounds = {"compute": facts["filled_flops_per_chip"] / chip.flops, "memory": traffic / chip.hbm_bandwidth,
              "network": sum(kind["seconds"] for kind in collectives.values())}
    slowest = max(bounds.values())
    hours = config.total_steps * slowest / 3600
    compiled = folder / "compiled.json"
    return Plan(
        config=name, topology=topology, mesh=facts["mesh"], chips=chips, batch=config.batch_size, remat=config.remat,
        attention=config.attention, parameters=facts["parameters"], trained=facts["trained"],
        hbm_bytes_per_chip=chip.hbm_bytes, peak_bytes_per_chip=peak, fits=not failure and peak <= chip.hbm_bytes,
        memory={**facts["bytes"], "temporaries": peak - arguments},
        largest_buffers=[vars(b) for b in hlo.largest_buffers(program, assignment)] if assignment else [],
        flops_per_step=facts["flops_per_step"], filled_flops_per_chip=facts["filled_flops_per_chip"],
        collectives=collectives,
        collective_bytes_per_chip=sum(kind["bytes"] for kind in collectives.values()),
        memory_traffic_per_chip=traffic, bounds=bounds, estimated_step_seconds=slowest,
        mfu_bound=facts["flops_per_step"] / (chips * chip.flops * slowest), steps=config.total_steps, hours=hours,
        chip_hours=hours * chips, compile_seconds=seconds, complete=compiled.exists(),
        compiler=read("compiled.json") if compiled.exists() else None)


def collective_times(exchanges: Iterable[hlo.Exchange], chip: Chip, shape: tuple[int, ...],
                     coordinates: list[list[int]]) -> dict[str, dict]:
    """Number, bytes and seconds of the collective operations of each kind, as if they had the network to themselves.

    Args:
        coordinates: of every chip in the torus, in the order of the mesh.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for exchange in exchanges:
        places = [tuple(coordinates[number]) for number in exchange.group]
        kind = kinds.setdefault(exchange.kind, {"count": 0, "bytes": 0, "seconds": 0.0})
        kind["count"] += 1
        kind["bytes"] += exchange.bytes
        kind["seconds"] += exchange.bytes / group_bandwidth(chip, shape, places)
    return kinds


def describe(found: Plan, price: float | None = None) -> str:
    """Format a plan as a table.

    Args:
        price: of a chip-hour, in any currency; None leaves the cost out.
    """
    number = lambda count: f"{count / 1e6:,.1f} M"
    memory, bounds = found.memory, found.bounds
    kinds = [(kind, f"{values['count']} of {size_text(values['bytes'])} per chip, {values['seconds']:.3g} s")
             for kind, values in found.collectives.items()] or [("collectives", "none")]
    rows = [
        ("config", f"{found.config}, batch {found.batch}, remat {found.remat}"),
        ("topology", f"{found.topology}, {found.chips} chips, mesh {mesh_text(found)}"),
        ("parameters", f"{number(found.parameters)}, of which {number(found.trained)} are trained"),
        ("", ""),
        ("memory per chip", f"{size_text(found.peak_bytes_per_chip)} of {size_text(found.hbm_bytes_per_chip)}: "
         + ("FITS (without the program itself, some hundred MiB)" if found.fits else "DOES NOT FIT")),
        *((f"  {name}", size_text(size)) for name, size in memory.items()),
        *((f"  {'largest' if i == 0 else ''}", f"{size_text(b['bytes'])} {b['shape']}, {b['origin']}"
           + (f", {b['count']} times" if b["count"] > 1 else "")) for i, b in enumerate(found.largest_buffers)),
        ("", ""),
        ("FLOPs per step", f"{found.flops_per_step / 1e12:,.3f} T of the model on all chips; each chip computes "
         f"{found.filled_flops_per_chip / 1e12:,.3f} T with recomputation and filled-up matrix units"),
        *kinds,
        ("", ""),
        ("bounds (no measurement)", "the step takes at least the longest of these"),
        ("  compute", f"{bounds['compute']:.3g} s: those FLOPs at the chip's peak"),
        ("  memory", f"{bounds['memory']:.3g} s: {size_text(found.memory_traffic_per_chip)} through HBM"),
        ("  network", f"{bounds['network']:.3g} s: the collectives, one after the other"),
        ("MFU", f"{found.mfu_bound:.2f} at most"),
        ("the run", f"{found.steps:,} steps: {found.hours:,.4g} hours, {found.chip_hours:,.4g} chip-hours, at "
         "least" + (f"; {price * found.chip_hours:,.2f} at {price:g} a chip-hour" if price is not None else "")),
        ("compiled in", f"{found.compile_seconds:.0f} s" + ("" if found.complete else
         ", up to memory and collectives, without machine code (--full)")),
    ]
    if found.compiler is not None:
        own = {name: size_text(size) for name, size in found.compiler.items() if name.endswith("_bytes")}
        rows.append(("compiler's figures", f"arguments {own['argument_bytes']}, temporaries {own['temporary_bytes']}, "
                     f"code {own['code_bytes']}, {found.compiler['flops'] / 1e12:,.3f} TFLOP (without kernels)"))
    return "\n".join(f"{label:24s} {text}".rstrip() for label, text in rows)


def size_text(size: float) -> str:
    """Format bytes in a readable unit."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def mesh_text(found: Plan) -> str:
    """Format the axes of a plan's mesh that are longer than 1."""
    return " ".join(f"{axis}={size}" for axis, size in found.mesh.items() if size > 1) or "one chip"


def summary(found: Plan) -> str:
    """Format a plan in one line."""
    milliseconds = found.estimated_step_seconds / found.batch * 1e3
    return (f"{mesh_text(found)}, batch {found.batch}, remat {found.remat}: "
            f"{found.peak_bytes_per_chip / GIB:.2f} GiB, {'fits' if found.fits else 'too much'}; at least "
            f"{milliseconds:.3f} ms per clip, MFU {found.mfu_bound:.2f} at most")


def parse_mesh(text: str) -> dict[str, int]:
    """Parse "data=16,fsdp=16" to the sizes of all axes.

    Raises:
        InputError: an unknown axis, or not a number.
    """
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis not in sizes or not size.lstrip("-").isdigit():
            raise InputError(f"--mesh {text}: expected AXIS=SIZE,... with axes of {', '.join(MESH_AXES)}, as in "
                             "data=16,fsdp=16")
        sizes[axis] = int(size)
    return sizes


def candidates(config: ConfigDict, topology: str) -> Iterator[ConfigDict]:
    """Variants of mesh, clips per chip and recomputation, in the order of their expected speed."""
    chip, shape = parse_topology(topology)
    chips = math.prod(shape) * chip.devices
    for clips in (4, 1):
        for remat in ("none", "dots", "full"):
            for fsdp in dict.fromkeys((min(16, chips), min(64, chips))):
                if chips % fsdp == 0:
                    variant = ConfigDict(json.loads(config.to_json()))
                    variant.mesh = {**dict.fromkeys(MESH_AXES, 1), "data": chips // fsdp, "fsdp": fsdp}
                    variant.batch_size, variant.remat = clips * chips, remat
                    yield variant


def search(config: ConfigDict, topology: str, *, name: str = "", attempts: int = 6,
           report: Callable[[Plan], None] = lambda found: None) -> tuple[Plan | None, list[Plan]]:
    """Try meshes, batch sizes and remat policies, the fastest first, until `attempts` of them are compiled.

    Variants that need more memory than one that did not fit are skipped.

    Args:
        report: called with each plan.

    Returns:
        The fitting plan with the fewest chip-seconds per clip, or None; and all plans.
    """
    found: list[Plan] = []
    order = {"none": 2, "dots": 1, "full": 0}
    need = lambda clips, remat, fsdp: (clips, order[remat], -fsdp)
    for variant in candidates(config, topology):
        if len(found) == attempts:
            break
        clips = variant.batch_size // (variant.mesh.data * variant.mesh.fsdp)
        here = need(clips, variant.remat, variant.mesh.fsdp)
        failed = [need(p.batch // p.chips, p.remat, p.mesh["fsdp"]) for p in found if not p.fits]
        if any(all(a >= b for a, b in zip(here, other, strict=True)) for other in failed):
            continue
        found.append(plan(variant, topology, name=name))
        report(found[-1])
    fitting = [p for p in found if p.fits]
    return min(fitting, key=lambda p: p.estimated_step_seconds / p.batch, default=None), found


def write_plan(path: str | Path, found: Plan) -> None:
    """Write a plan as JSON."""
    write_json(path, plan_values(found))


def plan_values(found: Plan) -> dict[str, Any]:
    """A plan as plain values; without the compiler's figures if there are none."""
    return {name: value for name, value in asdict(found).items() if name != "compiler" or value is not None}
