"""The parity certificate of an export (`evaluation.parity`)."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from durian_jax.convert.bundle import read_bundle
from durian_jax.errors import InputError
from durian_jax.evaluation.parity import describe, verify_export
from tests.commands.runner import durian
from tests.helpers.exports import update_hashes


def test_the_certificate_is_written_and_fails_for_another_model(exported, export_copy):
    checkpoint, _ = exported("small")
    report = verify_export(export_copy, checkpoint.path, frames=2, steps=2)
    assert report["passed"] and report["max_relative_error"] < 1e-4 and report["psnr"] > 40
    names = {row["name"] for row in report["rows"]}
    assert {"latents", "pictures", "prediction with references",
            "denoiser without references, mid_block.resnets.1.norm1"} <= names
    assert "the same model" in describe(report)
    with safe_open(export_copy / "denoising_unet" / "diffusion_pytorch_model.safetensors", "np") as file:
        assert float(file.metadata()["parity.max_relative_error"]) == report["max_relative_error"]
    assert json.loads((export_copy / "parity.json").read_text())["rows"] == report["rows"]
    read_bundle(export_copy)  # the hashes fit the new files

    path = export_copy / "denoising_unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.weight"] *= 1.01
    save_file(tensors, path)
    update_hashes(export_copy)
    result = durian("verify", export_copy, "--checkpoint", checkpoint.path, "--frames", 1, "--steps", 1)
    assert result.exit_code == 1 and "NOT the same model" in result.output


def test_a_certificate_needs_the_checkpoint_that_was_exported(exported):
    with pytest.raises(InputError, match="is no export of .*image_encoder.* differ"):
        verify_export(exported("small")[1], exported("like_sd")[0].path)
