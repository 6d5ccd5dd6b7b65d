"""The pure train step: state and batch in, state and metrics out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from durian_jax.hardware.flops import count_flops
from durian_jax.models.attention import AttentionMethod, choose_implementation
from durian_jax.models.batch import model_inputs
from durian_jax.models.parameters import variables
from durian_jax.training.config import RunConfig
from durian_jax.training.sharding import Layout
from durian_jax.training.state import TrainState, state_shapes, teacher_params, without_teacher


def _loss_function(run: RunConfig, layout: Layout | None, remat: str, attention: AttentionMethod) -> Callable:
    """(trained, frozen, batch, key) -> (loss, its parts), for a batch as the loader makes it."""
    model, loss, spec = run.model.create(remat, attention), run.recipe.loss, run.batch_spec

    def loss_function(params, frozen, batch, key):
        params = {**params, **frozen}
        params = params if layout is None else layout.gather(params, run.model.dtype)
        options = {"teacher": variables(teacher_params(params))} if run.recipe.teacher else {}
        return loss(run, model, variables(without_teacher(params)), model_inputs(batch, spec, jnp), key, **options)
    return loss_function


def step_flops(run: RunConfig, state: TrainState, batch: dict, run_on: str | None = None, tile: int = 1) -> int:
    """Count the FLOPs of a step's loss and gradients (see `flops.count_flops`).

    Args:
        state, batch: arrays, or their shapes and types.
        run_on: also count what `remat` and the kernels of this platform compute twice; None: the model's work alone.
        tile: see `flops.count_flops`.
    """
    remat, implementation = "none", "xla"
    if run_on is not None:
        remat = run.remat
        implementation = choose_implementation(run.attention, run_on, run.model.dtype)
    loss_function = _loss_function(run, None, remat, AttentionMethod(implementation))
    gradient = jax.value_and_grad(loss_function, has_aux=True)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state.params, state.frozen, batch))
    return count_flops(lambda params, frozen, batch: gradient(params, frozen, batch, jax.random.key(0)), *shapes,
                       tile=tile)


def make_train_step(run: RunConfig, optimizer: optax.GradientTransformation, layout: Layout | None = None
                    ) -> jax.stages.Wrapped:
    """Return the jitted step of a run: (state, batch) -> (new state, metrics). It donates the state that it gets.

    Args:
        layout: of the state and the batch; None: everything is on one device.
    """
    device = jax.local_devices()[0] if layout is None else layout.mesh.devices.flat[0]
    platform, capability = device.platform, getattr(device, "compute_capability", "")
    implementation = choose_implementation(run.attention, platform, run.model.dtype, capability)
    attention = AttentionMethod(implementation, None if layout is None else layout.attention_partition)
    loss_function = _loss_function(run, layout, run.remat, attention)

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        # Random numbers depend on seed and step alone, so a resumed run repeats them.
        key = jax.random.fold_in(jax.random.key(run.seed), state.step)
        (loss, parts), gradients = jax.value_and_grad(loss_function, has_aux=True)(
            state.params, state.frozen, batch, key)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # A young average forgets faster, or the initial values would stay in it for long.
        decay = jnp.minimum(run.average_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients), **parts}
        return TrainState(state.step + 1, params, state.frozen, average, optimizer_state), metrics

    places = None
    if layout is not None:
        stage = run.recipe
        shapes = state_shapes(run.model, stage.trains, optimizer, run.frozen_dtype, stage.teacher)
        places = layout.state(shapes), None
    return jax.jit(train_step, donate_argnums=0, out_shardings=places,
                   compiler_options=compiler_options(run.remat, platform))


def compiler_options(remat: str, platform: str) -> dict[str, str] | None:
    """Return XLA options without which `remat` saves no memory on a CPU.

    XLA's CPU backend drops the barriers of rematerialisation early and then merges the recomputed values with the
    original ones, which therefore stay in memory: 6.6 instead of 2.4 GiB in a step of stage 2 at Stable Diffusion's
    size.
    """
    if remat == "none" or platform != "cpu":
        return None
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}
