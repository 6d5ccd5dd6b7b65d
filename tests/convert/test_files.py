"""Folders of pretrained parts, local and on the hub."""

import shutil

import pytest

from durian_jax.convert.files import find_folder
from durian_jax.errors import InputError


def test_a_hub_id_is_a_network_or_a_pipeline_with_a_folder_for_it(pretrained, tmp_path, monkeypatch):
    asked = []

    def snapshot(repository, allow_patterns):
        asked.append((repository, allow_patterns))
        folder = tmp_path / f"{len(asked)}"
        shutil.copytree(pretrained if repository == "some/pipeline" else pretrained / "image_encoder", folder)
        return str(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert (find_folder("some/pipeline", "unet") / "config.json").read_text() == (
        pretrained / "unet" / "config.json").read_text()
    assert [patterns[0] for _, patterns in asked] == ["unet/config.json"]
    assert find_folder("some/clip", "image_encoder").name == "3"
    assert [patterns[0] for _, patterns in asked[1:]] == ["image_encoder/config.json", "config.json"]
    assert find_folder("some/pipeline:vae", "vae").name == "vae"
    assert "diffusion_pytorch_model.safetensors" in asked[2][1] and "*.safetensors" not in asked[2][1]

    def offline(repository, allow_patterns):
        raise OSError("no network")
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(InputError, match="neither a local folder nor a repository that can be downloaded: no network"):
        find_folder("some/pipeline", "unet")
