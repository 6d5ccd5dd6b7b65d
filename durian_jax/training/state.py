"""Train state: which parameters train, their optimiser and their moving average.

A stage is a set of parameter paths.
"""

import re

import flax.struct
import jax
import jax.numpy as jnp
import optax

from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.parameters import FlatParams, param_shapes
from durian_jax.training.sharding import Layout

# Stage -> pattern of the parameter paths that it trains; the others stay as they are and have no
# optimiser state (Durian, section 3.3: stage 2 trains the temporal layers only). "decoder" sharpens the codec
# at any time: latents, and so everything that stages 1 and 2 have learned, stay as they are. "joint" is
# stage 1 with the decoder, which so learns to draw what the denoiser predicts and not only true latents.
STAGES = {
    "codec": r"codec/",
    "decoder": r"codec/decoder/",
    "1": r"(?!codec/|image_encoder/)(?!.*motion_module)",
    "joint": r"(?!codec/encoder/|image_encoder/)(?!.*motion_module)",
    "2": r".*motion_module",
}


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and the frozen parameters it needs.

    Attributes:
        step: number of updates made.
        params: parameters of this stage.
        frozen: the others.
        average: exponential moving average of `params`: what is sampled from and exported.
        optimizer_state: optax's.
    """

    step: jax.Array
    params: FlatParams
    frozen: FlatParams
    average: FlatParams
    optimizer_state: optax.OptState


def split(params: FlatParams, stage: str) -> tuple[FlatParams, FlatParams]:
    """(trained, frozen) parameters of a stage."""
    trained = {path: x for path, x in params.items() if re.match(STAGES[stage], path)}
    return trained, {path: x for path, x in params.items() if path not in trained}


def create_state(params: FlatParams, stage: str, optimizer: optax.GradientTransformation,
                 frozen_dtype: str = "float32", layout: Layout | None = None) -> TrainState:
    """The state before the first step of a stage.

    Args:
        params: of the whole model, in parts on the devices of `layout`.
        frozen_dtype: precision in which the parameters are kept that this stage does not train.
        layout: where the state lies, from the moment it is made; None: on one device.
    """
    trained, frozen = split(params, stage)
    trained = {path: jnp.asarray(x, jnp.float32) for path, x in trained.items()}

    def rest(trained, frozen):
        return (jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, trained), optimizer.init(trained),
                {path: x.astype(frozen_dtype) for path, x in frozen.items()})

    places = None if layout is None else layout.state(jax.eval_shape(rest, trained, frozen))
    step, average, optimizer_state, frozen = jax.jit(rest, out_shardings=places)(trained, frozen)
    return TrainState(step, trained, frozen, average, optimizer_state)


def state_shapes(model: DurianConfig, stage: str, optimizer: optax.GradientTransformation, frozen_dtype: str
                 ) -> TrainState:
    """Shapes and types of a state, without making one."""
    return jax.eval_shape(lambda params: create_state(params, stage, optimizer, frozen_dtype), param_shapes(model))
