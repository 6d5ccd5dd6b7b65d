"""Regions from a Stable Diffusion XL with a ControlNet; here both are tiny and untrained."""

import json
import shutil
import sys

import numpy as np
import pytest

from durian_jax import annotator
from durian_jax.data import RecordedClips
from durian_jax.errors import InputError
from durian_jax.expansion.dataset import expand
from durian_jax.expansion.request import Wanted
from durian_jax.faces.regions import beard_region, face_frame
from durian_jax.prepare.maskers import make_masker
from tests.helpers.expansion import overlap
from tests.helpers.faces import clip


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder with a pipeline that makes 64 px, and its ControlNet, as diffusers saves them."""
    torch, diffusers, transformers = map(pytest.importorskip, ("torch", "diffusers", "transformers"))
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=32, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, transformer_layers_per_block=1, cross_attention_dim=32,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8)
    controlnet = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    for parameter in controlnet.parameters():
        if not parameter.any():  # its last layers start at zero, so it would have no effect
            torch.nn.init.normal_(parameter, std=0.5)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
    text = transformers.CLIPTextConfig(
        vocab_size=256, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=160, projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    letters = [chr(code) for code in range(33, 127)]  # one token per letter: it takes any text
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"),
                                           model_max_length=160)
    diffusers.StableDiffusionXLPipeline(
        vae=vae, text_encoder=transformers.CLIPTextModel(text),
        text_encoder_2=transformers.CLIPTextModelWithProjection(text), tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=unet, scheduler=diffusers.EulerDiscreteScheduler()).save_pretrained(folder / "sdxl")
    controlnet.save_pretrained(folder / "controlnet")
    return folder


@pytest.fixture(scope="module")
def artist(networks):
    from durian_jax.expansion.diffusers import DiffusersGenerator
    return DiffusersGenerator(networks / "sdxl", networks / "controlnet", make_masker("heuristic"),
                              lambda image: np.full(image.shape[:2], 255, np.uint8), steps=2)


def wanted(seed: int = 0, kind: str = "hair", face: int = 0) -> Wanted:
    return Wanted(clip(face, frames=1), kind, np.random.default_rng(seed))


@pytest.mark.slow
def test_pictures_follow_the_seed_the_prompt_and_the_keypoints(artist):
    assert artist.size == 64
    first, second = (artist.pictures([wanted(), wanted(seed=1), wanted(kind="hat"), wanted(face=1)]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (4, 64, 64, 3) and first.dtype == np.uint8 and first.std() > 10
    # The batch size changes a picture by rounding only.
    assert abs(artist.pictures([wanted()])[0].astype(int) - first[0]).max() <= 1
    for other in first[1:]:
        assert abs(other.astype(int) - first[0]).mean() > 0.2


@pytest.mark.slow
def test_the_generated_picture_is_segmented(artist):
    regions = artist([wanted(kind="beard"), wanted(kind="hair")])
    assert [region.shape for region in regions] == [(64, 64)] * 2 and all(region.dtype == bool for region in regions)
    # The heuristic's beard follows from the keypoints alone.
    np.testing.assert_array_equal(regions[0], beard_region(face_frame(clip(0, frames=1).keypoints[0], 64, 64)))


@pytest.mark.slow
def test_it_expands_a_dataset(networks, dataset, monkeypatch):
    class FakeAnnotator:
        def person(self, image):
            return np.full(image.shape[:2], 255, np.uint8)

    monkeypatch.setattr(annotator, "Annotator", FakeAnnotator)
    done = expand(dataset, f"diffusers:{networks / 'sdxl'}", controlnet=str(networks / "controlnet"), steps=2,
                  kinds=("beard",), frames=1)
    assert done["clips"] == 1 and done["left_out"]["bare"] == 4
    opened = RecordedClips(dataset).open(1)
    ((frame, field),) = opened.generated().items()
    face = opened.clip([frame]).view().keypoints[0]
    # Generated at 64 px, stored in the view of 56 px.
    assert overlap(field[4:-4, 4:-4] > 0, beard_region(face_frame(face, 56, 56))) > 0.8


@pytest.mark.slow
def test_other_models_are_refused(networks, tmp_path):
    import torch
    from safetensors.torch import load_file

    from durian_jax.expansion.diffusers import DiffusersGenerator

    def refused(model, controlnet, message):
        with pytest.raises(InputError, match=message):
            DiffusersGenerator(model, controlnet, None, None)

    good = (networks / "sdxl", networks / "controlnet")
    refused(good[0], "no folder", "no folder: no such folder; expected one with a ControlNet")
    refused(good[0], good[0] / "unet", "the weights lack .* tensors")
    refused(good[1], good[1], "expected a Stable Diffusion XL in diffusers' format")
    narrow = shutil.copytree(networks / "sdxl", tmp_path / "pickled")
    weights = narrow / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), narrow / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    refused(narrow, good[1], "safetensors")  # loading a pickle can run code


def test_without_torch_it_says_what_to_install(monkeypatch):
    from durian_jax.expansion.diffusers import DiffusersGenerator
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"run pip install .*\[torch\]'"):
        DiffusersGenerator("sdxl", "controlnet", None, None)
