"""SVDP's stages: what each trains, and the facts of their losses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.data.dataset_writer import write_clips
from durian_jax.data.pipeline import make_loader
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.data.sources import SyntheticClips
from durian_jax.diffusion.sampling_loop import sample
from durian_jax.diffusion.training_draws import sample_noise
from durian_jax.errors import InputError
from durian_jax.models.batch import model_inputs
from durian_jax.models.parameters import param_shapes, variables
from durian_jax.training.config import Distillation, HistoryDisturbance, RunConfig
from durian_jax.training.loop import train
from durian_jax.training.recipes.svdp import STAGES, disturbed_history, shift_error
from durian_jax.training.run_checkpoints import load_params
from durian_jax.training.state import split
from tests.helpers.models import random_params
from tests.helpers.runs import losses
from tests.helpers.svdp import small_config


@pytest.fixture(scope="module")
def driven_records(tmp_path_factory):
    """Records with drivers."""
    folder = tmp_path_factory.mktemp("driven") / "records"
    source = SyntheticClips("train", 6, 8, 32, drivers=True)
    write_clips(folder, (source[index] for index in range(len(source))))
    return folder


def batch_of(run: RunConfig, records) -> dict:
    """One batch as models take it."""
    batch = next(iter(make_loader(RecordedClips(records), run.data, seed=0, batch_size=run.batch_size, threads=1,
                                  prefetch=1)))
    return {name: jnp.asarray(x) for name, x in model_inputs(
        {name: batch[name] for name in run.batch_spec}, run.batch_spec).items()}


@pytest.mark.parametrize("stage, trains, temporal, teacher", [
    ("image", {"transformer", "stem", "retouch"}, False, False),
    ("joint", {"transformer", "stem", "retouch", "codec/decoder"}, False, False),
    ("retouch", {"retouch"}, False, False), ("video", {"transformer", "stem", "retouch", "video_blocks"}, True, False),
    ("history", {"transformer", "stem", "retouch", "video_blocks"}, True, False),
    ("fusion", {"transformer", "video_blocks"}, True, True), ("steps", {"transformer", "video_blocks"}, True, True)])
def test_a_stage_trains_these_networks(stage, trains, temporal, teacher):
    needed = {"init_from": "a run"} if teacher or stage == "retouch" else {}
    if stage in ("joint", "retouch"):
        needed["objective.pixel_weight"] = 1.0
    run = RunConfig.read(small_config("clips", stage, **needed))
    paths = split(param_shapes(run.model), run.recipe.trains)[0]
    networks = ("codec/decoder", "transformer/stem/", "transformer/retouch/", "transformer/video_blocks", "transformer")
    found = {next(name for name in networks if path.startswith(name)) for path in paths}
    assert {name.strip("/").removeprefix("transformer/") for name in found} == trains
    assert (STAGES[stage].temporal, STAGES[stage].teacher) == (temporal, teacher)


def test_pictures_learn_to_lie_on_the_truth(driven_records):
    """Also where the result takes nothing over of them: the parameters of a new model, which takes almost nothing."""
    run = RunConfig.read(small_config(driven_records, "retouch", **{
        "init_from": "a run", "objective.pixel_weight": 1.0, "guidance_dropout": (0.0, 0.0, 0.0)}))
    model, batch, key = run.model.create(), batch_of(run, driven_records), jax.random.key(1)
    params = dict(random_params(run.model))
    params["transformer/retouch/conv_out/bias"] = jnp.where(  # the logits of every picture, of all pixels of a patch
        jnp.arange(16 * 6) % 6 >= 3, -100.0, 0.0)

    def loss(shift):
        bias = {"transformer/retouch/conv_shift/bias": shift}
        return run.recipe.loss(run, model, variables({**params, **bias}), batch, key)
    gradient, parts = jax.jit(jax.grad(loss, has_aux=True))(params["transformer/retouch/conv_shift/bias"])
    assert parts["shift"] > 0 and (jnp.abs(gradient) > 1e-5).all()


def test_stage_retouch_leaves_predictions_as_they_are(driven_records):
    """Its loss reaches no parameter by which latents are predicted."""
    run = RunConfig.read(small_config(driven_records, "retouch", **{
        "init_from": "a run", "objective.pixel_weight": 1.0}))
    trained, rest = {}, {}
    params, batch = random_params(run.model), batch_of(run, driven_records)
    loss = lambda params: run.recipe.loss(run, run.model.create(), variables(params), batch, jax.random.key(1))[0]
    for path, gradient in jax.jit(jax.grad(loss))(params).items():
        (trained if path.startswith("transformer/retouch/") else rest)[path] = float(jnp.abs(gradient).max())
    assert max(trained.values()) > 0
    assert all(size == 0 for path, size in rest.items() if not path.startswith(("transformer/stem/", "codec/decoder/")))


def test_shift_error_counts_what_is_known_of_clips_with_a_driver():
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.uniform(-1, 1, (2, 1, 4, 4, 3)), jnp.float32)
    pictures = jnp.stack([frames + 0.1, frames + 9.0], 2)
    masks = jnp.stack([jnp.full((2, 1, 4, 4, 1), mask) for mask in (1.0, 0.0)], 2)
    error = lambda *counts, pictures=pictures: float(shift_error(pictures, masks, frames, jnp.array(counts)))
    assert error(True, True) == pytest.approx(0.01, rel=0.05) and error(False, False) == 0
    assert error(True, False, pictures=pictures.at[1].add(1)) == pytest.approx(0.01, rel=0.05)


def test_a_killed_run_goes_on_with_the_same_losses(driven_records, tmp_path):
    """The last stage, with noise on history: two steps and two more equal four."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = lambda steps: small_config(driven_records, "history", **{
        "total_steps": steps, "disturbance.own_share": 0.0, "disturbance.colour": 0.0})
    train(config(4), whole)
    train(config(2), parts)
    train(config(4), parts)
    assert losses(whole) == losses(parts) and len(losses(whole)) == 4


