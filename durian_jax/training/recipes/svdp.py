"""SVDP's training stages and losses (arXiv 2509.17476, section 3).

Axis letters: B clips, F frames, T history frames, H x W pixels, h x w latents, c latent channels.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.diffusion.guidance import active_branches, combine
from durian_jax.diffusion.times import shift_times
from durian_jax.diffusion.training_draws import sample_noise, sample_times
from durian_jax.errors import InputError
from durian_jax.images import to_uint8
from durian_jax.inference.generate import decode
from durian_jax.models.svdp.conditions import DRIVING
from durian_jax.models.svdp.model import SVDP, history_motion
from durian_jax.training.config import RunConfig
from durian_jax.training.recipes.codec import CODEC_STAGES
from durian_jax.training.recipes.reconstruction import (
    check_joint,
    latent_region,
    needs_pixels,
    reconstruction_loss,
    sampled_frames,
    with_pixels,
)
from durian_jax.training.stage import Stage, always

# Weight of `shift_error`, relative to that of pixels.
_SHIFT_WEIGHT = 0.3


def denoising_loss(run: RunConfig, model: SVDP, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array, *,
                   temporal: bool, fixed: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Reconstruction of a clip from its source, attributes and driver; see `training.stage.Loss`.

    Each clip is at one branch of guidance, drawn by `run.guidance_dropout`: it sees nothing, or the source, or the
    driver too, or history too (nested drop-out), so that all branches are trained. A model that retouches frames also
    learns to shift pictures onto the truth (`shift_error`).

    Args:
        temporal: the frames of a clip share their diffusion time, as in sampling, and video attention runs; else they
            are independent images of one person.
        fixed: stop the gradient at the predicted latents: only retouching learns.
    """
    objective, (b, f) = run.objective, batch["driving_masks"].shape[:2]
    noise_key, time_key, level_key, history_key = jax.random.split(key, 4)
    times = jnp.broadcast_to(sample_times(objective, time_key, (b, 1 if temporal else f)), (b, f))
    schedule = objective.noise_schedule
    level = jax.random.choice(level_key, len(run.branch_shares), (b,), p=jnp.array(run.branch_shares))

    def forward(m: SVDP):
        clean = jax.lax.stop_gradient(m.frame_latents(batch))
        noise = sample_noise(objective, noise_key, clean.shape, shared_offset=temporal,
                             shared=temporal and run.sampling.shared_noise)
        noisy = schedule.add_noise(clean, noise, times)
        history = disturbed_history(run, m, batch, history_key) if run.data.history else None
        condition = m.condition(batch, history=history).at_levels(level)
        prediction = m.denoise(noisy, schedule.timesteps(times), condition, temporal=temporal)
        if fixed:
            prediction = jax.lax.stop_gradient(prediction)
        decoded, shifted = None, None
        if objective.weighs_pixels:
            decoded = m.decode(objective.to_clean(prediction, noisy, times), temporal)
            decoded, shifted = m.retouched(decoded, condition)
        return (prediction, clean, noise, times, decoded), shifted

    outputs, shifted = model.apply(variables, method=forward)
    loss, parts = reconstruction_loss(run, batch, *outputs)
    if shifted is not None:
        parts["shift"] = shift_error(*shifted, batch["frames"], level >= DRIVING)
        loss += objective.pixel_weight * _SHIFT_WEIGHT * parts["shift"]
    return loss, parts


def shift_error(pictures: jax.Array, masks: jax.Array, frames: jax.Array, counts: jax.Array) -> jax.Array:
    """Mean square error of shifted pictures where they are known.

    Without it a picture that lies some pixels beside the truth is simply not taken over, and what is not taken over
    never learns to be shifted.

    Args:
        pictures, masks: (B, F, G, H, W, 3) and (B, F, G, H, W, 1), see `models.svdp.model.SVDP.retouched`.
        frames: (B, F, H, W, 3) the truth.
        counts: (B,) bool, which clips.
    """
    weights = masks * counts[:, None, None, None, None, None]
    return (weights * (pictures - frames[:, :, None]) ** 2).sum() / (3 * weights.sum() + 1.0)


