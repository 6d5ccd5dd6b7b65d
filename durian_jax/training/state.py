"""Train state: the parameters that train, their optimiser and their moving average."""

import re
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import FlatParams, param_shapes
from durian_jax.training.sharding import Layout


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and the frozen parameters that it needs.

    Attributes:
        step: number of updates made.
        params: parameters that train.
        frozen: all other parameters.
        average: exponential moving average of `params`, used for samples and exports.
        optimizer_state: optax's.
    """

    step: jax.Array
    params: FlatParams
    frozen: FlatParams
    average: FlatParams
    optimizer_state: optax.OptState


def split(params: FlatParams, trains: str) -> tuple[FlatParams, FlatParams]:
    """Split parameters into (trained, frozen).

    Args:
        trains: pattern of the paths that train (`Stage.trains`).
    """
    trained = {path: x for path, x in params.items() if re.match(trains, path)}
    return trained, {path: x for path, x in params.items() if path not in trained}


# Beginning of the paths of a teacher's parameters, which are frozen beside those of the model that learns from it.
TEACHER = "teacher/"


def without_teacher(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the model alone."""
    return {path: x for path, x in params.items() if not path.startswith(TEACHER)}


def teacher_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the teacher: its own, and the model's frozen ones, which both share."""
    own = {path.removeprefix(TEACHER): x for path, x in params.items() if path.startswith(TEACHER)}
    return {**without_teacher(params), **own}


def create_state(params: FlatParams, trains: str, optimizer: optax.GradientTransformation,
                 frozen_dtype: str = "float32", layout: Layout | None = None, teacher: bool = False) -> TrainState:
    """Create the state before the first step.

    Args:
        params: of the whole model, sharded over the devices of `layout`.
        trains: see `split`.
        frozen_dtype: precision of the frozen parameters.
        layout: how the state is sharded from the start; None: on one device.
        teacher: keep a frozen copy of the parameters to train (`Stage.teacher`).
    """
    trained, frozen = split(params, trains)
    trained = {path: jnp.asarray(x, jnp.float32) for path, x in trained.items()}

    copies = lambda trained: {TEACHER + path: x for path, x in trained.items()} if teacher else {}

    def rest(trained, frozen):
        return (jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, trained), optimizer.init(trained),
                {path: x.astype(frozen_dtype) for path, x in {**frozen, **copies(trained)}.items()})

    places = None if layout is None else layout.state(jax.eval_shape(rest, trained, frozen))
    step, average, optimizer_state, frozen = jax.jit(rest, out_shardings=places)(trained, frozen)
    return TrainState(step, trained, frozen, average, optimizer_state)


def state_shapes(model: ModelConfig, trains: str, optimizer: optax.GradientTransformation, frozen_dtype: str,
                 teacher: bool = False) -> TrainState:
    """Shapes and types of a state, without making one."""
    return jax.eval_shape(lambda params: create_state(params, trains, optimizer, frozen_dtype, teacher=teacher),
                          param_shapes(model))
