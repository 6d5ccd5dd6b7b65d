"""Stages of the recipe: the parameters that each trains, and what each needs."""

import pytest

from durian_jax.models.parameters import param_shapes
from durian_jax.training.config import RunConfig
from durian_jax.training.recipes.durian import STAGES
from durian_jax.training.state import split
from tests.helpers.runs import small_config, small_paper_config

# Sizes do not matter, kinds of networks do. AutoencoderKL has layers between its encoder and its decoder.
KL = {"model.codec_kind": "autoencoder_kl", "model.codec": {"channels": (8, 8), "layers": 1, "latent_channels": 4,
                                                            "norm_groups": 2, "scaling_factor": 1.0}}
CONFIGS = {"tiny": small_config("clips", **{"model.reference_mode": "dual"}), "sd15": small_paper_config(**KL),
           "sd15 with autoencoder_tiny": small_paper_config(**{"model.identity_dim": 512})}


@pytest.fixture(params=CONFIGS)
def shapes(request):
    return param_shapes(RunConfig.read(CONFIGS[request.param]).model)


def trained(shapes, stage):
    return set(split(shapes, STAGES[stage].trains)[0])


def test_the_stages_share_out_the_parameters(shapes):
    """Stages codec, 1 and 2 train every parameter once, but the pretrained image encoder's, which no stage trains.

    "decoder" is a part of the codec without temporal layers, "joint" is stage 1 with it, and "joint2" is stage 2 with
    the decoder and its temporal layers.
    """
    paths = {stage: trained(shapes, stage) for stage in STAGES}
    all_paths = {path for path in shapes if not path.startswith("image_encoder/")}
    temporal = {path for path in all_paths if "_temporal_" in path}
    assert sum(len(paths[stage]) for stage in ("codec", "1", "2")) + len(temporal) == len(all_paths)
    assert paths["codec"] | paths["1"] | paths["2"] | temporal == all_paths
    assert set() < paths["decoder"] < paths["codec"]
    assert paths["joint"] == paths["1"] | paths["decoder"]
    assert paths["joint2"] == paths["2"] | paths["decoder"] | temporal


NETWORKS = {"denoiser", "portrait_reference", "attribute_reference", "keypoint_encoder"}


@pytest.mark.parametrize(("stage", "networks"), [
    ("codec", {"codec"}), ("decoder", {"codec"}), ("1", NETWORKS), ("joint", NETWORKS | {"codec"}),
    ("2", {"denoiser"}), ("joint2", {"denoiser", "codec"})])
def test_a_stage_trains_these_networks(stage, networks, shapes):
    if stage in ("1", "joint") and any(path.startswith("identity_projection/") for path in shapes):
        networks = networks | {"identity_projection"}
    paths = trained(shapes, stage)
    assert {path.split("/")[0] for path in paths} == networks
    assert {"motion_module" in path for path in paths} == ({False, True} if stage == "joint2" else {stage == "2"})
    if stage in ("decoder", "joint", "joint2"):
        assert {path.split("/")[1] for path in paths if path.startswith("codec/")} == {"decoder"}


@pytest.mark.parametrize(("stage", "temporal", "pixels", "pixels_with_loss"), [
    ("codec", False, True, True), ("decoder", False, True, True), ("1", False, False, True),
    ("joint", False, True, True), ("2", True, False, True), ("joint2", True, True, True)])
def test_a_stage_says_what_it_needs(stage, temporal, pixels, pixels_with_loss):
    """Only stages 2 and joint2 run the temporal layers. Pixels are needed for the codec, and for a loss on them."""
    recipe = STAGES[stage]
    config = small_config("clips")
    assert recipe.name == stage and recipe.temporal == temporal
    for weight, expected in ((0.0, pixels), (30.0, pixels_with_loss)):
        config.objective.pixel_weight = weight
        assert recipe.needs_pixels(RunConfig.read(config)) == expected
