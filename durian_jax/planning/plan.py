"""What a training run will take on TPUs that are not there (`durian plan`).

The real training step is compiled for the real topology by the TPU compiler, on a CPU. Memory and collectives are the
compiler's; times are bounds that we compute from them and from the chip's figures, and no measurement.
"""

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from durian_jax.errors import InputError
from durian_jax.files import write_json
from durian_jax.hardware.chips import GIB, Chip, group_bandwidth, parse_topology
from durian_jax.planning import hlo
from durian_jax.planning.tpu_compiler import compiler_environment
from durian_jax.training.sharding import MESH_AXES

# The program's text is written little by little: it is whole when it has not grown for so long.
_SETTLED_SECONDS = 4.0


@dataclass(frozen=True)
class Plan:
    """A plan as plain values, for JSON.

    Attributes:
        values: `config`, `topology`, `mesh`, `chips`, `batch`, `remat`, `attention`; `fits`, `hbm_bytes_per_chip`,
            `peak_bytes_per_chip` (arguments and temporaries; not the program itself), `memory` (bytes of each kind),
            `largest_buffers`; `flops_per_step` (of the model, on all chips), `filled_flops_per_chip` (with what is
            computed twice and with matrix units filled up), `collectives` (number, bytes and seconds of each kind),
            `collective_bytes_per_chip`, `memory_traffic_per_chip`; `bounds` (seconds of compute, memory, network),
            `estimated_step_seconds` (the largest of them), `mfu_bound`; `steps`, `hours`, `chip_hours`;
            `compile_seconds`, `complete` (whether machine code was made) and, if so, `compiler` (its own figures).
    """

    values: dict

    def __getitem__(self, name: str):
        return self.values[name]


def plan(config: ConfigDict, topology: str, *, full: bool = False, name: str = "", progress: bool = True) -> Plan:
    """Compile a run's step for a topology and say what it takes.

    Args:
        config: of the run, with its mesh and batch size.
        topology: "v5e:16x16".
        full: make machine code too, which takes far longer; else stop when memory and collectives are known.
        name: of the config, for the report.
        progress: show for how long the compiler has been running.

    Raises:
        InputError: a topology, mesh or batch that does not fit, or a compiler that is missing or fails.
    """
    chip, shape = parse_topology(topology)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="durian-plan-") as folder:
        folder = Path(folder)
        (folder / "config.json").write_text(config.to_json())
        failure = _compile(folder, topology, full, progress)
        return _read(folder, config, chip, shape, topology, name, failure, time.monotonic() - start)


def _compile(folder: Path, topology: str, full: bool, progress: bool) -> str:
    """Run the compiler in a process of its own until it has said what we want; what it says where memory is short."""
    command = [sys.executable, "-m", "durian_jax.planning.ahead", str(folder / "config.json"), topology, str(folder),
               *(["full"] if full else [])]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=compiler_environment(), stdout=log, stderr=subprocess.STDOUT)
    try:
        # How long it will take nobody knows: a clock, which a log file gets once a minute.
        with tqdm(bar_format="{desc} {elapsed}", disable=not progress,
                  mininterval=1 if sys.stderr.isatty() else 60) as clock:
            while process.poll() is None and not (_settled(folder) and not full):
                step = "compiling" if (folder / "lowered.json").exists() else "tracing"
                clock.set_description_str(f"{step} for {topology}", refresh=False)
                clock.update(1)
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
    lines = [line for line in text.splitlines() if "Error" in line] or text.splitlines()[-5:]
    raise InputError(f"the step cannot be compiled for {topology}: " + "\n".join(lines[-3:])[:1500])


def _settled(folder: Path) -> bool:
    """Whether the program with its buffers has been written."""
    files = [*folder.glob("dump/*after_buffer_assignment.txt"), *folder.glob("dump/*memory-usage-report.txt")]
    return len(files) == 2 and time.time() - max(file.stat().st_mtime for file in files) > _SETTLED_SECONDS


