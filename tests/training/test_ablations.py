"""The paper's ablations: each is one entry of `configs.durian.ABLATIONS`, it trains, and it removes what it names."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
from durian_jax.configs.durian import ABLATIONS, get_config
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.parameters import init_params, param_shapes, variables
from durian_jax.training.config import RunConfig
from durian_jax.training.loop import train
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.run_checkpoints import load_params
from durian_jax.training.state import state_shapes
from durian_jax.training.step import make_train_step
from tests.helpers.models import random_batch
from tests.helpers.runs import losses, small_paper_config


def run_of(ablation):
    return RunConfig.read(small_paper_config(ablation))


def model_of(ablation):
    return run_of(ablation).model


# These run two steps in the paper's reference mode. The others do so in the mode that compiles fastest.
IN_FULL = ("none", "single_reference")


@pytest.mark.parametrize("ablation", sorted(ABLATIONS))
def test_an_ablation_trains_two_steps(records, tmp_path, ablation):
    mode = {} if ablation in IN_FULL else {"model.reference_mode": "tokens"}
    config = small_paper_config(ablation, **{"source.clips": str(records)}, **mode)
    train(config, tmp_path)
    assert sorted(losses(tmp_path)) == [1, 2] and np.isfinite(list(losses(tmp_path).values())).all()
    trained = load_checkpoint(tmp_path / "export", "stored")
    assert trained.config == RunConfig.read(config).model
    before = init_params(trained.config, config.seed)
    assert set(trained.params) == set(before)
    moved = [path for path, x in trained.params.items() if not np.allclose(x, before[path], rtol=1e-2, atol=1e-3)]
    assert any(path.startswith("denoiser/down_attentions_0/attn1") for path in moved)
    assert not any(path.startswith(("codec/", "image_encoder/")) or "motion_module" in path for path in moved)


@pytest.mark.parametrize("ablation", sorted(set(ABLATIONS) - set(IN_FULL)))
def test_gradients_exist_in_the_paper_reference_mode(ablation):
    """The loss and its gradients are traced for real shapes, which takes a tenth of a compilation."""
    run = run_of(ablation)
    assert run.model.reference_mode == ("tokens" if ablation == "token_concatenation" else "dual")
    state = state_shapes(run.model, run.recipe.trains, make_optimizer(run), run.frozen_dtype)
    batch = {name: jax.ShapeDtypeStruct(*found) for name, found in run.batch_shapes().items()}
    _, metrics = jax.eval_shape(make_train_step(run, make_optimizer(run)), state, batch)
    assert {name: x.shape for name, x in metrics.items()} == {"loss": (), "gradient_norm": ()}


@pytest.mark.slow
def test_stage_two_keeps_frozen_weights_in_half_precision_and_recomputes(records, tmp_path):
    """Two steps with and without recomputation: the losses are equal, and only motion modules change."""
    model = model_of("single_reference")
    before = {path: x + 0.02 for path, x in init_params(model, 0).items()}
    start = save_checkpoint(tmp_path / "start", Checkpoint(model, Objective(), before), "float32")
    found = []
    for remat in ("none", "full", "dots"):
        changes = {"source.clips": str(records), "remat": remat, "init_from": str(start)}
        train(small_paper_config("single_reference", "2", **changes), tmp_path / remat)
        found.append(list(losses(tmp_path / remat).values()))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-4)
    after = load_checkpoint(tmp_path / "full" / "export", "stored").params
    moved = {path for path, x in after.items() if not np.allclose(x, before[path], rtol=1e-2, atol=1e-3)}
    assert moved and all("motion_module" in path for path in moved)
    state = load_params(tmp_path / "full")
    assert {str(x.dtype) for path, x in state.items() if "motion_module" not in path} == {"bfloat16"}
    assert {str(x.dtype) for path, x in state.items() if "motion_module" in path} == {"float32"}


# --- what each removes ----------------------------------------------------------------------------------

@cache
def denoiser_of(config: DurianConfig):
    """Return a compiled prediction of DNet, with parameters in which nothing is zero."""
    params = init_params(config, 0)
    keys = jax.random.split(jax.random.key(1), len(params))
    params = {path: x + 0.05 * jax.random.normal(key, x.shape)
              for (path, x), key in zip(sorted(params.items()), keys, strict=True)}

    def run(m, batch):
        return m.denoise(m.encode(batch["frames"]), jnp.full(batch["frames"].shape[:2], 500.0), m.condition(batch))
    compiled = jax.jit(lambda p, batch: config.create().apply(variables(p), batch, method=run))
    return lambda batch: np.asarray(compiled(params, batch))


def prediction(config: DurianConfig, batch):
    return denoiser_of(config)(batch)


@pytest.mark.parametrize("ablation", ["single_reference", "token_concatenation", "none"])
def test_every_reference_mode_uses_its_references(ablation):
    config, batch = model_of(ablation), random_batch(model_of(ablation), frames=2, attributes=2)
    plain = prediction(config, batch)
    for field in ("portrait", "attributes", "portrait_mask", "attribute_masks"):
        assert abs(prediction(config, {**batch, field: 1 - batch[field]}) - plain).max() > 1e-3, field
    # The content of an invalid slot has no effect.
    one = {**batch, "attribute_valid": np.array([[1, 0], [1, 0]], np.float32)}
    other = {**one, "attributes": one["attributes"].copy()}
    other["attributes"][:, 1] = 0.7
    np.testing.assert_allclose(prediction(config, one), prediction(config, other), atol=1e-4)
    assert abs(prediction(config, one) - plain).max() > 1e-3
    # The order of valid slots has no effect.
    swapped = {**batch, **{name: batch[name][:, ::-1] for name in ("attributes", "attribute_masks")}}
    np.testing.assert_allclose(prediction(config, swapped), plain, atol=2e-4)


def test_masked_references_hide_what_they_should():
    batch = random_batch(model_of("none"), frames=2, attributes=2)
    hidden = {**batch, "portrait": batch["portrait"] + 0.5 * batch["portrait_mask"],
              "attributes": batch["attributes"] + 0.5 * (1 - batch["attribute_masks"])}
    config = model_of("none")
    np.testing.assert_allclose(prediction(config, hidden), prediction(config, batch), atol=1e-5)
    config = model_of("unmasked_references")
    assert abs(prediction(config, hidden) - prediction(config, batch)).max() > 1e-3


def test_ablations_have_fewer_channels_networks_and_layers():
    shapes = {name: param_shapes(model_of(name)) for name in ABLATIONS}
    has = lambda name, text: any(text in path for path in shapes[name])
    assert shapes["none"]["attribute_reference/conv_in/kernel"].shape[2] == 5
    assert shapes["no_mask_channel"]["attribute_reference/conv_in/kernel"].shape[2] == 4
    assert shapes["single_reference"]["reference/conv_in/kernel"].shape[2] == 10
    assert not has("single_reference", "attribute_reference/") and not has("token_concatenation", "reference/")
    assert has("none", "attention/attn2/") and has("none", "image_encoder/")
    assert not has("no_embedding", "attention/attn2/") and not has("no_embedding", "image_encoder/")
    data = {name: run_of(name).data for name in ABLATIONS}
    assert data["none"].expand_probability > 0 and data["no_mask_expansion"].expand_probability == 0
    assert data["none"].augment_probability > 0 and data["no_augmentation"].augment_probability == 0
    assert not data["unmasked_references"].mask_references and data["none"].mask_references


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="unknown ablation 'everything'; expected one of no_augmentation"):
        get_config("tiny,stage=1,ablation=everything")
    with pytest.raises(InputError, match="interpolation blends attentions"):
        model_of("token_concatenation").create().select(jnp.ones((1, 2)), jnp.ones((1, 2)) / 2)
