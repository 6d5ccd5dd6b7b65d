"""Loading of an export: damaged files and tensors that do not fit the model are refused."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from durian_jax.errors import InputError
from durian_jax.families import get_family
from durian_jax.models.parameters import param_shapes, zero_at_start
from durian_jax.pytorch.files import STARTS_AT_ZERO
from durian_jax.torch import DurianPipeline
from tests.helpers.exports import CONFIGS, update_hashes
from tests.helpers.svdp import tiny as svdp_tiny


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


@pytest.mark.parametrize(("name", "change", "message"), [
    ("decoder.conv_in.weight", lambda x: torch.where(x == x.max(), torch.nan, x), "finite values, found NaN or inf"),
    ("decoder.conv_in.bias", lambda x: x - torch.inf, "expected finite values, found NaN or infinity"),
    ("decoder.conv_in.weight", torch.zeros_like, "expected weights, found only zeros"),
    ("decoder.conv_in.weight", lambda x: x.half() * torch.nan, "expected finite values"),
    ("decoder.conv_in.weight", lambda x: (9 * x).int(), r"found decoder.conv_in.weight \(int32\)"),
    ("decoder.conv_in.weight", lambda x: x > 0, r"found decoder.conv_in.weight \(bool\)"),
    ("decoder.conv_in.weight", lambda x: x + 1j, r"found decoder.conv_in.weight \(complex64\)"),
    ("decoder.conv_in.weight", lambda x: x.to(torch.float8_e4m3fn), r"\(float8_e4m3fn\)")])
def test_damaged_values_are_refused_by_name(export_copy, name, change, message):
    """Also with the right hashes."""
    weights = export_copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, name: change(tensors[name])}, weights)
    update_hashes(export_copy)
    with pytest.raises(InputError, match=f"vae: .*{message}") as error:
        DurianPipeline.from_pretrained(export_copy)
    assert name in str(error.value)


@pytest.mark.parametrize("config", [*CONFIGS.values(), svdp_tiny(), svdp_tiny("joint", "canvas")])
def test_all_tensors_that_start_at_zero_may_be_zero(config):
    shapes, zeros = {path: x.shape for path, x in param_shapes(config).items()}, zero_at_start(config)

    def read(tensor):
        return tensor.to_theirs(np.full(shapes[tensor.path], tensor.path not in zeros, np.float32))
    parts = get_family(config.family).load("convert").export_parts(config, shapes, read, np.dtype(np.float32))
    tensors = [pair for part in parts.values() for pair in part.tensors]
    fresh = {name for name, x in tensors if not x.any()}
    assert fresh and all(STARTS_AT_ZERO.search(name) for name in fresh)
    others = {name for name, x in tensors if x.any()}
    assert sum(not STARTS_AT_ZERO.search(name) for name in others) > 0.8 * len(others)


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