def _read(folder: Path, config: ConfigDict, chip: Chip, shape: tuple[int, ...], topology: str, name: str, failure: str,
          seconds: float) -> Plan:
    read = lambda file: json.loads((folder / file).read_text())
    only = lambda pattern: next(iter(sorted(folder.glob(f"dump/*{pattern}"))), None)
    facts = read("facts.json")
    chips = len(facts["coordinates"])
    # Where memory is short there are no buffers, but a program.
    text = only("after_buffer_assignment.txt") or only("before_buffer_assignment.txt")
    if text is None:
        raise InputError("the compiler has left no program: " + failure[:1500])
    program = hlo.read_program(text)
    assignment = only("buffer-assignment.txt")
    peak = hlo.short_of(failure) if failure else hlo.peak_bytes(assignment)
    arguments = sum(facts["bytes"].values())
    collectives = collective_times(hlo.exchanges(program, chips), chip, shape, facts["coordinates"])
    traffic = hlo.memory_traffic(program)
    bounds = {"compute": facts["filled_flops_per_chip"] / chip.flops, "memory": traffic / chip.hbm_bandwidth,
              "network": sum(kind["seconds"] for kind in collectives.values())}
    slowest = max(bounds.values())
    hours = config.total_steps * slowest / 3600
    return Plan({
        "config": name, "topology": topology, "mesh": facts["mesh"], "chips": chips, "batch": config.batch_size,
        "remat": config.remat, "attention": config.attention, "parameters": facts["parameters"],
        "trained": facts["trained"], "hbm_bytes_per_chip": chip.hbm_bytes, "peak_bytes_per_chip": peak,
        "fits": not failure and peak <= chip.hbm_bytes,
        "memory": {**facts["bytes"], "temporaries": peak - arguments},
        "largest_buffers": [vars(b) for b in hlo.largest_buffers(program, assignment)] if assignment else [],
        "flops_per_step": facts["flops_per_step"], "filled_flops_per_chip": facts["filled_flops_per_chip"],
        "collectives": collectives,
        "collective_bytes_per_chip": sum(kind["bytes"] for kind in collectives.values()),
        "memory_traffic_per_chip": traffic, "bounds": bounds, "estimated_step_seconds": slowest,
        "mfu_bound": facts["flops_per_step"] / (chips * chip.flops * slowest), "steps": config.total_steps,
        "hours": hours, "chip_hours": hours * chips, "compile_seconds": seconds,
        "complete": (folder / "compiled.json").exists(),
        **({"compiler": read("compiled.json")} if (folder / "compiled.json").exists() else {})})


def collective_times(exchanges: Iterable[hlo.Exchange], chip: Chip, shape: tuple[int, ...],
                     coordinates: list[list[int]]) -> dict[str, dict]:
    """Number, bytes and seconds of the collective operations of each kind, as if nothing else went over the links.

    Args:
        coordinates: of every chip in the torus, in the order of the mesh.
    """
    kinds = {}
    for exchange in exchanges:
        places = [tuple(coordinates[number]) for number in exchange.group]
        kind = kinds.setdefault(exchange.kind, {"count": 0, "bytes": 0, "seconds": 0.0})
        kind["count"] += 1
        kind["bytes"] += exchange.bytes
        kind["seconds"] += exchange.bytes / group_bandwidth(chip, shape, places)
    return kinds


