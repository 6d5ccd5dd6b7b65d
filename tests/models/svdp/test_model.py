"""The SVDP model: the invariants of the paper and of both modes, on tiny random models."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.configs import load_config
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.inference.generate import generate
from durian_jax.models.attention import AttentionMethod
from durian_jax.models.attention.kernels import KERNELS
from durian_jax.models.batch import training_fields
from durian_jax.models.family import model_config
from durian_jax.models.mmdit.config import SHIFT_SCALE
from durian_jax.models.mmdit.retouch import shifted
from durian_jax.models.parameters import init_params, param_shapes, variables
from durian_jax.models.svdp.config import MOVED, SVDPConfig
from durian_jax.models.svdp.places import DRIVING_PLACE as DRIVING
from durian_jax.models.svdp.places import HISTORY_PLACE, NOISY, attribute_places
from durian_jax.models.svdp.places import SOURCE_PLACE as SOURCE
from durian_jax.training.config import RunConfig
from tests.helpers.models import random_batch, random_params
from tests.helpers.svdp import CODEC, tiny

KINDS = [("one_way", "rotary"), ("joint", "canvas")]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["one_way-rotary", "joint-canvas"])


@partial(jax.jit, static_argnames=("config", "temporal", "branch", "cached"))
def predict(params, batch, latents, config, temporal=True, branch=None, level=None, cached=False):
    """The prediction at diffusion time 500, of one branch or with every clip at a level."""
    def run(m):
        condition = m.condition(batch, m.references(batch) if cached else None)
        if level is not None:
            condition = condition.at_levels(level)
        if branch is not None:
            condition = m.branches(condition)[branch]
        return m.denoise(latents, jnp.full(latents.shape[:2], 500.0), condition, temporal=temporal)
    return config.create().apply(variables(params), method=run)


def noise(frames: int = 3, clips: int = 2) -> jax.Array:
    """Random latents of `tiny`."""
    return jax.random.normal(jax.random.key(3), (clips, frames, 8, 8, 4))


@every_kind
def test_video_attention_starts_without_effect(kind):
    """The zero-initialised video attention leaves the image model unchanged."""
    config = tiny(*kind)
    params = {path: x if "video_blocks" in path else random_params(config)[path]
              for path, x in init_params(config, 0).items()}
    batch = random_batch(config, history=2)
    images, video = (predict(params, batch, noise(), config, temporal) for temporal in (False, True))
    np.testing.assert_allclose(images, video, atol=1e-5)
    assert np.abs(images - predict(random_params(config), batch, noise(), config)).max() > 1e-2


@every_kind
def test_a_hidden_branch_equals_its_absence(kind):
    """Training hides conditions from clips, sampling leaves them out: the same prediction for u, s, d and p."""
    config = tiny(*kind)
    batch = random_batch(config, history=2)
    found = []
    for branch in range(4):
        absent = predict(random_params(config), batch, noise(), config, branch=branch)
        hidden = predict(random_params(config), batch, noise(), config, level=jnp.full(2, branch))
        np.testing.assert_allclose(absent, hidden, atol=2e-5)
        found.append(absent)
    for one, other in zip(found, found[1:], strict=False):
        assert np.abs(one - other).max() > 1e-3


@every_kind
def test_the_last_branch_sees_all(kind):
    config = tiny(*kind)
    batch = random_batch(config, history=2)
    np.testing.assert_allclose(predict(random_params(config), batch, noise(), config, branch=3),
                               predict(random_params(config), batch, noise(), config), atol=2e-5)


@pytest.mark.parametrize("field", ["portrait", "portrait_mask", "attributes", "attribute_masks", "driving_regions",
                                   "driving_masks", "history"])
@every_kind
def test_every_input_reaches_the_prediction(kind, field):
    config = tiny(*kind)
    batch = random_batch(config, history=2)
    changed = {**batch, field: batch[field][::-1] * 0.5 + 0.2}
    one, other = (predict(random_params(config), x, noise(), config) for x in (batch, changed))
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("field", [f"{name}{end}" for name in MOVED for end in ("", "_masks")])
def test_moved_references_reach_the_prediction_with_the_driver_only(field):
    config = tiny("one_way")
    batch = random_batch(config, history=2)
    changed = {**batch, field: batch[field][::-1] * 0.5 + 0.2}
    for branch, reaches in ((1, False), (2, True)):
        one, other = (predict(random_params(config), x, noise(), config, branch=branch) for x in (batch, changed))
        assert (np.abs(one - other).max() > 1e-4) == reaches


def test_aligned_pictures_do_not_join_the_tokens_at_first():
    config = tiny("one_way")
    first, embeddings = init_params(config, 0), ("transformer/aligned_embedding", "transformer/stem_embedding")
    known = {path: 0 * x if "/aligned_choice" in path else x for path, x in random_params(config).items()}
    known["transformer/aligned_choice/bias"] = jnp.tile(50 * jnp.eye(5)[0], config.mmdit.patch**2)  # take over nothing
    batch = random_batch(config, history=2)
    changed = {**batch, **{name: batch[name] * 0.5 for name in MOVED}}
    at_first = {path: first[path] if path.startswith(embeddings) else x for path, x in known.items()}
    np.testing.assert_array_equal(*(predict(at_first, x, noise(), config) for x in (batch, changed)))
    one, other = (predict(known, x, noise(), config) for x in (batch, changed))
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("number, field", enumerate([None, "portrait", "moved_source", "moved_attributes",
                                                     "driving_regions"]))
def test_the_prediction_takes_over_the_latents_that_it_chooses(number, field):
    """Place by place, and nothing where the picture is not known."""
    config = tiny("one_way")
    params = {path: 0 * x if path.startswith(("transformer/proj_out", "transformer/aligned_choice")) else x
              for path, x in random_params(config).items()}
    chosen = 5 * np.eye(5, dtype=np.float32)[number]
    params["transformer/aligned_choice/bias"] = jnp.tile(chosen, config.mmdit.patch**2)
    batch = random_batch(config)
    batch["portrait_mask"] = np.zeros_like(batch["portrait_mask"])
    batch |= {f"{name}_masks": np.ones_like(batch[f"{name}_masks"]) for name in (*MOVED, "driving")}
    found = predict(params, batch, noise(), config)
    if field is None:
        assert np.abs(found).max() < 1e-5
        return
    expected = config.create().apply(variables(params), batch[field], method="encode")
    expected = np.broadcast_to(expected[:, None] if field == "portrait" else expected, (2, 3, 8, 8, 4))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    mask = "portrait_mask" if field == "portrait" else f"{field.removesuffix('_regions')}_masks"
    unknown = {**batch, mask: np.full_like(batch[mask], field == "portrait")}
    others = np.stack([predict(params, {**unknown, field: x}, noise(), config) for x in (batch[field], -batch[field])])
    np.testing.assert_allclose(*others, atol=1e-3)


@every_kind
def test_kept_references_equal_recomputed_ones(kind):
    config = tiny(*kind)
    batch = random_batch(config, history=2)
    once, again = (predict(random_params(config), batch, noise(), config, cached=cached) for cached in (True, False))
    np.testing.assert_array_equal(once, again)


def test_frames_are_retouched_where_the_driver_is_seen():
    """Pixels of the source and of moved references reach the frames, and no frame of a clip without a driver."""
    config = tiny("one_way")
    batch = random_batch(config)
    frames = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32, 3)), jnp.float32)
    params = {path: 20 * x if "retouch/conv_out" in path else x for path, x in random_params(config).items()}

    def run(batch, levels):
        return config.create().apply(variables(params), method=lambda m: m.finished(
            frames, m.condition(batch).at_levels(levels)))
    found = run(batch, jnp.array([1, 2]))
    np.testing.assert_array_equal(found[0], frames[0])
    assert np.abs(found[1] - frames[1]).max() > 1e-2
    for field in ("portrait", *MOVED, "driving_regions"):
        changed = run({**batch, field: -batch[field]}, jnp.array([1, 2]))
        assert np.abs(changed[1] - found[1]).max() > 1e-4


@pytest.mark.parametrize("scales, reaches", [((1.0, 0.0, 0.0), False), ((1.0, 1.0, 1.0), True)])
def test_a_driver_without_weight_retouches_nothing(scales, reaches):
    config = tiny("one_way")
    checkpoint = Checkpoint(config, Objective(), {path: 20 * x if "retouch/conv_out" in path else x
                                                  for path, x in random_params(config).items()})
    batch, sampling = random_batch(config), Sampling(steps=1, guidance_scale=scales)
    one, other = (generate(checkpoint, x, sampling) for x in (batch, {
        **batch, "driving_regions": -batch["driving_regions"]}))
    assert (one != other).any() == reaches


def test_shifted_pictures_show_what_lies_beside():
    pictures = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 6, 8, 3)), jnp.float32)
    right, up_and_half = (jnp.zeros((2, 6, 8, 2)) + jnp.array(shift) for shift in ((1.0, 0.0), (-0.5, -1.0)))
    np.testing.assert_array_equal(shifted(pictures, 0 * right), pictures)
    np.testing.assert_allclose(shifted(pictures, right)[:, :, :-1], pictures[:, :, 1:], atol=1e-6)
    np.testing.assert_allclose(shifted(pictures, right)[:, :, -1], pictures[:, :, -1], atol=1e-6)
    np.testing.assert_allclose(shifted(pictures, up_and_half)[:, 1:, 1:],
                               (pictures[:, :-1, 1:] + pictures[:, :-1, :-1]) / 2, atol=1e-6)


def test_frames_take_over_shifted_pictures():
    """The network's shifts move what the result shows of a picture."""
    config = tiny("one_way")
    batch = random_batch(config)
    params = dict(random_params(config))
    params["transformer/retouch/conv_shift/kernel"] *= 0
    frames = jnp.zeros((2, 3, 32, 32, 3))

    def run(shift):
        bias = jnp.zeros_like(params["transformer/retouch/conv_shift/bias"]) + shift
        return config.create().apply(
            variables({**params, "transformer/retouch/conv_shift/bias": bias}), batch,
            method=lambda m, batch: m.retouched(frames, m.condition(batch)))
    (still, before), (moved, after) = run(0.0), run(1 / SHIFT_SCALE)
    for x, y in zip(before, after, strict=True):  # pictures, masks
        np.testing.assert_allclose(y[..., :-1, :-1, :], x[..., 1:, 1:, :], atol=1e-5)
    assert jnp.abs(still - moved).max() > 1e-3