def distilling(records, stage: str, **changes) -> RunConfig:
    """A run whose teacher and student see the same history, unless the test says more."""
    return RunConfig.read(small_config(records, stage, **{
        "init_from": "a run", "disturbance.noise": 0.0, "disturbance.colour": 0.0, "disturbance.own_share": 0.0,
        **changes}))


def test_one_step_of_a_student_with_its_teacher_s_steps_has_no_error(driven_records):
    run = distilling(driven_records, "steps", **{"distillation.teacher_steps": 2, "distillation.student_steps": 2,
                                                 "sampling.steps": 2})
    other = replace(run, distillation=Distillation((), 4, 2))
    batch, params = batch_of(run, driven_records), variables(random_params(run.model))

    def loss(run: RunConfig) -> float:
        model, key = run.model.create(), jax.random.key(1)
        return float(jax.jit(lambda batch, params: run.recipe.loss(run, model, params, batch, key, teacher=params)[0])(
            batch, params))
    assert loss(run) < 1e-8 and loss(other) > 1e-5


@pytest.mark.parametrize("stage, changes, hidden", [
    ("fusion", {"distillation.scales": (2.0, 2.5, 1.5)}, False),
    ("fusion", {"distillation.scales": (2.0, 2.5, 1.5)}, True),
    ("steps", {"distillation.teacher_steps": 3, "distillation.student_steps": 1}, False)])
def test_a_student_learns_what_its_teacher_samples(driven_records, stage, changes, hidden):
    """At time 1 the target is what the sampler makes of the same noise with the teacher: one fused step, or three.

    Without history, as in the first segment of a video, the fused prediction has one branch less.
    """
    run = distilling(driven_records, stage, **{
        "objective.pixel_weight": 0.0, "objective.time_power": 1e-9,
        "guidance_dropout": (0.0, 0.0, 1.0 if hidden else 0.0), **changes})
    model, batch, key = run.model.create(), batch_of(run, driven_records), jax.random.key(1)
    student, teacher = (variables(random_params(run.model, seed)) for seed in (0, 1))
    loss = jax.jit(lambda student, teacher: run.recipe.loss(run, model, student, batch, key, teacher=teacher)[0])(
        student, teacher)

    noise = sample_noise(run.objective, jax.random.split(key, 3)[0], model.apply(
        student, batch, method="frame_latents").shape, shared_offset=True)
    history = model.apply(student, batch, method="history_latents")

    def clean(weights, scales):
        def predict(z, t):
            times = jnp.full(z.shape[:2], t)

            def branches(m):
                known = (history, jnp.zeros(history.shape[:2]))
                return [run.objective.to_clean(m.denoise(
                    z, run.objective.noise_schedule.timesteps(times), condition, temporal=True), z, times)
                        for condition in m.branches(m.condition(batch, history=known))]
            nothing, source, driver, before = model.apply(weights, method=branches)
            fused = nothing + scales[0] * (source - nothing) + scales[1] * (driver - source)
            return fused if hidden else fused + scales[2] * (before - driver)
        return predict
    scales, steps = (run.distillation.scales, 1) if stage == "fusion" else ((1.0, 1.0, 1.0), 3)
    target = jax.jit(lambda weights: sample(clean(weights, scales), noise, run.objective, "ddim", steps))(teacher)
    found = jax.jit(lambda weights: clean(weights, (1.0, 1.0, 1.0))(noise, 1.0))(student)
    region = jax.image.resize(batch["frame_masks"], (*found.shape[:-1], 1), "linear")
    np.testing.assert_allclose(loss, run.objective.weighted_error(found, target, region), rtol=1e-4)