def describe(found: Plan, price: float | None = None) -> str:
    """A plan as a table for people.

    Args:
        price: of a chip for an hour, in any currency; None leaves the cost out.
    """
    number = lambda count: f"{count / 1e6:,.1f} M"
    memory, bounds = found["memory"], found["bounds"]
    kinds = [(kind, f"{values['count']} of {size_text(values['bytes'])} a chip, {values['seconds']:.3g} s")
             for kind, values in found["collectives"].items()] or [("collectives", "none")]
    rows = [
        ("config", f"{found['config']}, batch {found['batch']}, remat {found['remat']}"),
        ("topology", f"{found['topology']}, {found['chips']} chips, mesh {mesh_text(found)}"),
        ("parameters", f"{number(found['parameters'])}, of which {number(found['trained'])} are trained"),
        ("", ""),
        ("memory of a chip", f"{size_text(found['peak_bytes_per_chip'])} of {size_text(found['hbm_bytes_per_chip'])}: "
         + ("FITS (the program itself, some hundred MiB, is not counted)" if found["fits"] else "DOES NOT FIT")),
        *((f"  {name}", size_text(size)) for name, size in memory.items()),
        *((f"  {'largest' if i == 0 else ''}", f"{size_text(b['bytes'])} {b['shape']}, {b['origin']}"
           + (f", {b['count']} times" if b["count"] > 1 else "")) for i, b in enumerate(found["largest_buffers"])),
        ("", ""),
        ("FLOPs of a step", f"{found['flops_per_step'] / 1e12:,.3f} T by the model on all chips; a chip does "
         f"{found['filled_flops_per_chip'] / 1e12:,.3f} T with recomputation and filled-up matrix units"),
        *kinds,
        ("", ""),
        ("bounds (no measurement)", "the step takes at least the longest of these"),
        ("  compute", f"{bounds['compute']:.3g} s: those FLOPs at the chip's peak"),
        ("  memory", f"{bounds['memory']:.3g} s: {size_text(found['memory_traffic_per_chip'])} through HBM"),
        ("  network", f"{bounds['network']:.3g} s: the collectives, one after the other"),
        ("MFU", f"{found['mfu_bound']:.2f} at most"),
        ("the run", f"{found['steps']:,} steps: {found['hours']:,.4g} hours, {found['chip_hours']:,.4g} chip-hours, at "
         "least" + (f"; {price * found['chip_hours']:,.2f} at {price:g} a chip-hour" if price is not None else "")),
        ("compiled in", f"{found['compile_seconds']:.0f} s" + ("" if found["complete"] else
         ", up to memory and collectives; machine code was not made (--full)")),
    ]
    if found["complete"]:
        own = {name: size_text(size) for name, size in found["compiler"].items() if name.endswith("_bytes")}
        rows.append(("the compiler's own", f"arguments {own['argument_bytes']}, temporaries {own['temporary_bytes']}, "
                     f"code {own['code_bytes']}, {found['compiler']['flops'] / 1e12:,.3f} TFLOP (without kernels)"))
    return "\n".join(f"{label:24s} {text}".rstrip() for label, text in rows)


def size_text(size: int) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def mesh_text(found: Plan) -> str:
    """The axes of a plan's mesh that are longer than 1."""
    return " ".join(f"{axis}={size}" for axis, size in found["mesh"].items() if size > 1) or "one chip"


def summary(found: Plan) -> str:
    """A plan in one line."""
    milliseconds = found["estimated_step_seconds"] / found["batch"] * 1e3
    return (f"{mesh_text(found)}, batch {found['batch']}, remat {found['remat']}: "
            f"{found['peak_bytes_per_chip'] / GIB:.2f} GiB, {'fits' if found['fits'] else 'too much'}; at least "
            f"{milliseconds:.3f} ms a clip, MFU {found['mfu_bound']:.2f} at most")


def parse_mesh(text: str) -> dict[str, int]:
    """"data=16,fsdp=16" -> sizes of all axes.

    Raises:
        InputError: another axis, or no number.
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
    """Variations worth trying: what is divided, clips a chip, what is recomputed; the fastest first, if they fit."""
    chips = math.prod(parse_topology(topology)[1])
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

    What needs more memory than one that did not fit is left out.

    Args:
        report: called with each plan.

    Returns:
        The one of those that fit with the fewest chip-seconds a clip, or None; and all.
    """
    found, order = [], {"none": 2, "dots": 1, "full": 0}
    need = lambda clips, remat, fsdp: (clips, order[remat], -fsdp)
    for variant in candidates(config, topology):
        if len(found) == attempts:
            break
        clips = variant.batch_size // (variant.mesh.data * variant.mesh.fsdp)
        here = need(clips, variant.remat, variant.mesh.fsdp)
        failed = [need(p["batch"] // p["chips"], p["remat"], p["mesh"]["fsdp"]) for p in found if not p["fits"]]
        if any(all(a >= b for a, b in zip(here, other, strict=True)) for other in failed):
            continue
        found.append(plan(variant, topology, name=name))
        report(found[-1])
    fitting = [p for p in found if p["fits"]]
    return min(fitting, key=lambda p: p["estimated_step_seconds"] / p["batch"], default=None), found


def write_plan(path: str | Path, found: Plan) -> None:
    """Write a plan as JSON."""
    write_json(path, found.values)