def test_shifted_pictures_keep_their_colour_next_to_unknown_pixels():
    config = tiny("one_way")
    batch = random_batch(config)
    batch = {name: jnp.full_like(x, 0.5) if name.startswith("moved") and not name.endswith("masks") else x
             for name, x in batch.items()}
    params = dict(random_params(config))
    params["transformer/retouch/conv_shift/kernel"] *= 0
    params["transformer/retouch/conv_shift/bias"] = jnp.zeros_like(
        params["transformer/retouch/conv_shift/bias"]) + 0.5 / SHIFT_SCALE
    _, (pictures, masks) = config.create().apply(
        variables(params), batch, method=lambda m, batch: m.retouched(jnp.zeros((2, 3, 32, 32, 3)), m.condition(batch)))
    moved, shares = pictures[:, :, 1:], masks[:, :, 1:, ..., 0]
    assert ((shares > 0.1) & (shares < 0.9)).any()
    np.testing.assert_allclose(moved[shares > 0.01], 0.5, atol=1e-4)


def test_one_way_conditions_do_not_see_the_noise():
    """In one_way the keys of driving and history frames do not depend on the other frames of their segment."""
    config = tiny("one_way")
    batch = random_batch(config, history=2)
    run = jax.jit(lambda batch: config.create().apply(variables(random_params(config)), batch, method="condition"))
    whole = run(batch)
    last = run({**batch, **{name: batch[name][:, 1:] for name in batch if name.startswith(("driving", "moved"))}})
    for all_keys, keys in zip(jax.tree.leaves(whole.driving), jax.tree.leaves(last.driving), strict=True):
        np.testing.assert_allclose(all_keys[:, 1:], keys, atol=1e-5)


