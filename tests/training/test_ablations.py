"""The paper's ablations: each is one line of configs/durian.py and trains; what each takes away is gone."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
from durian_jax.configs.durian import ABLATIONS, get_config
from durian_jax.data import synthesize
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian, select_references
from durian_jax.models.parameters import init_params, param_shapes, variables
from durian_jax.training.loop import train, validate
from durian_jax.training.run_checkpoints import load_params
from tests.helpers.runs import losses
from tests.models.test_models import random_batch

# The paper's preset with tiny numbers, cross-attention to CLIP's embedding among them; the codec is the small one.
SMALL = {
    "model.image_size": 32, "model.max_frames": 8, "model.temporal_heads": 2, "model.keypoint_channels": (8,),
    "model.dtype": "float32",
    "model.codec_kind": "autoencoder_tiny",
    "model.codec": {"channels": 8, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
    "model.unet": {"channels": (16,), "layers": 1, "attention": (True,), "heads": (2,), "context_dim": 24,
                   "norm_groups": 8, "positions": False, "feedforward_multiplier": 2},
    "model.image_encoder": {"channels": 16, "layers": 1, "heads": 2, "mlp_channels": 32, "image_size": 28,
                            "patch": 14, "projection": 24},
    "batch_size": 2, "total_steps": 2, "checkpoint_every": 2, "log_every": 1, "sample_every": 0, "learning_rate": 1e-2,
    "warmup_steps": 1, "remat": "none",
}


def small(ablation="none", stage="1", **changes):
    """The paper's config of an ablation with tiny numbers."""
    config = get_config(f"sd15,stage={stage},ablation={ablation}")
    with config.unlocked():
        for name, value in {**SMALL, "data.frames": 2 if stage == "2" else 1, **changes}.items():
            *path, last = name.split(".")
            target = config
            for part in path:
                target = target[part]
            target[last] = value
        config.update_from_flattened_dict(ABLATIONS[ablation])
    return config


def model_of(ablation):
    return validate(small(ablation))[0]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    synthesize(folder, "train", 6, 4, 32, workers=0)
    return str(folder)


@pytest.mark.parametrize("ablation", sorted(ABLATIONS))
def test_it_trains_two_steps(records, tmp_path, ablation):
    of_data = any(name.startswith("data.") for name in ABLATIONS[ablation])  # for these the smallest model will do
    config = small(ablation, **{"source.clips": records}, **({"model.reference_mode": "tokens"} if of_data else {}))
    train(config, tmp_path)
    assert sorted(losses(tmp_path)) == [1, 2] and np.isfinite(list(losses(tmp_path).values())).all()
    trained = load_checkpoint(tmp_path / "export", "stored")
    assert trained.config == validate(config)[0]
    before = init_params(trained.config, config.seed)
    assert set(trained.params) == set(before)
    moved = [path for path, x in trained.params.items() if not np.allclose(x, before[path], rtol=1e-2, atol=1e-3)]
    assert any(path.startswith("denoiser/down_attentions_0/attn1") for path in moved)
    assert not any(path.startswith(("codec/", "image_encoder/")) or "motion_module" in path for path in moved)


def test_stage_two_keeps_the_rest_in_half_precision_and_recomputes(records, tmp_path):
    """Two steps with and without recomputation: the same losses, and only motion modules move."""
    model = model_of("single_reference")
    before = {path: x + 0.02 for path, x in init_params(model, 0).items()}
    start = save_checkpoint(tmp_path / "start", Checkpoint(model, Objective(), before), "float32")
    found = []
    for remat in ("none", "full", "dots"):
        changes = {"source.clips": records, "remat": remat, "init_from": str(start)}
        train(small("single_reference", "2", **changes), tmp_path / remat)
        found.append(list(losses(tmp_path / remat).values()))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-4)
    after = load_checkpoint(tmp_path / "full" / "export", "stored").params
    moved = {path for path, x in after.items() if not np.allclose(x, before[path], rtol=1e-2, atol=1e-3)}
    assert moved and all("motion_module" in path for path in moved)
    state = load_params(tmp_path / "full")
    assert {str(x.dtype) for path, x in state.items() if "motion_module" not in path} == {"bfloat16"}
    assert {str(x.dtype) for path, x in state.items() if "motion_module" in path} == {"float32"}


