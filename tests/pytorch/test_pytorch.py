"""The PyTorch backend: the same model, the same pictures; what is damaged is refused; no jax is imported."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import UNet2DConditionModel, UNetMotionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
from durian_jax.commands.main import main
from durian_jax.convert.bundle import file_hashes, read_bundle
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.diffusion import Objective
from durian_jax.diffusion.noise import frame_noise
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation.metrics import psnr
from durian_jax.evaluation.parity import describe, verify_export
from durian_jax.faces.arcface import IDENTITY_FILE
from durian_jax.inference import animate as animate_module
from durian_jax.inference.animator import Animator
from durian_jax.inference.generate import generate
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.parameters import init_params
from durian_jax.models.unet.config import UNetConfig
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.torch import DurianPipeline
from durian_jax.video import read_video, write_image, write_video
from tests.faces.test_arcface import WIDTH, write_network
from tests.models.test_models import random_batch

# Stable Diffusion's layout, with everything that a model can have; and the small models' layout.
LIKE_SD = DurianConfig(
    image_size=32, max_frames=6, temporal_heads=2, keypoint_patch=1, keypoint_channels=(8,),
    unet=UNetConfig(channels=(16, 32), attention=(True, False), heads=(2, 2), context_dim=24, positions=False,
                    feedforward_multiplier=4),
    codec=AutoencoderKLConfig(channels=(8, 16), layers=1, norm_groups=4),
    image_encoder=ImageEncoderConfig(channels=16, layers=2, heads=2, mlp_channels=32, image_size=28, projection=24))
SMALL = DurianConfig(
    image_size=32, max_frames=6, temporal_heads=2, keypoint_channels=(8,),
    unet=UNetConfig(channels=(16, 32), attention=(False, True), heads=(2, 4)),
    codec=CodecConfig(encoder_channels=(8, 8), decoder_channels=(8, 8), latent_channels=4, norm_groups=2))
CONFIGS = {
    "like_sd": LIKE_SD, "small": SMALL,
    "no_image_encoder": replace(LIKE_SD, image_encoder=None, mask_channel=False, masked_references=False,
                                codec=AutoencoderTinyConfig(channels=8, encoder_blocks=(1, 2), decoder_blocks=(2, 1))),
    "identity": replace(LIKE_SD, identity_dim=WIDTH),
}
OBJECTIVES = {"like_sd": Objective("stable_diffusion", "epsilon", time_power=1.0, region_weight=0.0),
              "small": Objective(), "no_image_encoder": Objective("cosine", "velocity"), "identity": Objective()}


def random_checkpoint(config: DurianConfig, objective: Objective) -> Checkpoint:
    """Random weights everywhere, also where training starts from zeros."""
    rng = np.random.default_rng(0)
    params = {path: jnp.asarray(x + 0.1 * rng.standard_normal(x.shape), jnp.float32)
              for path, x in init_params(config, 0).items()}
    return Checkpoint(config, objective, params)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Kind of model -> its checkpoint and its export."""
    made = {}

    def export(kind: str):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            save_checkpoint(folder / "checkpoint", random_checkpoint(CONFIGS[kind], OBJECTIVES[kind]), "float32")
            if CONFIGS[kind].identity_dim is not None:
                write_network(folder / "checkpoint" / IDENTITY_FILE)
            export_checkpoint(folder / "checkpoint", folder / "export", "fp32")
            made[kind] = load_checkpoint(folder / "checkpoint"), folder / "export"
        return made[kind]
    return export


def generated(checkpoint: Checkpoint, folder, batch: dict, sampling: Sampling = Sampling(), **options
              ) -> tuple[np.ndarray, np.ndarray]:
    """The clips of both backends."""
    return (DurianPipeline.from_pretrained(folder).generate(batch, sampling, **options),
            generate(checkpoint, batch, sampling, **options))


@pytest.mark.parametrize("kind", CONFIGS)
def test_both_backends_make_the_same_clip(exported, kind):
    checkpoint, folder = exported(kind)
    batch = random_batch(checkpoint.config, clips=1, frames=3)
    theirs, ours = generated(checkpoint, folder, batch, Sampling(2, 1.5, seed=3), first_frame=5)
    assert psnr(theirs[0], ours[0]) > 60
    assert psnr(ours[0], generate(checkpoint, batch, Sampling(2, 1.5, seed=4), first_frame=5)[0]) < 40, "flat pictures"