def disturbed_history(run: RunConfig, model: SVDP, batch: Mapping[str, jax.Array], key: jax.Array
                      ) -> tuple[jax.Array, jax.Array]:
    """History as sampling meets it: not quite right. Latents (B, T, h, w, c) and their timesteps (B, T).

    Noise whose time the model is told; other brightness and colours; the codec's own losses; and, for a share of the
    clips, frames that the model itself has made. Without it errors add up over a long video.
    """
    settings, objective = run.disturbance, run.objective
    latents = jax.lax.stop_gradient(model.history_latents(batch))
    b, t = latents.shape[:2]
    time_key, noise_key, colour_key, own_key, start_key = jax.random.split(key, 5)
    if settings.own_share:
        made = jax.lax.stop_gradient(_own_frames(run, model, batch, start_key))
        own = jax.random.uniform(own_key, (b, 1, 1, 1, 1)) < settings.own_share
        latents = jnp.where(own, made, latents)
    if settings.colour:
        pictures = jax.lax.stop_gradient(model.decode(latents))
        change = jax.random.uniform(colour_key, (2, b, 1, 1, 1, 3), minval=-1, maxval=1) * settings.colour
        latents = jax.lax.stop_gradient(model.encode(pictures * (1 + change[0]) + change[1]))
    times = jax.random.uniform(time_key, (b, 1), maxval=settings.noise)
    times = jnp.broadcast_to(times, (b, t))
    noise = jax.random.normal(noise_key, latents.shape)
    schedule = objective.noise_schedule
    return schedule.add_noise(latents, noise, times), schedule.timesteps(times)


