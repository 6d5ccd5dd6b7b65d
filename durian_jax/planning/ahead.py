"""Compile a training step for TPUs that are not there; a process of its own, which `planning.plan` starts and reads.

    python -m durian_jax.planning.ahead CONFIG.json TOPOLOGY FOLDER [full]

Writes to FOLDER: facts.json, what can be said before compiling; XLA's dumps; and, with "full", compiled.json.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jax.experimental import topologies
from ml_collections import ConfigDict

from durian_jax.data import DataConfig, SyntheticClips
from durian_jax.data.encoded_samples import EncodedSamples
from durian_jax.data.samples.durian import sample_pair
from durian_jax.errors import InputError
from durian_jax.files import write_json
from durian_jax.hardware.chips import parse_topology
from durian_jax.models.durian.config import DurianConfig
from durian_jax.training.loop import run_layout, validate
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.run_checkpoints import placed
from durian_jax.training.sharding import Layout, make_mesh
from durian_jax.training.state import TrainState, state_shapes
from durian_jax.training.step import make_train_step, step_flops


def main(arguments: list[str]) -> None:
    path, topology, folder = arguments[0], arguments[1], Path(arguments[2])
    config = ConfigDict(json.loads(Path(path).read_text()))
    lower, facts = prepare(config, topology)
    write_json(folder / "facts.json", facts)
    start = time.monotonic()
    lowered = lower()
    write_json(folder / "lowered.json", {"seconds": time.monotonic() - start})
    compiled = lowered.compile(compiler_options={"xla_dump_to": str(folder / "dump"), "xla_dump_hlo_as_text": True})
    if arguments[3:] == ["full"]:
        memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
        write_json(folder / "compiled.json", {
            "seconds": time.monotonic() - start, "code_bytes": memory.generated_code_size_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes, "temporary_bytes": memory.temp_size_in_bytes,
            "flops": costs.get("flops", 0.0), "bytes_accessed": costs.get("bytes accessed", 0.0)})


def prepare(config: ConfigDict, topology: str) -> tuple[Callable[[], jax.stages.Lowered], dict]:
    """What lowers a run's step for a topology, and what can be said without doing so.

    Raises:
        InputError: a slice that does not exist, a mesh or batch that does not fit it.
    """
    model, data, objective = validate(config)
    chip, _ = parse_topology(topology)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"--topology {topology}: the compiler knows no such slice ({reason}); take a size that is "
                         "rented, such as v5e:4x4 or v5p:4x4x4") from error
    layout = run_layout(config, model, make_mesh(config.mesh, list(devices)))
    layout.check_batch(config.batch_size, data.frames)
    optimizer = make_optimizer(config)
    state = placed(state_shapes(model, config.stage, optimizer, config.frozen_dtype), layout)
    batch = batch_shapes(config, model, data, layout)
    sizes = {"params": state.params, "average": state.average, "optimizer": state.optimizer_state,
             "frozen": state.frozen, "batch": batch}
    facts = {
        "mesh": dict(layout.mesh.shape), "coordinates": [list(device.coords) for device in layout.mesh.devices.flat],
        "parameters": sum(x.size for x in (*state.params.values(), *state.frozen.values())),
        "trained": sum(x.size for x in state.params.values()),
        "bytes": {name: chip_bytes(tree) for name, tree in sizes.items()},
        "flops_per_step": step_flops(config, model, objective, state, batch),
        "filled_flops_per_chip": filled_flops(config, model, objective, state, batch, layout, chip.tile)}
    return lambda: make_train_step(config, model, objective, optimizer, layout).lower(state, batch), facts


def batch_shapes(config: ConfigDict, model: DurianConfig, data: DataConfig, layout: Layout
                 ) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of the run, of which one sample is made or read to see what is in it."""
    if config.source.samples:
        sample = EncodedSamples(config.source.samples)[0]
    else:
        # An identity embedding takes the place of the face it is of before a batch is put together.
        people = SyntheticClips("train", 4, max(data.frames, 2), data.image_size)
        sample = sample_pair(people, 0, np.random.default_rng(0), replace(data, face_crops=False))
        if model.identity_dim is not None:
            sample["identity"] = np.zeros(model.identity_dim, np.float32)
    places = layout.batch({name: x.shape for name, x in sample.items()})
    return {name: jax.ShapeDtypeStruct((config.batch_size, *np.shape(x)), np.asarray(x).dtype, sharding=places[name])
            for name, x in sample.items()}


def chip_bytes(tree) -> int:
    """Bytes of a tree's arrays on one chip."""
    return sum(int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize
               for x in jax.tree.leaves(tree))


def filled_flops(config: ConfigDict, model: DurianConfig, objective, state: TrainState, batch: dict, layout: Layout,
                 tile: int) -> int:
    """FLOPs that a chip does in a step: with what is computed twice, and with matrix units filled up."""
    clips = config.batch_size // layout.clip_groups
    part = {name: jax.ShapeDtypeStruct((clips, *x.shape[1:]), x.dtype) for name, x in batch.items()}
    whole = step_flops(config, model, objective, state, part, run_on="tpu", tile=tile)
    return whole // (layout.mesh.shape["frames"] * layout.mesh.shape["tensor"])


if __name__ == "__main__":
    main(sys.argv[1:])
