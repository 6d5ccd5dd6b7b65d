"""How a run's arrays are sharded: one mesh of devices, one table from logical axes to mesh axes.

All other code is written as if for one device. XLA's partitioner (GSPMD) divides the step by these shardings, so
results do not depend on the mesh.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from durian_jax.errors import InputError
from durian_jax.models.attention import Partition
from durian_jax.models.batch import Field, Spec
from durian_jax.models.parameters import FlatParams

# data: clips. fsdp: clips, parameters and optimiser state. frames: the frames of a clip. tensor: attention heads and
# the hidden channels of feed-forward layers.
MESH_AXES = ("data", "fsdp", "frames", "tensor")

# Logical axis of a parameter -> the mesh axis that shards it. A mesh axis takes the first axis that it divides evenly.
RULES = (("heads", "tensor"), ("mlp", "tensor"), ("in", "fsdp"), ("out", "fsdp"), ("heads", "fsdp"), ("mlp", "fsdp"))

# Parameters with fewer values are replicated: gathering them would cost more than it saves.
_SMALL = 16_384

_CLIPS = ("data", "fsdp")
_FRAMES = ("frames",)
# Letter of a batch's axis -> the mesh axes that shard it.
_BATCH_AXES = {"B": _CLIPS, "F": _FRAMES}


def make_mesh(sizes: Mapping[str, int], devices: list | None = None) -> Mesh:
    """Build the mesh of a config.

    Args:
        sizes: number of devices along each of `MESH_AXES`; one may be -1 and takes the remaining devices.
        devices: None: all devices of the cluster.

    Raises:
        InputError: the product of the sizes is not the number of devices, or slices differ in size.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(sizes, len(devices))
    return Mesh(arrange(shape, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def mesh_shape(sizes: Mapping[str, int], count: int) -> tuple[int, ...]:
    """Return the number of devices along each of `MESH_AXES`.

    Args:
        sizes: see `make_mesh`.
        count: number of devices.

    Raises:
        InputError: the product of the sizes is not the number of devices.
    """
    shape = [sizes[name] for name in MESH_AXES]
    text = " x ".join(f"{name}={size}" for name, size in zip(MESH_AXES, shape, strict=True))
    if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise InputError(f"mesh: expected sizes of at least 1, one of them may be -1 (the rest), found {text}")
    if -1 in shape:
        others = -int(np.prod(shape))
        shape[shape.index(-1)] = max(count // others, 1)
    if int(np.prod(shape)) != count:
        raise InputError(f"mesh: expected sizes whose product is the {count} devices, found {text}; change mesh.data, "
                         "mesh.fsdp, mesh.frames or mesh.tensor")
    return tuple(shape)


def check_batch(mesh: Mapping[str, int], batch_size: int, frames: int) -> None:
    """Check that a batch can be divided evenly.

    Args:
        mesh: number of devices along each of `MESH_AXES`.
        batch_size: number of clips, on all devices together.
        frames: F.

    Raises:
        InputError: the clips or the frames cannot.
    """
    groups = mesh["data"] * mesh["fsdp"]
    if frames % mesh["frames"]:
        raise InputError(f"data.frames={frames} cannot be divided among mesh.frames={mesh['frames']}; take a multiple")
    if batch_size % groups:
        raise InputError(f"batch_size={batch_size} cannot be divided among data x fsdp = {groups} groups of devices; "
                         "take a multiple")


def arrange(shape: tuple[int, ...], devices: Sequence) -> np.ndarray:
    """Arrange devices in the shape of a mesh, so that neighbours in the mesh are neighbours in the network.

    The network between slices (of TPUs; machines with GPUs) is slower: the first mesh axes, which communicate least,
    cross it.

    Raises:
        InputError: slices of different sizes.
    """
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(set(slices.values())) > 1:
        raise InputError("mesh: expected slices (machines with GPUs) of one size, found some of "
                         f"{sorted(set(slices.values()))} devices")
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    outer, left = [], len(slices)
    for size in shape:
        outer.append(math.gcd(size, left))
        left //= outer[-1]
    inner = tuple(size // part for size, part in zip(shape, outer, strict=True))
    return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)


@dataclass(frozen=True)
class Layout:
    """How parameters, optimiser state and batches are sharded.

    Attributes:
        mesh: with the axes `MESH_AXES`.
        axes: path of a parameter -> its logical axes (`models.parameters.param_axes`).
        whole: paths of parameters that are not sharded over fsdp, so they need no gathering.
    """

    mesh: Mesh
    axes: Mapping[str, tuple[str, ...]]
    whole: frozenset[str] = frozenset()

    @property
    def clip_groups(self) -> int:
        """Number of parts into which the clips of a batch are divided."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def _spec(self, path: str, shape: tuple[int, ...], mesh_axes: tuple[str, ...]) -> P:
        parts: list[str | None] = [None] * len(shape)
        if np.prod(shape) >= _SMALL:
            for logical, axis in RULES:
                for i, name in enumerate(self.axes[path]):
                    free = parts[i] is None and axis in mesh_axes and axis not in parts
                    if free and name == logical and shape[i] % self.mesh.shape[axis] == 0:
                        parts[i] = axis
        return P(*parts)

    def param(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
        """Sharding of a parameter between steps, and of its optimiser state."""
        axes = ("tensor",) if path in self.whole else ("fsdp", "tensor")
        return NamedSharding(self.mesh, self._spec(path, shape, axes))

    def state(self, shapes):
        """Shardings of a train state: a leaf with a parameter's path and shape is sharded like the parameter."""
        def of(keys, leaf):
            for key in keys:
                path = getattr(key, "key", None)
                if path in self.axes and len(self.axes[path]) == len(leaf.shape):
                    return self.param(path, leaf.shape)
            return NamedSharding(self.mesh, P())
        return jax.tree_util.tree_map_with_path(of, shapes)

    def batch(self, spec: Spec) -> dict[str, NamedSharding]:
        """Shardings of a batch: clips over data and fsdp, frames over frames."""
        def of(field: Field) -> NamedSharding:
            return NamedSharding(self.mesh, P(*[_BATCH_AXES.get(axis) for axis in field.axes]))
        return {name: of(field) for name, field in spec.items()}

    @property
    def attention_partition(self) -> Partition:
        """How attention kernels divide their arrays."""
        return Partition(self.mesh, clips=_CLIPS, frames=_FRAMES, heads=("tensor",))

    def place(self, path: str, value: np.ndarray) -> jax.Array:
        """Shard a parameter's value; no device ever holds more than its shard."""
        return jax.make_array_from_callback(value.shape, self.param(path, value.shape), lambda index: value[index])

    def gather(self, params: FlatParams, dtype: str) -> FlatParams:
        """Gather parameters for computing, inside a jitted step: sharded over the tensor axis only.

        They are gathered once per step, in the precision of the activations; the recomputation of the backward pass
        uses them again. Their gradients are reduce-scattered to the parameters' shards (ZeRO). Norms stay in float32.
        """
        if self.mesh.shape["fsdp"] == 1:
            return params

        def of(path: str, x: jax.Array) -> jax.Array:
            whole = NamedSharding(self.mesh, self._spec(path, x.shape, ("tensor",)))
            kept = self.param(path, x.shape)
            # Without it the gradient would be replicated like the gathered value: twice the traffic, and full memory.
            gather = jax.custom_vjp(lambda x: jax.lax.with_sharding_constraint(x, whole))
            gather.defvjp(lambda x: (gather(x), None), lambda _, g: (jax.lax.with_sharding_constraint(g, kept),))
            return gather(x if "norm" in self.axes[path] else x.astype(dtype))
        return {path: of(path, x) for path, x in params.items()}

    def host_parts(self) -> tuple[int, ...]:
        """Return the numbers of the parts, out of `clip_groups`, of every batch that this process loads.

        On a torus they need not be neighbours: the chips of a host are a square of it.
        """
        devices = self.mesh.devices.reshape(self.clip_groups, -1)
        return tuple(number for number, group in enumerate(devices)
                     if any(device.process_index == jax.process_index() for device in group))

    def assemble(self, batch: Mapping[str, np.ndarray], parts: tuple[int, ...], spec: Spec) -> dict[str, jax.Array]:
        """Make one global batch from the parts that every process has loaded.

        Args:
            batch: this process's `parts` (see `host_parts`), concatenated.
            spec: of its fields.
        """
        shardings = self.batch({name: spec[name] for name in batch})

        def whole(name: str, x: np.ndarray) -> jax.Array:
            size = len(x) // len(parts)
            # Map rows of the global batch to local rows. `make_array_from_process_local_data` would expect the parts
            # to be neighbours.
            def part(index):
                first = index[0].start or 0
                mine = parts.index(first // size) * size + first % size
                return x[(slice(mine, mine + (index[0].stop or len(x)) - first), *index[1:])]
            return jax.make_array_from_callback((size * self.clip_groups, *x.shape[1:]), shardings[name], part)
        return {name: whole(name, x) for name, x in batch.items()}


def to_host(params: Mapping[str, jax.Array], keep: bool = True) -> dict[str, np.ndarray]:
    """Gather parameters in this process's memory, one by one. Every process must call it.

    Args:
        keep: False: this process contributes its shards and keeps nothing.
    """
    from jax.experimental import multihost_utils

    kept = {}
    for path, x in params.items():
        whole = np.asarray(x) if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)
        if keep:
            kept[path] = whole
    return kept
