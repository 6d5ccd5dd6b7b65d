"""Where the arrays of a run lie: one mesh of devices, one table from logical axes to its axes.

Everything is written as if for one device; XLA's partitioner divides the step by what is said here (GSPMD), so that
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
from durian_jax.models.parameters import FlatParams

# data: clips. fsdp: clips too, and parts of parameters and optimiser state. frames: the frames of a clip. tensor:
# attention heads and the feed-forward layers' hidden channels.
MESH_AXES = ("data", "fsdp", "frames", "tensor")

# Logical axis of a parameter -> the mesh axis that divides it. A mesh axis takes the first that it divides evenly.
RULES = (("heads", "tensor"), ("mlp", "tensor"), ("in", "fsdp"), ("out", "fsdp"), ("heads", "fsdp"), ("mlp", "fsdp"))

# Parameters with fewer values lie on every device whole: to gather them would cost more than it saves.
_SMALL = 16_384

_CLIPS = ("data", "fsdp")
# Fields of a batch with a frame axis after the clips'.
_FRAME_FIELDS = ("frames", "frame_masks", "frame_latents", "keypoints")


def make_mesh(sizes: Mapping[str, int], devices: list | None = None) -> Mesh:
    """The mesh of a config.

    Args:
        sizes: devices along each of `MESH_AXES`; one may be -1 and takes what the others leave.
        devices: None: all of the cluster.

    Raises:
        InputError: sizes that do not make up the devices, or slices of different sizes.
    """
    devices = jax.devices() if devices is None else devices
    shape = [sizes[name] for name in MESH_AXES]
    text = " x ".join(f"{name}={size}" for name, size in zip(MESH_AXES, shape, strict=True))
    if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise InputError(f"mesh: expected sizes of at least 1, one of them may be -1 (the rest), found {text}")
    if -1 in shape:
        others = -int(np.prod(shape))
        shape[shape.index(-1)] = max(len(devices) // others, 1)
    if int(np.prod(shape)) != len(devices):
        raise InputError(f"mesh: {text} does not make up the {len(devices)} devices there are; change mesh.data, "
                         "mesh.fsdp, mesh.frames or mesh.tensor")
    return Mesh(arrange(tuple(shape), devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def arrange(shape: tuple[int, ...], devices: Sequence) -> np.ndarray:
    """Devices in the shape of a mesh, neighbours in it being neighbours in the network.

    Slices (of TPUs; of GPUs: machines) have a slower network between them: the first axes of the mesh, which exchange
    the least, go over it.

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
    """Where parameters, optimiser state and batches lie.

    Attributes:
        mesh: with the axes `MESH_AXES`.
        axes: path of a parameter -> its logical axes (`models.parameters.param_axes`).
        whole: paths of parameters that lie whole on every group of chips that shares a model, and are not divided
            over fsdp: nothing has to be gathered of them.
    """

    mesh: Mesh
    axes: Mapping[str, tuple[str, ...]]
    whole: frozenset[str] = frozenset()

    @property
    def clip_groups(self) -> int:
        """How many parts the clips of a batch are divided into."""
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
        """Where a parameter is kept between steps, and what the optimiser keeps of it."""
        axes = ("tensor",) if path in self.whole else ("fsdp", "tensor")
        return NamedSharding(self.mesh, self._spec(path, shape, axes))

    def state(self, shapes):
        """The tree of shardings of a train state: what has a parameter's path and shape lies as that does."""
        def of(keys, leaf):
            for key in keys:
                path = getattr(key, "key", None)
                if path in self.axes and len(self.axes[path]) == len(leaf.shape):
                    return self.param(path, leaf.shape)
            return NamedSharding(self.mesh, P())
        return jax.tree_util.tree_map_with_path(of, shapes)

    def batch(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NamedSharding]:
        """The shardings of a batch: clips over data and fsdp, frames over frames."""
        frames = {name: ("frames",) if name in _FRAME_FIELDS else () for name in shapes}
        return {name: NamedSharding(self.mesh, P(_CLIPS, *frames[name])) for name in shapes}

    def place(self, path: str, value: np.ndarray) -> jax.Array:
        """A parameter's value to where it is kept; no device ever holds more than its part."""
        return jax.make_array_from_callback(value.shape, self.param(path, value.shape), lambda index: value[index])

    def gather(self, params: FlatParams, dtype: str) -> FlatParams:
        """Parameters for computing, inside a compiled step: whole but for the tensor axis.

        They are gathered once a step, in the precision of the activations; the recomputation of the backward pass uses
        them again. Their gradients are added up in parts, each where that part of the parameter is kept (ZeRO). Norms
        stay in float32.
        """
        if self.mesh.shape["fsdp"] == 1:
            return params

        def of(path: str, x: jax.Array) -> jax.Array:
            whole = NamedSharding(self.mesh, self._spec(path, x.shape, ("tensor",)))
            kept = self.param(path, x.shape)
            # Without it the gradient would be as whole as what was gathered: twice the traffic, and memory for all.
            gather = jax.custom_vjp(lambda x: jax.lax.with_sharding_constraint(x, whole))
            gather.defvjp(lambda x: (gather(x), None), lambda _, g: (jax.lax.with_sharding_constraint(g, kept),))
            return gather(x if "norm" in self.axes[path] else x.astype(dtype))
        return {path: of(path, x) for path, x in params.items()}

    def for_kernels(self):
        """A block in which kernels that XLA cannot divide find the mesh."""
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def check_batch(self, batch_size: int, frames: int) -> None:
        """Refuse what cannot be divided.

        Raises:
            InputError: clips or frames that cannot be shared out equally.
        """
        if frames % self.mesh.shape["frames"]:
            raise InputError(f"data.frames={frames} cannot be divided among mesh.frames={self.mesh.shape['frames']}; "
                             "take a multiple")
        if batch_size % self.clip_groups:
            raise InputError(f"batch_size={batch_size} cannot be divided among data x fsdp = {self.clip_groups} groups "
                             "of devices; take a multiple")

    def host_parts(self) -> tuple[int, ...]:
        """Which of the `clip_groups` parts of every batch this process makes.

        On a torus of chips they need not be neighbours: a host's chips are a square of it.
        """
        devices = self.mesh.devices.reshape(self.clip_groups, -1)
        return tuple(number for number, group in enumerate(devices)
                     if any(device.process_index == jax.process_index() for device in group))

    def assemble(self, batch: Mapping[str, np.ndarray], parts: tuple[int, ...]) -> dict[str, jax.Array]:
        """One batch of all processes from what each has made of it.

        Args:
            batch: this process's `parts` (see `host_parts`), one after the other.
        """
        shardings = self.batch({name: x.shape for name, x in batch.items()})

        def whole(name: str, x: np.ndarray) -> jax.Array:
            size = len(x) // len(parts)
            # Rows of the whole batch to rows of ours; not `make_array_from_process_local_data`, which takes them to be
            # neighbours.
            def part(index):
                first = index[0].start or 0
                mine = parts.index(first // size) * size + first % size
                return x[(slice(mine, mine + (index[0].stop or len(x)) - first), *index[1:])]
            return jax.make_array_from_callback((size * self.clip_groups, *x.shape[1:]), shardings[name], part)
        return {name: whole(name, x) for name, x in batch.items()}


def to_host(params: Mapping[str, jax.Array], keep: bool = True) -> dict[str, np.ndarray]:
    """Whole parameters in this process's memory, one by one; every process must call it.

    Args:
        keep: False: this process only gives the others its parts, and gets nothing.
    """
    from jax.experimental import multihost_utils

    kept = {}
    for path, x in params.items():
        whole = np.asarray(x) if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)
        if keep:
            kept[path] = whole
    return kept
