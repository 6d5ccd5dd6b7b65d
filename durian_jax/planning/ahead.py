"""Compile a training step for TPUs that this machine does not have; a process that `planning.plan` starts and reads.

    python -m durian_jax.planning.ahead FOLDER TOPOLOGY [full]

Reads from FOLDER: config.json, the run's config, and family.json, the entry of its family in `families`. Writes to
FOLDER: facts.json, all that is known before compiling; XLA's dumps; and, with "full", compiled.json.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import topologies

from durian_jax import families
from durian_jax.errors import InputError
from durian_jax.files import write_json
from durian_jax.hardware.chips import parse_topology
from durian_jax.training.config import RunConfig
from durian_jax.training.layout import run_layout
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.run_checkpoints import placed
from durian_jax.training.sharding import Layout
from durian_jax.training.state import TrainState, state_shapes
from durian_jax.training.step import make_train_step, step_flops


def main(arguments: list[str]) -> None:
    """Compile the step of the run in a folder and write the files that `plan` reads into it.

    Args:
        arguments: the folder, the topology, and optionally "full" to make machine code too.
    """
    folder, topology = Path(arguments[0]), arguments[1]
    values = json.loads((folder / "config.json").read_text())
    family = json.loads((folder / "family.json").read_text())
    families.register(family["name"], families.Family(**family["parts"]))
    lower, facts = prepare(RunConfig.read(values), topology)
    write_json(folder / "facts.json", facts)
    start = time.monotonic()
    lowered = lower()
    write_json(folder / "lowered.json", {"seconds": time.monotonic() - start})
    compiled = lowered.compile(compiler_options={"xla_dump_to": str(folder / "dump"), "xla_dump_hlo_as_text": True})
    if arguments[2:] == ["full"]:
        memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
        write_json(folder / "compiled.json", {
            "seconds": time.monotonic() - start, "code_bytes": memory.generated_code_size_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes, "temporary_bytes": memory.temp_size_in_bytes,
            "flops": costs.get("flops", 0.0), "bytes_accessed": costs.get("bytes accessed", 0.0)})


def prepare(run: RunConfig, topology: str) -> tuple[Callable[[], jax.stages.Lowered], dict]:
    """Return a function that lowers a run's step for a topology, and all that is known without lowering.

    Raises:
        InputError: a slice that does not exist, or a mesh or batch that does not fit it.
    """
    chip, _ = parse_topology(topology)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"--topology {topology}: the compiler knows no such slice ({reason}); take a size that is "
                         "rented, such as v5e:4x4 or v5p:4x4x4") from error
    layout = run_layout(run, list(devices))
    optimizer = make_optimizer(run)
    state = placed(state_shapes(run.model, run.recipe.trains, optimizer, run.frozen_dtype, run.recipe.teacher), layout)
    batch = batch_shapes(run, layout)
    sizes = {"params": state.params, "average": state.average, "optimizer": state.optimizer_state,
             "frozen": state.frozen, "batch": batch}
    facts = {
        "mesh": dict(layout.mesh.shape), "coordinates": [list(device.coords) for device in layout.mesh.devices.flat],
        "parameters": sum(x.size for x in (*state.params.values(), *state.frozen.values())),
        "trained": sum(x.size for x in state.params.values()),
        "bytes": {name: chip_bytes(tree) for name, tree in sizes.items()},
        "flops_per_step": step_flops(run, state, batch),
        "filled_flops_per_chip": filled_flops(run, state, batch, layout, chip.tile)}
    return lambda: make_train_step(run, optimizer, layout).lower(state, batch), facts


def batch_shapes(run: RunConfig, layout: Layout) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and shardings of a batch of the run."""
    places = layout.batch(run.batch_spec)
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=places[name])
            for name, (shape, dtype) in run.batch_shapes().items()}


def chip_bytes(tree) -> int:
    """Bytes of a tree's arrays per chip."""
    return sum(int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize
               for x in jax.tree.leaves(tree))


def filled_flops(run: RunConfig, state: TrainState, batch: Mapping[str, jax.ShapeDtypeStruct], layout: Layout,
                 tile: int) -> int:
    """FLOPs of a chip per step, with recomputation and with matrix units filled up."""
    clips = run.batch_size // layout.clip_groups
    part = {name: jax.ShapeDtypeStruct((clips, *x.shape[1:]), x.dtype) for name, x in batch.items()}
    whole = step_flops(run, state, part, run_on="tpu", tile=tile)
    return whole // (layout.mesh.shape["frames"] * layout.mesh.shape["tensor"])


if __name__ == "__main__":
    main(sys.argv[1:])