def test_the_teacher_stays_and_is_not_exported(driven_records, tmp_path):
    """Also when the run goes on: its losses are those of a run that was not stopped."""
    train(small_config(driven_records, "video", total_steps=2), tmp_path / "video")
    config = lambda steps: small_config(driven_records, "fusion", **{
        "init_from": str(tmp_path / "video"), "total_steps": steps, "disturbance.own_share": 0.0,
        "disturbance.colour": 0.0, "distillation.scales": (2.0, 2.5, 1.5)})
    train(config(4), tmp_path / "whole")
    train(config(2), tmp_path / "parts")
    train(config(4), tmp_path / "parts")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts") and len(losses(tmp_path / "whole")) == 4
    before, after = (load_params(tmp_path / name) for name in ("video", "whole"))
    assert before.keys() == after.keys()
    assert any((np.asarray(before[path]) != np.asarray(after[path])).any() for path in before)


def test_history_is_disturbed_as_configured(driven_records):
    run = RunConfig.read(small_config(driven_records, "history"))
    batch, params = batch_of(run, driven_records), variables(random_params(run.model))

    def disturbed(**settings):
        changed = replace(run, disturbance=HistoryDisturbance(**{
            "noise": 0.0, "colour": 0.0, "own_share": 0.0, **settings}))
        key = jax.random.key(0)
        return run.model.create().apply(params, method=lambda m: disturbed_history(changed, m, batch, key))
    clean, times = disturbed()
    np.testing.assert_allclose(clean, run.model.create().apply(params, batch, method="history_latents"), atol=1e-6)
    assert not times.any()
    noisy, times = disturbed(noise=0.5)
    assert 0 < times.max() <= 500 and (times == times[:, :1]).all() and np.abs(noisy - clean).max() > 1e-2
    for settings in ({"colour": 0.1}, {"own_share": 1.0}):
        changed, times = disturbed(**settings)
        assert np.abs(changed - clean).max() > 1e-3 and not times.any()


@pytest.mark.parametrize("stage, changes, words", [
    ("joint", {}, "pixel_weight must not be 0"), ("image", {"data.history": 2}, "no video attention"),
    ("history", {"data.history": 1}, "data.history=2"),
    ("video", {"data.frame_masks": False}, "frame_masks"), ("video", {"guidance_dropout": (0.5, 0.2)}, "3 branches"),
    ("video", {"guidance_dropout": (0.5, 0.5, 0.5)}, "3 branches"), ("video", {"data.regions": ()}, "data.regions"),
    ("steps", {"distillation.student_steps": 3}, "multiple"), ("history", {"disturbance.noise": 1.0}, "noise"),
    ("video", {"disturbance.noise": 0.1}, "does not use it"), ("retouch", {}, "init_from must name"),
    ("video", {"guidance_dropout": ()}, "guidance_dropout: expected"), ("fusion", {}, "init_from must name"),
    ("fusion", {"init_from": "a", "distillation.scales": (2.0,)}, "distillation.scales"),
    ("fusion", {"init_from": "a", "distillation.scales": (1.0, 1.0, 1.0)}, "distillation.scales"),
    ("fusion", {"init_from": "a", "data.history": 0}, "data.history=2"),
    ("retouch", {"init_from": "a", "objective.pixel_weight": 0.0},
     "objective.pixel_weight above 0, found True, 3 and 0"),
    ("retouch", {"init_from": "a", "objective.pixel_weight": 1.0, "model.aligned_pictures": False},
     "aligned_pictures, .* found False"),
    ("image", {"source.samples": "encoded"}, "hold no pixels"),
    ("steps", {"init_from": "a", "sampling.guidance_scale": 2.0}, "guidance_scale must be 1"),
    ("steps", {"init_from": "a", "sampling.steps": 4}, "student_steps=1")])
def test_contradictions_are_refused(stage, changes, words):
    with pytest.raises(InputError, match=words):
        RunConfig.read(small_config("clips", stage, **changes))


def test_shares_of_the_branches_add_up():
    run = RunConfig.read(small_config("clips", guidance_dropout=(0.1, 0.2, 0.3)))
    np.testing.assert_allclose(run.branch_shares, (0.1, 0.2, 0.3, 0.4))
    for one in (0.1, (0.1,)):  # the command line makes tuples
        assert RunConfig.read(small_config("clips", guidance_dropout=one)).branch_shares == (0.1, 0.0, 0.0, 0.9)