def test_history_equals_the_same_frames_inside_a_longer_clip():
    """In joint, without source and driver: clean history is the beginning of a longer clip whose time there is 0.

    With source or driver it is not: history frames do not see them. In one_way it is not: history does not see the
    frames that follow.
    """
    config = tiny("joint")
    # History has a group embedding of its own, which starts at zero.
    params = {path: 0 * x if "group_embedding" in path else x for path, x in random_params(config).items()}
    batch, latents = random_batch(config, frames=2, history=2), noise(2)

    @jax.jit
    def both(batch, latents):
        def run(m):
            before = m.history_latents(batch)
            continued = m.condition(batch).replace(references=None, driving=None)
            times = jnp.full(latents.shape[:2], 500.0)
            found = m.denoise(latents, times, continued, temporal=True)
            longer = m.denoise(jnp.concatenate([before, latents], 1), jnp.concatenate([0 * times, times], 1),
                               continued.replace(history=None), temporal=True)
            return found, longer[:, 2:]
        return config.create().apply(variables(params), method=run)
    found, longer = both(batch, latents)
    np.testing.assert_allclose(found, longer, atol=2e-5)


@every_kind
def test_interpolation_blends_two_attentions(kind):
    config = tiny(*kind)
    batch = random_batch(config, attributes=2)
    blended = {alpha: predict(random_params(config), {
        **batch, "attribute_weights": np.tile(np.float32([alpha, 1 - alpha]), (2, 3, 1))}, noise(), config)
        for alpha in (0.0, 1.0)}
    first = {**batch, "attribute_valid": np.tile(np.float32([1, 0]), (2, 1))}
    np.testing.assert_allclose(blended[1.0], predict(random_params(config), first, noise(), config), atol=2e-5)
    assert np.abs(blended[0.0] - blended[1.0]).max() > 1e-3
    # A negative weight composes: with the first attribute alone to blend, both are seen at once.
    composed = predict(random_params(config), {
        **batch, "attribute_weights": np.tile(np.float32([1, -1]), (2, 3, 1))}, noise(), config)
    np.testing.assert_allclose(composed, predict(random_params(config), batch, noise(), config), atol=2e-5)


