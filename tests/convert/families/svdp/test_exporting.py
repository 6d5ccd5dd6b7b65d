"""Export of SVDP: every tensor under its name in diffusers, and back bit for bit."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from durian_jax.checkpoints.weights import save_checkpoint
from durian_jax.convert.bundle import read_bundle
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.convert.families.svdp.network_maps import network_maps
from durian_jax.diffusion import Objective
from durian_jax.models.codecs.config import AutoencoderKLConfig
from tests.helpers.exports import random_checkpoint
from tests.helpers.pretrained import tensor_file
from tests.helpers.svdp import tiny

KL = AutoencoderKLConfig((8, 16), 1, 4, 4, 1.5305, 0.0609, quant_conv=False)
CONFIGS = {"one_way-rotary": tiny("one_way", "rotary"), "joint-canvas": replace(tiny("joint", "canvas"), codec=KL)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_export_and_back_is_bit_for_bit(kind, tmp_path):
    checkpoint = random_checkpoint(CONFIGS[kind], Objective("flow", "flow", time_shift=3.0))
    checkpoint = replace(checkpoint, sampling=replace(checkpoint.sampling, guidance_scale=1.0))
    save_checkpoint(tmp_path / "checkpoint", checkpoint, "float32")
    folder = export_checkpoint(tmp_path / "checkpoint", tmp_path / "export", "fp32")
    assert read_bundle(folder) == (checkpoint.description, "fp32")
    maps = network_maps(checkpoint.config, {path: x.shape for path, x in checkpoint.params.items()})
    back = {}
    for part, network in (("transformer", "transformer"), ("vae", "codec")):
        tensors = load_file(tensor_file(folder / part))
        assert sorted(tensors) == sorted(tensor.name for tensor in maps[network])
        back |= {tensor.path: tensor.to_ours(tensors[tensor.name]) for tensor in maps[network]}
    assert set(back) == set(checkpoint.params)
    assert all(back[path].tobytes() == np.asarray(x).tobytes() for path, x in checkpoint.params.items())


def test_names_of_the_transformer(tmp_path):
    """Diffusers' names where its class has the tensor, and ours, which the PyTorch pipeline reads."""
    config = CONFIGS["joint-canvas"]
    save_checkpoint(tmp_path / "checkpoint", random_checkpoint(config, Objective("flow", "flow")), "float32")
    folder = export_checkpoint(tmp_path / "checkpoint", tmp_path / "export", "fp32") / "transformer"
    names = {name: x.shape for name, x in load_file(tensor_file(folder)).items()}
    width = config.mmdit.width
    for name, shape in {
            "pos_embed.proj.weight": (width, 4, 2, 2), "context_embedder.weight": (width, 8),
            "time_text_embed.timestep_embedder.linear_1.weight": (width, 256),
            "time_text_embed.text_embedder.linear_2.bias": (width,), "norm_out.linear.weight": (2 * width, width),
            "proj_out.weight": (16, width), "transformer_blocks.0.norm1.linear.weight": (9 * width, width),
            "transformer_blocks.1.norm1.linear.weight": (6 * width, width),
            "transformer_blocks.0.norm1_context.linear.weight": (6 * width, width),
            "transformer_blocks.1.norm1_context.linear.weight": (2 * width, width),
            "transformer_blocks.0.attn.norm_added_k.weight": (width // 2,),
            "transformer_blocks.0.attn.to_out.0.weight": (width, width),
            "transformer_blocks.0.attn.to_add_out.bias": (width,),
            "transformer_blocks.0.attn2.to_v.weight": (width, width),
            "transformer_blocks.0.ff.net.0.proj.weight": (4 * width, width),
            "transformer_blocks.0.ff_context.net.2.weight": (width, 4 * width),
            "video_blocks.1.norm.linear.weight": (3 * width, width), "video_blocks.1.attn.to_q.weight": (width, width),
            "video_blocks.1.attn.to_out.0.weight": (width, width), "video_blocks.1.attn.norm_q.weight": (width // 2,),
            "mask_embedding.weight": (width, 4), "group_embedding": (5, width)}.items():
        assert names[name] == shape, name
    assert "pos_embed.pos_embed" not in names and "transformer_blocks.1.attn2.to_v.weight" not in names
    values = json.loads((folder / "config.json").read_text())
    assert (values["_class_name"], values["channels"], values["groups"]) == ("SVDPTransformer", 4, 5)
    assert {name: values[name] for name in ("width", "layers", "heads", "dual_layers", "text_tokens")} == {
        "width": 32, "layers": 2, "heads": 2, "dual_layers": 1, "text_tokens": 3}
