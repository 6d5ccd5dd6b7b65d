"""Loading of an export: damaged files and tensors that do not fit the model are refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from durian_jax.errors import InputError
from durian_jax.torch import DurianPipeline
from tests.helpers.exports import update_hashes


def test_damaged_exports_are_refused_with_the_reason(export_copy):
    weights = export_copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="vae/diffusion_pytorch_model.safetensors changed or damaged"):
        DurianPipeline.from_pretrained(export_copy)
    # Tensors that do not fit the model, with the right hashes.
    weights.write_bytes(content)
    tensors = load_file(weights)
    tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"][:, :2].clone()
    tensors["surplus"] = tensors.pop("decoder.conv_in.bias")
    save_file(tensors, weights)
    update_hashes(export_copy)
    with pytest.raises(InputError, match=r"vae does not fit the model \(3 tensors\): missing decoder.conv_in.bias; "
                                         r"unexpected surplus; decoder.conv_in.weight has shape .* expected"):
        DurianPipeline.from_pretrained(export_copy)
    shutil.rmtree(export_copy / "vae")
    update_hashes(export_copy)
    with pytest.raises(InputError, match="vae: expected"):
        DurianPipeline.from_pretrained(export_copy)


def test_unexpected_tensors_of_any_network_are_refused(exported, tmp_path):
    """Also in networks of transformers, and in ReferenceNets, whose files hold tensors that are not loaded."""
    shutil.copytree(exported("like_sd")[1], tmp_path / "copy")
    for path in ("image_encoder/model.safetensors", "portrait_reference/diffusion_pytorch_model.safetensors"):
        tensors = load_file(tmp_path / "copy" / path)
        save_file({**tensors, "surplus.weight": torch.zeros(2)}, tmp_path / "copy" / path)
        update_hashes(tmp_path / "copy")
        with pytest.raises(InputError, match=r"does not fit the model \(1 tensors\): unexpected surplus.weight"):
            DurianPipeline.from_pretrained(tmp_path / "copy")
        save_file(tensors, tmp_path / "copy" / path)
