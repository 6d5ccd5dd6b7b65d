"""`durian export`: what it replaces, and checkpoints that it refuses."""

import shutil
from dataclasses import replace

import pytest
from safetensors import safe_open

from durian_jax.checkpoints.weights import save_checkpoint
from durian_jax.convert.bundle import read_bundle
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE
from tests.commands.runner import durian


def test_only_exports_are_replaced_and_only_on_request(exported, tmp_path, monkeypatch):
    checkpoint, _ = exported("small")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(InputError, match="holds other files than an export"):
        export_checkpoint(checkpoint.path, tmp_path / "mine", overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        export_checkpoint(checkpoint.path, tmp_path / "mine" / "notes", overwrite=True)
    with pytest.raises(InputError, match="holds the checkpoint itself"):
        export_checkpoint(checkpoint.path, checkpoint.path.parent, overwrite=True)
    export_checkpoint(checkpoint.path, tmp_path / "ours", "fp32")
    with pytest.raises(InputError, match="exists already"):
        export_checkpoint(checkpoint.path, tmp_path / "ours")
    export_checkpoint(checkpoint.path, tmp_path / "ours", overwrite=True)
    assert read_bundle(tmp_path / "ours")[1] == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "ours"], "nothing temporary is left"
    with pytest.raises(InputError, match="unknown dtype 'int8'"):
        export_checkpoint(checkpoint.path, tmp_path / "other", "int8")
    monkeypatch.chdir(tmp_path / "ours")
    with pytest.raises(InputError, match="the working folder and cannot be replaced; name a folder in it"):
        export_checkpoint(checkpoint.path, ".", overwrite=True)


def test_checkpoints_that_cannot_be_exported_are_refused(exported, tmp_path):
    """Values that are infinite in half precision, and a missing identity network."""
    checkpoint, _ = exported("small")
    large = {path: x.at[..., 0].set(70_000.0) if path == "denoiser/conv_out/bias" else x
             for path, x in checkpoint.params.items()}
    save_checkpoint(tmp_path / "large", replace(checkpoint, params=large), "float32")
    with pytest.raises(InputError, match="denoiser/conv_out/bias has values that are too large for fp16"):
        export_checkpoint(tmp_path / "large", tmp_path / "out")
    export_checkpoint(tmp_path / "large", tmp_path / "out", "bf16")
    shutil.copytree(exported("identity")[0].path, tmp_path / "identity")
    (tmp_path / "identity" / IDENTITY_FILE).unlink()
    with pytest.raises(InputError, match="expected the ONNX file of an ArcFace network"):
        export_checkpoint(tmp_path / "identity", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["identity", "large", "out"]


def test_the_command_line_exports(tmp_path):
    result = durian("export", "--out", tmp_path / "tiny")
    assert result.exit_code == 0, result.output
    with safe_open(tmp_path / "tiny" / "denoising_unet" / "diffusion_pytorch_model.safetensors", "np") as file:
        assert file.get_slice("conv_in.weight").get_dtype() == "F16"
    assert durian("export", "--out", tmp_path / "tiny").exit_code == 2