# --- what each takes away -------------------------------------------------------------------------------

@cache
def denoiser_of(config: DurianConfig, with_references: bool):
    """A compiled prediction of DNet, with parameters in which nothing is zero."""
    params = init_params(config, 0)
    keys = jax.random.split(jax.random.key(1), len(params))
    params = {path: x + 0.05 * jax.random.normal(key, x.shape)
              for (path, x), key in zip(sorted(params.items()), keys, strict=True)}

    def run(m, batch):
        references = m.project_references(m.references_of(batch)) if with_references else None
        selection = select_references(config, batch["attribute_valid"]) if with_references else None
        return m.denoise(m.encode(batch["frames"]), jnp.full(batch["frames"].shape[:2], 500.0),
                         m.encode_keypoints(batch["keypoints"]), references, selection)
    compiled = jax.jit(lambda p, batch: Durian(config).apply(variables(p), batch, method=run))
    return lambda batch: np.asarray(compiled(params, batch))


def prediction(config: DurianConfig, batch, with_references=True):
    return denoiser_of(config, with_references)(batch)


@pytest.mark.parametrize("ablation", ["single_reference", "token_concatenation", "none"])
def test_every_way_of_giving_references_uses_them(ablation):
    config, batch = model_of(ablation), random_batch(model_of(ablation), frames=2, attributes=2)
    plain = prediction(config, batch)
    for field in ("portrait", "attributes", "portrait_mask", "attribute_masks"):
        assert abs(prediction(config, {**batch, field: 1 - batch[field]}) - plain).max() > 1e-3, field
    # An invalid slot might as well hold something else.
    one = {**batch, "attribute_valid": np.array([[1, 0], [1, 0]], np.float32)}
    other = {**one, "attributes": one["attributes"].copy()}
    other["attributes"][:, 1] = 0.7
    np.testing.assert_allclose(prediction(config, one), prediction(config, other), atol=1e-4)
    assert abs(prediction(config, one) - plain).max() > 1e-3
    # And the order of valid ones does not matter.
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


def test_fewer_channels_networks_and_layers():
    shapes = {name: param_shapes(model_of(name)) for name in ABLATIONS}
    has = lambda name, text: any(text in path for path in shapes[name])
    assert shapes["none"]["attribute_reference/conv_in/kernel"].shape[2] == 5
    assert shapes["no_mask_channel"]["attribute_reference/conv_in/kernel"].shape[2] == 4
    assert shapes["single_reference"]["reference/conv_in/kernel"].shape[2] == 10
    assert not has("single_reference", "attribute_reference/") and not has("token_concatenation", "reference/")
    assert has("none", "attention/attn2/") and has("none", "image_encoder/")
    assert not has("no_embedding", "attention/attn2/") and not has("no_embedding", "image_encoder/")
    data = {name: validate(small(name))[1] for name in ABLATIONS}
    assert data["none"].expand_probability > 0 and data["no_mask_expansion"].expand_probability == 0
    assert data["none"].augment_probability > 0 and data["no_augmentation"].augment_probability == 0
    assert not data["unmasked_references"].mask_references and data["none"].mask_references


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="an ablation of .*no_augmentation"):
        get_config("tiny,stage=1,ablation=everything")
    with pytest.raises(InputError, match="interpolation blends attentions"):
        select_references(model_of("token_concatenation"), jnp.ones((1, 2)), jnp.ones((1, 2)) / 2)
    with pytest.raises(InputError, match="image_encoder.projection=24 must equal unet.context_dim=None"):
        validate(small(**{"model.unet.context_dim": None}))
    with pytest.raises(InputError, match="identity_dim is for PRNet"):
        validate(small("single_reference", **{"model.identity_dim": 512}))
    with pytest.raises(InputError, match="unknown reference_mode 'triple'"):
        validate(small(**{"model.reference_mode": "triple"}))
    with pytest.raises(InputError, match="unknown remat 'some'"):
        validate(small(remat="some"))
    with pytest.raises(InputError, match="frozen_dtype: expected"):
        validate(small(frozen_dtype="int8"))
    with pytest.raises(InputError, match="stage codec trains the small autoencoder"):
        validate(small(stage="codec"))
