"""The PyTorch pipeline computes the same as JAX; options of the device and the precision do not change that."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.diffusion.noise import frame_noise
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation.metrics import psnr
from durian_jax.inference.generate import generate
from durian_jax.pytorch.pipeline import Pipeline
from durian_jax.synthetic import render, sample_person, still
from durian_jax.torch import DurianPipeline
from tests.helpers.exports import CONFIGS, SAMPLING
from tests.helpers.models import random_batch


def generated(checkpoint: Checkpoint, folder, batch: dict, sampling: Sampling = Sampling(), **options
              ) -> tuple[np.ndarray, np.ndarray]:
    """Return the clips of PyTorch and of JAX."""
    return (DurianPipeline.from_pretrained(folder).generate(batch, sampling, **options),
            generate(checkpoint, batch, sampling, **options))


@pytest.mark.parametrize("kind", CONFIGS)
def test_both_backends_make_the_same_clip(exported, kind):
    checkpoint, folder = exported(kind)
    batch = random_batch(checkpoint.config, clips=1, frames=3)
    theirs, ours = generated(checkpoint, folder, batch, Sampling(2, 1.5, seed=3), first_frame=5)
    assert psnr(theirs[0], ours[0]) > 60
    assert psnr(ours[0], generate(checkpoint, batch, Sampling(2, 1.5, seed=4), first_frame=5)[0]) < 40, "flat pictures"
    for noise in ("clip", "none"):
        theirs, ours = generated(checkpoint, folder, batch, Sampling(2, 1.5, seed=3, noise=noise), first_frame=5)
        assert psnr(theirs[0], ours[0]) > 60


@pytest.mark.parametrize("kind", ["like_sd", "small"])
@pytest.mark.parametrize("valid", [[[1, 1]] * 4, [[0, 1]] * 4, [[1, 1], [1, 0], [0, 1], [0, 0]], [[0, 0]] * 4])
@pytest.mark.parametrize("weights", [None, [[0.3, 0.7], [0.9, 0.1]], [[1, -1], [1, -1]]])
def test_composition_interpolation_and_missing_attributes(exported, kind, valid, weights):
    checkpoint, folder = exported(kind)
    clips = len(valid)
    batch = random_batch(checkpoint.config, clips=clips, frames=2, attributes=2)
    batch["attribute_valid"] = np.array(valid, np.float32)
    if weights is not None:
        batch["attribute_weights"] = np.tile(np.float32([weights]), (clips, 1, 1))
    theirs, ours = generated(checkpoint, folder, batch, Sampling(1, 1.5, blend_bend=0.5))
    assert all(psnr(theirs[i], ours[i]) > 60 for i in range(clips))


def test_guidance_of_zero_hides_the_references(exported):
    checkpoint, folder = exported("small")
    batch = random_batch(checkpoint.config, clips=1, frames=1)
    theirs, ours = generated(checkpoint, folder, batch, Sampling(1, 0.0))
    assert psnr(theirs[0], ours[0]) > 60
    other = {**batch, "portrait": -batch["portrait"], "attributes": -batch["attributes"]}
    np.testing.assert_array_equal(DurianPipeline.from_pretrained(folder).generate(other, Sampling(1, 0.0)), theirs)


def test_the_default_sampling_is_that_of_the_checkpoint(exported):
    checkpoint, folder = exported("small")
    pipeline, batch = DurianPipeline.from_pretrained(folder), random_batch(checkpoint.config, clips=1, frames=1)
    assert pipeline.sampling == checkpoint.sampling == SAMPLING != Sampling()
    found = pipeline.generate(batch)
    np.testing.assert_array_equal(found, pipeline.generate(batch, SAMPLING))
    assert (found != pipeline.generate(batch, Sampling())).any()
    photo = render(sample_person("validation", 0), still(), 32)
    # A call changes single fields of it.
    np.testing.assert_array_equal(pipeline(photo, [], photo, seed=7),
                                  pipeline(photo, [], photo, steps=2, guidance_scale=1.5, seed=7))


def test_diffusers_own_classes_load_the_networks(exported):
    """Without changes; the prediction without references is the same, too."""
    checkpoint, folder = exported("like_sd")
    model = UNetMotionModel.from_pretrained(folder / "denoising_unet").eval()
    UNet2DConditionModel.from_pretrained(folder / "attribute_reference")
    pipeline, side = DurianPipeline.from_pretrained(folder), checkpoint.config.latent_size
    noisy = torch.from_numpy(frame_noise(0, range(3), (4, side, side)))
    with torch.inference_mode():
        theirs = model(noisy.transpose(0, 1)[None], 400, torch.zeros(3, 1, 24)).sample[0].transpose(0, 1)
        ours = pipeline.model.denoising_unet(noisy, torch.full((3,), 400.0), frames=3, temporal=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_offload_chunks_and_shared_references_change_nothing(exported):
    checkpoint, folder = exported("small")
    batch, sampling = random_batch(checkpoint.config, clips=1, frames=3), Sampling(2)
    expected = DurianPipeline.from_pretrained(folder).generate(batch, sampling)
    pipeline = DurianPipeline.from_pretrained(folder).to("cpu", offload=True)
    pipeline.decode_chunk = 2
    # Calls of `to` alternate: a network moves to the device, then back.
    on_device, used = set(), set()
    for name, network in pipeline.model.named_children():
        network.to = lambda *_, name=name: on_device.symmetric_difference_update({name})
        for module in network.modules():
            module.register_forward_pre_hook(lambda *_, name=name: used.add((name, name in on_device)))
    found = pipeline.generate(batch, sampling, references=pipeline.references(batch))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert used == {(name, True) for name, _ in pipeline.model.named_children()} and not on_device


@pytest.mark.parametrize("kind", ["like_sd", "small"])
def test_half_precision_is_close(exported, kind):
    checkpoint, folder = exported(kind)
    batch = random_batch(checkpoint.config, clips=1, frames=2)
    half = DurianPipeline.from_pretrained(folder, "bfloat16")
    assert half.dtype == torch.bfloat16
    expected = DurianPipeline.from_pretrained(folder).generate(batch, Sampling(1))
    assert psnr(half.generate(batch, Sampling(1))[0], expected[0]) > 25


def test_slow_precisions_of_a_cpu_cause_a_warning(exported, monkeypatch, recwarn):
    checkpoint, folder = exported("small")
    half, batch = DurianPipeline.from_pretrained(folder, "bfloat16"), random_batch(checkpoint.config, clips=1, frames=1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    half.references(batch)
    assert not recwarn
    for capability in ("AVX2", "NO AVX"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        with pytest.warns(UserWarning, match=rf"\({capability}\) has no arithmetic in 16 bits: bfloat16 .* float32"):
            half.references(batch)


@pytest.mark.slow
def test_compiled_blocks_are_the_same(exported, monkeypatch):
    checkpoint, folder = exported("small")
    batch = random_batch(checkpoint.config, clips=1, frames=2)
    expected = DurianPipeline.from_pretrained(folder).generate(batch, Sampling(1))
    graphs = []

    def backend(graph, inputs):  # in place of Inductor, which needs a C++ compiler
        graphs.append(graph)
        return graph
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    pipeline = DurianPipeline.from_pretrained(folder).compile()
    found = pipeline.generate(batch, Sampling(1))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(graphs) >= 3, "residual blocks, attention sites and motion modules"


def test_large_networks_are_written_in_shards(exported, tmp_path):
    checkpoint, _ = exported("small")
    folder = export_checkpoint(checkpoint.path, tmp_path / "shards", "fp32", shard_bytes=200_000)
    assert len(list((folder / "denoising_unet").glob("*-of-*.safetensors"))) > 1
    batch = random_batch(checkpoint.config, clips=1, frames=1)
    theirs, ours = generated(checkpoint, folder, batch)
    assert psnr(theirs[0], ours[0]) > 60
    next((folder / "denoising_unet").glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(InputError, match="denoising_unet/diffusion_pytorch_model-00002.* missing; copy or export it"):
        DurianPipeline.from_pretrained(folder)


def test_exports_of_another_family_are_refused(exported):
    class Other(Pipeline):
        """The pipeline of another family."""
    with pytest.raises(InputError, match="expected an export for Other, found one for DurianPipeline"):
        Other.from_pretrained(exported("small")[1])


def test_folders_and_options_that_do_not_fit_are_refused(exported, tmp_path):
    checkpoint, folder = exported("small")
    with pytest.raises(InputError, match="found a JAX checkpoint; export it first"):
        DurianPipeline.from_pretrained(checkpoint.path)
    with pytest.raises(InputError, match="expected an export with durian.json"):
        DurianPipeline.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="unknown dtype"):
        DurianPipeline.from_pretrained(folder, "int8")
    with pytest.raises(InputError, match="pictures of 32 x 32 pixels only"):
        DurianPipeline.from_pretrained(folder, size=64)
    with pytest.raises(InputError, match="7 frames at once exceed the 6"):
        DurianPipeline.from_pretrained(folder).generate(random_batch(checkpoint.config, clips=1, frames=7))