@every_kind
def test_invalid_history_and_attributes_change_nothing(kind):
    config = tiny(*kind)
    with_both = random_batch(config, attributes=1, history=2)
    with_both.update(attribute_valid=np.zeros((2, 1), np.float32), history_valid=np.zeros(2, np.float32))
    without = random_batch(config, attributes=0)
    without.update({name: with_both[name] for name in without if name.startswith(("portrait", "driving", "moved"))})
    np.testing.assert_allclose(*(predict(random_params(config), batch, noise(), config)
                                 for batch in (with_both, without)), atol=2e-5)


@every_kind
def test_encoded_batches_predict_the_same(kind):
    """`durian encode` makes every field of the encoded spec, and conditions of them are those of the pictures.

    Models that read pixels cannot be trained from them.
    """
    config = tiny(*kind, stem_width=0, retouch_layers=0)
    params, batch = random_params(config), random_batch(config, history=2)
    encoded = jax.jit(lambda batch: config.create().apply(variables(params), batch, method="encode_batch"))(batch)
    spec = training_fields(config.batch_spec(encoded=True))
    sizes = {"B": 2, "F": 3, "A": 1, "T": 2}
    assert {name: x.shape for name, x in encoded.items()} == {name: field.shape(sizes) for name, field in spec.items()}
    found, expected = (predict(params, x, noise(), config) for x in (encoded, batch))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    bare = jax.eval_shape(lambda batch: config.create().apply(variables(params), batch, method="encode_batch"),
                          random_batch(config, attributes=0, history=0))
    assert bare["history_latents"].shape[1] == bare["attribute_masks"].shape[1] == 0


def test_kernels_get_whole_blocks_at_the_paper_s_size(monkeypatch):
    """Fused kernels take queries and keys in blocks of 128: the one null-text token must not join the queries."""
    found = set()

    def kernel(query, key, value, seen, method, across_frames=False):
        found.add((query.shape[2], key.shape[2]))
        return query
    monkeypatch.setitem(KERNELS, "splash", kernel)
    config = load_config("svdp:sd35m,stage=history")
    config.model.mmdit.layers, config.model.mmdit.dual_layers, config.batch_size = 2, 1, 1
    run = RunConfig.read(config)
    model = run.model.create(attention=AttentionMethod("splash"))
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, (shape, _) in run.batch_shapes().items()}
    jax.eval_shape(lambda params, batch, key: run.recipe.loss(run, model, variables(params), batch, key),
                   param_shapes(run.model), batch, jax.random.key(0))
    frame, text = 1024, 128
    video = 19 * frame
    assert {(3 * frame, 3 * frame + text), (frame, frame + text), (video, video)} <= found
    assert all(size % 128 == 0 for sizes in found for size in sizes), found


def test_cells_of_the_canvas_do_not_overlap():
    places = [NOISY, SOURCE, DRIVING, *attribute_places(6, canvas=True)]
    cells = {(place.column, place.row) for place in places}
    assert len(cells) == len(places) == 9
    # History lies where its frames lie; only video attention sees it.
    assert (HISTORY_PLACE.column, HISTORY_PLACE.row) == (NOISY.column, NOISY.row)


def test_groups_differ_in_rotation():
    """Where groups share their places, an axis of their own tells them apart."""
    config = tiny()
    model = config.create()
    def run(m):
        return [m.transformer.embed(noise(1), [place]).angles for place in (NOISY, SOURCE, DRIVING)]
    angles = model.apply(variables(random_params(config)), method=run)
    for one, other in zip(angles, angles[1:], strict=False):
        turned = config.mmdit.time_rotation // 2
        np.testing.assert_array_equal(one[..., turned:], other[..., turned:])
        assert (one[..., :turned] != other[..., :turned]).all()


def test_a_config_survives_json():
    for kind in KINDS:
        assert model_config(tiny(*kind).to_dict()) == tiny(*kind)


@pytest.mark.parametrize("changes, words", [
    ({"mode": "both"}, "mode"), ({"history": 0}, "history"), ({"history": 20}, "segment before"),
    ({"image_size": 100}, "multiple"),
    ({"driving_capacity": 0}, "driving_capacity: expected a finite number above 0 and at most 1"),
    ({"identity_dim": 512}, "identity")])
def test_contradictions_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        SVDPConfig(**changes)


def test_a_stem_that_does_not_fit_the_codec_is_refused():
    with pytest.raises(InputError, match="mmdit.stem_width: .* at most 4 pixels wide .* found 8 and 6"):
        replace(tiny(), image_size=48, codec=replace(CODEC, patch=3, encoder_channels=(8, 8), decoder_channels=(8, 8)))


def test_too_many_attributes_for_the_canvas_are_refused():
    with pytest.raises(InputError, match="6 attributes"):
        attribute_places(7, canvas=True)
