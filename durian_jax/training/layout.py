"""The layout of a run: its mesh, and how its state and batches are sharded over it."""

from durian_jax.models.parameters import param_axes, param_shapes
from durian_jax.training.config import RunConfig
from durian_jax.training.sharding import Layout, check_batch, make_mesh
from durian_jax.training.state import TEACHER, split


def run_layout(run: RunConfig, devices: list | None = None) -> Layout:
    """How the state and the batches of a run are sharded.

    Args:
        devices: None: all devices of the cluster.

    Raises:
        InputError: a mesh that does not fit the devices, or a batch that does not fit the mesh.
    """
    mesh = make_mesh(run.mesh, devices)
    check_batch(mesh.shape, run.batch_size, run.data.frames)  # before the model is traced, which takes seconds
    trained, frozen = split(param_shapes(run.model), run.recipe.trains)
    axes = param_axes(run.model)
    if run.recipe.teacher:
        copies = {TEACHER + path: axes[path] for path in trained}
        axes, frozen = {**axes, **copies}, {**frozen, **copies}
    return Layout(mesh, axes, frozenset(frozen if run.frozen_whole else ()))