def _own_frames(run: RunConfig, model: SVDP, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
    """The model's own latents (B, T, h, w, c) of the history frames, from noise in one step and without history."""
    driven = model.condition(history_motion(batch))
    noise = jax.random.normal(key, (*batch["history_masks"].shape[:2], *[model.config.latent_size] * 2,
                                    model.config.codec.latent_channels))
    ones = jnp.ones(noise.shape[:2])
    prediction = model.denoise(noise, run.objective.noise_schedule.timesteps(ones), driven, temporal=True)
    return run.objective.to_clean(prediction, noise, ones)


def fusion_loss(run: RunConfig, model: SVDP, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array, *,
                teacher: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Learn the teacher's fused prediction of all branches in one pass (guidance distillation, arXiv 2210.03142).

    Args:
        teacher: variables of the teacher, whose guidance is `run.distillation.scales`.
    """
    objective, (b, f) = run.objective, batch["driving_masks"].shape[:2]
    noise_key, time_key, history_key = jax.random.split(key, 3)
    times = jnp.broadcast_to(sample_times(objective, time_key, (b, 1)), (b, f))
    noisy = _noisy_frames(run, model, variables, batch, noise_key, times)
    active, scales = active_branches(run.distillation.scales)
    batch, history = _known_history(run, model, variables, batch, history_key)

    def clean(m: SVDP, branches):
        conditions = m.branches(m.condition(batch, history=history))
        return [objective.to_clean(m.denoise(noisy, objective.noise_schedule.timesteps(times), conditions[i],
                                             temporal=True), noisy, times) for i in branches]

    target = combine(model.apply(teacher, active, method=clean), scales)
    (found,) = model.apply(variables, (-1,), method=clean)  # the last branch sees all conditions
    return _clean_loss(run, model, variables, batch, found, target)


def steps_loss(run: RunConfig, model: SVDP, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array, *,
               teacher: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Learn to make several of the teacher's sampling steps in one (progressive distillation, arXiv 2202.00512).

    Args:
        teacher: variables of the teacher, which samples with `run.distillation.teacher_steps`.
    """
    objective, settings, (clips, f) = run.objective, run.distillation, batch["driving_masks"].shape[:2]
    noise_key, step_key, history_key = jax.random.split(key, 3)
    inner = settings.teacher_steps // settings.student_steps
    grid = jnp.asarray(shift_times(np.linspace(1, 0, settings.teacher_steps + 1), objective.time_shift), jnp.float32)
    first = inner * jax.random.randint(step_key, (clips,), 0, settings.student_steps)
    at = lambda steps: jnp.broadcast_to(grid[first + steps][:, None], (clips, f))
    noisy = _noisy_frames(run, model, variables, batch, noise_key, at(0))
    batch, history = _known_history(run, model, variables, batch, history_key)

    def clean(m: SVDP, z, times, condition):
        return objective.to_clean(m.denoise(z, objective.noise_schedule.timesteps(times), condition, temporal=True), z,
                                  times)

    def teach(m: SVDP):
        condition = m.condition(batch, history=history)

        def one_step(step, z):
            a, b = _euler(objective, at(step), at(step + 1))
            return a * z + b * clean(m, z, at(step), condition)
        z = jax.lax.fori_loop(0, inner, one_step, noisy)
        a, b = _euler(objective, at(0), at(inner))
        return (z - a * noisy) / b  # one step with this prediction leads to z

    target = model.apply(teacher, method=teach)
    found = model.apply(variables, method=lambda m: clean(m, noisy, at(0), m.condition(batch, history=history)))
    return _clean_loss(run, model, variables, batch, found, target)


def _euler(objective: Objective, start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(a, b), each (B, F, 1, 1, 1), of a deterministic step: z_end = a z_start + b clean."""
    (alpha, sigma), (alpha_end, sigma_end) = objective.noise_schedule(start), objective.noise_schedule(end)
    a = sigma_end / sigma
    return tuple(x[..., None, None, None] for x in (a, alpha_end - alpha * a))


def _known_history(run: RunConfig, model: SVDP, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array
                   ) -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array]]:
    """The batch and the disturbed history that teacher and student see.

    Among the clips that see the driver, as many have no history as `run.guidance_dropout` says: the first segment of a
    video has none either.
    """
    *_, without, with_history = run.branch_shares
    hidden_key, disturbance_key = jax.random.split(key)
    shown = jax.random.uniform(hidden_key, batch["history_valid"].shape) * (without + with_history) >= without
    history = model.apply(variables, method=lambda m: disturbed_history(run, m, batch, disturbance_key))
    return {**batch, "history_valid": batch["history_valid"] * shown}, history


def _noisy_frames(run: RunConfig, model: SVDP, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array,
                  times: jax.Array) -> jax.Array:
    """Latents of the frames at times (B, F), (B, F, h, w, c)."""
    clean = jax.lax.stop_gradient(model.apply(variables, batch, method="frame_latents"))
    noise = sample_noise(run.objective, key, clean.shape, shared_offset=True, shared=run.sampling.shared_noise)
    return run.objective.noise_schedule.add_noise(clean, noise, times)


def _clean_loss(run: RunConfig, model: SVDP, variables: dict, batch: Mapping[str, jax.Array], found: jax.Array,
                target: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Error of clean latents, and of their pixels if the objective weighs these."""
    target = jax.lax.stop_gradient(target)
    latents = run.objective.weighted_error(found, target, latent_region(batch, found))
    decode = lambda x: model.apply(variables, x, method="decode") if run.objective.weighs_pixels else None
    return with_pixels(run, batch, latents, decode(found), decode(target))


def columns(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray], *, temporal: bool) -> list[np.ndarray]:
    """Columns of a sample sheet: source | driver | attribute | result | truth; encoded samples are decoded."""
    if "frame_latents" in batch:
        pictures = [decode(checkpoint, x) for x in (batch["portrait_latents"], batch["driving_latents"][:, 0],
                                                    batch["frame_latents"][:, 0])]
        attributes = decode(checkpoint, batch["attribute_latents"][:, :1])
    else:
        pictures = [to_uint8(x) for x in (batch["portrait"], batch["driving_regions"][:, 0], batch["frames"][:, 0])]
        attributes = to_uint8(batch["attributes"][:, :1])
    source, driver, truth = pictures
    result = sampled_frames(checkpoint, batch, temporal)
    shown = [attributes[:, 0]] if attributes.shape[1] else []
    return [source, driver, *shown, result, truth]


def _check(run: RunConfig) -> None:
    if run.model.aligned_pictures and run.objective.prediction != "sample":
        raise InputError("model.aligned_pictures adds clean latents to the prediction: expected "
                         f"objective.prediction=sample, found {run.objective.prediction}; set one of them")
    if run.objective.region_weight and not run.data.frame_masks:
        raise InputError("objective.region_weight needs to know where frames show eyes, nose and mouth: "
                         "data.frame_masks must be true")


def _check_joint(run: RunConfig) -> None:
    check_joint(run)
    _check_image(run)


def _check_image(run: RunConfig) -> None:
    _check(run)
    if run.data.history:
        raise InputError(f"stage {run.stage} has no video attention, through which history enters: set data.history "
                         f"to 0, found {run.data.history}")


def _check_retouch(run: RunConfig) -> None:
    _check_image(run)
    _check_start(run)
    if not run.model.retouches or not run.objective.pixel_weight:
        raise InputError("stage retouch trains the network that retouches frames, through the loss on pixels: expected "
                         "model.aligned_pictures, model.mmdit.retouch_layers above 0 and objective.pixel_weight above "
                         f"0, found {run.model.aligned_pictures}, {run.model.mmdit.retouch_layers} and "
                         f"{run.objective.pixel_weight:g}")


def _check_history(run: RunConfig) -> None:
    _check(run)
    if run.data.history != run.model.history:
        raise InputError(f"stage {run.stage}: expected data.history={run.model.history} as in the model, found "
                         f"{run.data.history}")


def _check_start(run: RunConfig) -> None:
    if not run.init_from:
        raise InputError(f"stage {run.stage} needs a trained model: init_from must name a run or a checkpoint")


def _check_distillation(run: RunConfig) -> None:
    _check_history(run)
    _check_start(run)
    if {*run.sampling.scales(run.model.guidance)} != {1.0}:
        raise InputError(f"stage {run.stage} trains a model that needs no guidance: sampling.guidance_scale must be "
                         f"1, found {run.sampling.guidance_scale}")


def _check_fusion(run: RunConfig) -> None:
    _check_distillation(run)
    scales = run.distillation.scales
    if len(scales) != len(run.model.guidance) or min(scales, default=0) < 0 or {*scales} == {1.0}:
        raise InputError(f"distillation.scales: expected one number of at least 0 for each of "
                         f"{', '.join(run.model.guidance)}, and not 1 for all, found {scales}")


def _check_steps(run: RunConfig) -> None:
    _check_distillation(run)
    if run.sampling.steps != run.distillation.student_steps:
        raise InputError(f"sampling.steps: expected distillation.student_steps={run.distillation.student_steps}, found "
                         f"{run.sampling.steps}")


def _needs_pixels(run: RunConfig) -> bool:
    return needs_pixels(run) or run.model.has_stem


def _stage(name: str, trains: str, temporal: bool = True, fixed: bool = False, **options) -> Stage:
    return Stage(name, trains, partial(denoising_loss, temporal=temporal, fixed=fixed),
                 partial(columns, temporal=temporal), temporal,
                 **{"needs_pixels": _needs_pixels, "check": _check, **options})


def _distillation(name: str, loss: Callable, check: Callable[[RunConfig], None]) -> Stage:
    return Stage(name, _LATENTS, loss, partial(columns, temporal=True), temporal=True, teacher=True,
                 uses=("disturbance", "distillation"), needs_pixels=_needs_pixels, check=check)


# The part that predicts latents, without the stem, which retouching depends on too.
_LATENTS = r"transformer/(?!stem/|retouch/)"

# "image" trains on single frames, without video attention: for models that start from nothing. "joint" trains the
# codec's decoder too, "retouch" only the retouching network. "video" trains all on clips without history; "history"
# goes on with history, for the last fifth of the steps (the paper's curriculum).
# "fusion" and "steps" distil a trained model: its guidance into one pass, then its many sampling steps into few.
STAGES = {
    **CODEC_STAGES,
    "image": _stage("image", r"transformer/(?!video_blocks)", temporal=False, check=_check_image),
    "joint": _stage("joint", r"transformer/(?!video_blocks)|codec/decoder/(?!.*_temporal_)", temporal=False,
                    needs_pixels=always, check=_check_joint),
    "retouch": _stage("retouch", r"transformer/retouch/", temporal=False, fixed=True, check=_check_retouch),
    "video": _stage("video", r"transformer/"),
    "history": _stage("history", r"transformer/", uses=("disturbance",), check=_check_history),
    "fusion": _distillation("fusion", fusion_loss, _check_fusion),
    "steps": _distillation("steps", steps_loss, _check_steps),
}