@pytest.mark.parametrize("kind", ["like_sd", "small"])
@pytest.mark.parametrize("valid", [[[1, 1]] * 4, [[0, 1]] * 4, [[1, 1], [1, 0], [0, 1], [0, 0]], [[0, 0]] * 4])
@pytest.mark.parametrize("blended", [False, True])
def test_composition_interpolation_and_missing_attributes(exported, kind, valid, blended):
    checkpoint, folder = exported(kind)
    clips = len(valid)
    batch = random_batch(checkpoint.config, clips=clips, frames=1, attributes=2)
    batch["attribute_valid"] = np.array(valid, np.float32)
    blend = np.tile(np.array([[0.3, 0.7]], np.float32), (clips, 1)) if blended else None
    theirs, ours = generated(checkpoint, folder, batch, Sampling(1, 1.5), blend=blend)
    assert all(psnr(theirs[i], ours[i]) > 60 for i in range(clips))


def test_diffusers_own_classes_load_the_networks(exported):
    """Unmodified, where they fit; the prediction without references is theirs too."""
    checkpoint, folder = exported("like_sd")
    model = UNetMotionModel.from_pretrained(folder / "denoising_unet").eval()
    UNet2DConditionModel.from_pretrained(folder / "attribute_reference")
    pipeline, side = DurianPipeline.from_pretrained(folder), checkpoint.config.latent_size
    noisy = torch.from_numpy(frame_noise(0, range(3), (4, side, side)))
    with torch.inference_mode():
        theirs = model(noisy.transpose(0, 1)[None], 400, torch.zeros(3, 1, 24)).sample[0].transpose(0, 1)
        ours = pipeline.model.denoising_unet(noisy, torch.full((3,), 400.0), frames=3, temporal=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_environment_without_jax_asks_for_what_the_package_asks_for():
    root = Path(__file__).parents[2]
    _, *wanted = (root / "durian_jax" / "pytorch" / "requirements.txt").read_text().splitlines()
    package = (root / "setup.py").read_text()
    assert wanted and all(f'"{requirement}"' in package for requirement in wanted)


def test_noise_is_that_of_jax():
    keys = jax.vmap(lambda frame: jax.random.fold_in(jax.random.key(jnp.uint32(2**32 - 5)), frame))(jnp.arange(7, 10))
    expected = jax.vmap(lambda key: jax.random.normal(key, (5, 7, 3)))(keys)
    np.testing.assert_allclose(frame_noise(2**32 - 5, range(7, 10), (5, 7, 3)), expected, atol=5e-5)


def test_offload_chunks_and_shared_references_change_nothing(exported):
    checkpoint, folder = exported("small")
    batch, sampling = random_batch(checkpoint.config, clips=1, frames=3), Sampling(2)
    expected = DurianPipeline.from_pretrained(folder).generate(batch, sampling)
    pipeline = DurianPipeline.from_pretrained(folder).to("cpu", offload=True)
    pipeline.decode_chunk = 2
    # A network is on the device from the one call of `to` until the next.
    on_device, used = set(), set()
    for name, network in pipeline.model.named_children():
        network.to = lambda *_, name=name: on_device.symmetric_difference_update({name})
        for module in network.modules():
            module.register_forward_pre_hook(lambda *_, name=name: used.add((name, name in on_device)))
    found = pipeline.generate(batch, sampling, references=pipeline.project_references(batch))
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


def test_a_cpu_without_16_bits_is_warned_of(exported, monkeypatch, recwarn):
    checkpoint, folder = exported("small")
    half, batch = DurianPipeline.from_pretrained(folder, "bfloat16"), random_batch(checkpoint.config, clips=1, frames=1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    half.project_references(batch)
    assert not recwarn
    for capability in ("AVX2", "NO AVX"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        with pytest.warns(UserWarning, match=rf"\({capability}\) has no arithmetic in 16 bits: bfloat16 .* float32"):
            half.project_references(batch)


def test_compiled_blocks_are_the_same(exported, monkeypatch):
    checkpoint, folder = exported("small")
    batch = random_batch(checkpoint.config, clips=1, frames=2)
    expected = DurianPipeline.from_pretrained(folder).generate(batch, Sampling(1))
    graphs = []

    def backend(graph, inputs):  # what Inductor, which needs a C++ compiler, would be given
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


@pytest.fixture
def copy(exported, tmp_path):
    """An export to damage."""
    shutil.copytree(exported("small")[1], tmp_path / "copy")
    return tmp_path / "copy"


def edit_bundle(folder, **changes):
    path = folder / "durian.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def vouch_for(folder):
    """Hashes of the files as they are now."""
    edit_bundle(folder, files=file_hashes(folder))


def test_damaged_exports_are_refused_with_the_reason(copy):
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="vae/diffusion_pytorch_model.safetensors changed or damaged"):
        DurianPipeline.from_pretrained(copy)
    # Another architecture, with all hashes right.
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"][:, :2].clone()
    tensors["surplus"] = tensors.pop("decoder.conv_in.bias")
    save_file(tensors, weights)
    vouch_for(copy)
    with pytest.raises(InputError, match=r"vae does not fit the model \(3 tensors\): missing decoder.conv_in.bias; "
                                         r"unexpected surplus; decoder.conv_in.weight has shape .* expected"):
        DurianPipeline.from_pretrained(copy)
    shutil.rmtree(copy / "vae")
    vouch_for(copy)
    with pytest.raises(InputError, match="vae: expected"):
        DurianPipeline.from_pretrained(copy)


def test_every_network_is_read_strictly(exported, tmp_path):
    """Those of transformers and the ReferenceNets with diffusers' tail too."""
    shutil.copytree(exported("like_sd")[1], tmp_path / "copy")
    for path in ("image_encoder/model.safetensors", "portrait_reference/diffusion_pytorch_model.safetensors"):
        tensors = load_file(tmp_path / "copy" / path)
        save_file({**tensors, "surplus.weight": torch.zeros(2)}, tmp_path / "copy" / path)
        vouch_for(tmp_path / "copy")
        with pytest.raises(InputError, match=r"does not fit the model \(1 tensors\): unexpected surplus.weight"):
            DurianPipeline.from_pretrained(tmp_path / "copy")
        save_file(tensors, tmp_path / "copy" / path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": 2}, "expected format 1, found 2"), ({"model": {"depth": 3}}, "unknown fields"),
    ({"model": {"reference_mode": "single"}}, "only JAX runs"),
    ({"model": {"attribute_capacity": 0.5}}, "runs in JAX only"), ({"files": 3}, "is damaged"),
    ({"model": {"unet": {"channels": [8], "attention": [True], "heads": [0]}}}, "is damaged"),
    ({"dtype": "int8"}, "unknown dtype"), ({"files": {}}, "denoising_unet.* not listed"),
    ({"files": {"../x": ""}}, "../x.* lead out of it")])
def test_bundles_that_cannot_be_used_are_refused(copy, changes, message):
    edit_bundle(copy, **changes)
    with pytest.raises(InputError, match=message):
        read_bundle(copy)


def test_what_is_no_export_is_refused(exported, tmp_path):
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


def test_an_export_replaces_nothing_unless_it_is_asked_to(exported, tmp_path, monkeypatch):
    checkpoint, _ = exported("small")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(InputError, match="holds something else than an export"):
        export_checkpoint(checkpoint.path, tmp_path / "mine", overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        export_checkpoint(checkpoint.path, tmp_path / "mine" / "notes", overwrite=True)
    with pytest.raises(InputError, match="holds the checkpoint itself"):
        export_checkpoint(checkpoint.path, checkpoint.path.parent, overwrite=True)
    export_checkpoint(checkpoint.path, tmp_path / "ours", "fp32")
    with pytest.raises(InputError, match="is there already"):
        export_checkpoint(checkpoint.path, tmp_path / "ours")
    export_checkpoint(checkpoint.path, tmp_path / "ours", overwrite=True)
    assert read_bundle(tmp_path / "ours")[2] == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "ours"], "nothing temporary is left"
    with pytest.raises(InputError, match="unknown dtype 'int8'"):
        export_checkpoint(checkpoint.path, tmp_path / "other", "int8")
    monkeypatch.chdir(tmp_path / "ours")
    with pytest.raises(InputError, match="the working folder; name a folder in it"):
        export_checkpoint(checkpoint.path, ".", overwrite=True)


def test_checkpoints_that_cannot_be_exported_whole_are_refused(exported, tmp_path):
    """Values that are infinite in half precision, and one whose identity network is missing."""
    checkpoint, _ = exported("small")
    large = {path: x.at[..., 0].set(70_000.0) if path == "denoiser/conv_out/bias" else x
             for path, x in checkpoint.params.items()}
    save_checkpoint(tmp_path / "large", replace(checkpoint, params=large), "float32")
    with pytest.raises(InputError, match="denoiser/conv_out/bias has values that are not finite in fp16"):
        export_checkpoint(tmp_path / "large", tmp_path / "out")
    export_checkpoint(tmp_path / "large", tmp_path / "out", "bf16")
    shutil.copytree(exported("identity")[0].path, tmp_path / "identity")
    (tmp_path / "identity" / IDENTITY_FILE).unlink()
    with pytest.raises(InputError, match="expected the ONNX file of an ArcFace network"):
        export_checkpoint(tmp_path / "identity", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["identity", "large", "out"]


def test_the_certificate_is_written_and_fails_for_another_model(exported, copy):
    checkpoint, _ = exported("small")
    report = verify_export(copy, checkpoint.path, frames=2, steps=2)
    assert report["passed"] and report["max_relative_error"] < 1e-4 and report["psnr"] > 40
    names = {row["name"] for row in report["rows"]}
    assert {"latents", "pictures", "prediction with references",
            "denoiser without references, mid_block.resnets.1.norm1"} <= names
    assert "the same model" in describe(report)
    with safe_open(copy / "denoising_unet" / "diffusion_pytorch_model.safetensors", "np") as file:
        assert float(file.metadata()["parity.max_relative_error"]) == report["max_relative_error"]
    assert json.loads((copy / "parity.json").read_text())["rows"] == report["rows"]
    read_bundle(copy)  # hashes are those of the files that were written

    path = copy / "denoising_unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.weight"] *= 1.01
    save_file(tensors, path)
    vouch_for(copy)
    result = CliRunner().invoke(main, ["verify", str(copy), "--checkpoint", str(checkpoint.path), "--frames", "1",
                                       "--steps", "1"])
    assert result.exit_code == 1 and "NOT the same model" in result.output


def test_a_certificate_needs_the_checkpoint_that_was_exported(exported):
    with pytest.raises(InputError, match="is no export of .*image_encoder.* differ"):
        verify_export(exported("small")[1], exported("like_sd")[0].path)


def test_the_command_line_exports(tmp_path):
    result = CliRunner().invoke(main, ["export", "--out", str(tmp_path / "tiny")])
    assert result.exit_code == 0, result.output
    with safe_open(tmp_path / "tiny" / "denoising_unet" / "diffusion_pytorch_model.safetensors", "np") as file:
        assert file.get_slice("conv_in.weight").get_dtype() == "F16"
    assert CliRunner().invoke(main, ["export", "--out", str(tmp_path / "tiny")]).exit_code == 2


def test_animate_runs_an_export_from_files_to_files(exported, tmp_path, monkeypatch):
    folder, size = exported("like_sd")[1], 32
    clip = render(sample_person("validation", 1, require=("hair",)), sample_motion("validation", 1, 3), size=size)
    write_image(tmp_path / "me.png", clip.frames[0])
    write_video(tmp_path / "talk.mp4", clip.frames, 25)
    monkeypatch.setattr(animate_module, "Annotator", MagicMock())
    monkeypatch.setattr(animate_module, "annotate_image", lambda *_, **__: clip[:1])
    monkeypatch.setattr(animate_module, "annotate_video", lambda *_, **__: (clip, []))
    run = lambda *more: CliRunner().invoke(main, [
        "animate", "-s", str(tmp_path / "me.png"), "-d", str(tmp_path / "talk.mp4"), "-a", f"hair={tmp_path}/me.png",
        "-o", str(tmp_path / "out.mp4"), "--checkpoint", str(folder), *more])
    result = run("--backend", "torch", "--device", "cpu", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert read_video(tmp_path / "out.mp4")[0].shape == (3, size, size, 3)
    assert read_video(tmp_path / "out_concat.mp4")[0].shape == (3, size, 4 * size, 3)
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert (settings["backend"], settings["device"], settings["dtype"]) == ("torch", "cpu", "torch.bfloat16")
    for wrong, message in ((("--device", "cpu"), "are for backend='torch'"),
                           (("--backend", "torch", "--device", "cudx"), "expected one such as cpu or cuda"),
                           (("--backend", "torch", "--checkpoint", str(tmp_path)), "expected an export")):
        result = run(*wrong)
        assert result.exit_code == 2 and message in result.output


WITHOUT_JAX = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "ml_dtypes"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import numpy as np
from durian_jax.inference.animate import animate_files, concat
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.torch import DurianPipeline

photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), 128)
driving = render(sample_person("benchmark", 3), sample_motion("benchmark", 3, 3), 128)
pipeline = DurianPipeline.from_pretrained(sys.argv[1])
np.save(sys.argv[2], pipeline(photo(0), [("hair", photo(1))], driving, steps=2, guidance_scale=2.0, seed=5))
assert not [name for name in sys.modules if name.split(".")[0] in ("jax", "flax")]
"""


def test_the_exported_tiny_model_animates_without_jax(tmp_path):
    export_checkpoint("tiny", tmp_path / "tiny")
    subprocess.run([sys.executable, "-c", WITHOUT_JAX, tmp_path / "tiny", tmp_path / "frames.npy"], check=True)
    refusing = WITHOUT_JAX.partition("import numpy")[0]
    without = f"{refusing}sys.argv[1:] = ['demo']\nfrom durian_jax.commands.main import main\nmain()"
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True)
    assert done.returncode == 2 and "durian: error: this needs" in done.stderr and "Traceback" not in done.stderr
    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), 128)
    driving = render(sample_person("benchmark", 3), sample_motion("benchmark", 3, 3), 128)
    expected = Animator("tiny").animate(photo(0), [("hair", photo(1))], driving, sampling=Sampling(2, 2.0, seed=5))
    assert psnr(np.load(tmp_path / "frames.npy"), expected) > 60
