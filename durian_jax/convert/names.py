"""Names of our parameters in the files of diffusers and transformers.

A network has a list of rules, tried in order: a pattern of our path, and their name. We number blocks across levels
(`down_resnets_3`), they number them within a level (`down_blocks.1.resnets.1`).

"Ours" and "theirs" refer to our parameters and to files of diffusers and transformers.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.unet.config import UNetConfig

Rule = tuple[str, str | Callable[[re.Match], str]]


@dataclass(frozen=True)
class Tensor:
    """One parameter under both names.

    Attributes:
        path: our path within the network: "conv_in/kernel".
        name: their name: "conv_in.weight".
        layout: "same", "linear" (ours (in, out), theirs (out, in)), "pointwise" (ours (in, out), theirs
            (out, in, 1, 1)) or "conv" (ours (h, w, in, out), theirs (out, in, h, w)).
    """

    path: str
    name: str
    layout: str

    def to_theirs(self, x: np.ndarray) -> np.ndarray:
        """Convert our array to their layout."""
        if self.layout == "linear":
            return x.T
        if self.layout == "pointwise":
            return x.T[:, :, None, None]
        return x.transpose(3, 2, 0, 1) if self.layout == "conv" else x

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        """Convert their array to our layout; the inverse of `to_theirs`."""
        if self.layout == "linear":
            return x.T
        if self.layout == "pointwise":
            return x[:, :, 0, 0].T
        return x.transpose(2, 3, 1, 0) if self.layout == "conv" else x

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Convert our shape to theirs."""
        return self.to_theirs(np.broadcast_to(np.zeros(()), shape)).shape


# Last component of our path -> last component of their name.
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "class_embedding": "class_embedding",
           "position_embedding": "position_embedding.weight", "group_embedding": "group_embedding"}


def name_map(paths: Iterable[tuple[str, int]], rules: list[Rule]) -> list[Tensor]:
    """Return the tensors of a network.

    Args:
        paths: our path within the network and number of axes of each parameter.
        rules: rules of the network.

    Raises:
        KeyError: a path that no rule matches.
    """
    tensors = []
    for path, axes in paths:
        module, _, leaf = path.rpartition("/")
        name = ".".join(part for part in (module_name(module, rules), _LEAVES[leaf]) if part)
        layout = "same"
        if leaf == "kernel":
            # Stable Diffusion 1.5 projects tokens with 1 x 1 convolutions.
            pointwise = re.fullmatch(r".*\battentions\.\d+\.proj_(in|out)", name.removesuffix(".weight"))
            layout = "conv" if axes == 4 else "pointwise" if pointwise else "linear"
        tensors.append(Tensor(path, name, layout))
    return tensors


def module_name(module: str, rules: list[Rule]) -> str:
    """Return their name of one of our modules, within the network.

    Raises:
        KeyError: no rule matches.
    """
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, module)
        if match:
            return match.expand(replacement) if isinstance(replacement, str) else replacement(match)
    raise KeyError(module)


# --- parts of the networks -----------------------------------------------------------------------------

_RESNET = r"(norm1|norm2|conv1|conv2|conv_shortcut|time_emb_proj)"


def _inside_transformer(module: str) -> str:
    """Convert a path within an attention site: "attn1/to_out" -> "transformer_blocks.0.attn1.to_out.0"."""
    if module in ("norm", "proj_in", "proj_out"):
        return module
    module = module.replace("/", ".").replace("ff.net_0", "ff.net.0.proj").replace("ff.net_2", "ff.net.2")
    return "transformer_blocks.0." + module.replace("to_out", "to_out.0")


def unet_rules(config: UNetConfig) -> list[Rule]:
    """Return the rules of UNet2DConditionModel and UNetMotionModel; MotionAdapter's tensors have the same names."""
    def block(match: re.Match, blocks: str, layers: int) -> str:
        """down_attentions_3/REST -> down_blocks.1.attentions.1.REST"""
        kind, number, rest = match["kind"], int(match["number"]), match["rest"]
        rest = rest if kind == "resnets" else _inside_transformer(rest)
        return f"{blocks}.{number // layers}.{kind}.{number % layers}.{rest}"

    def middle(match: re.Match) -> str:
        return f"mid_block.{match['kind']}s.0.{_inside_transformer(match['rest'])}"

    numbered = r"_(?P<kind>resnets|attentions|motion_modules)_(?P<number>\d+)/(?P<rest>.*)"
    return [
        (r"(conv_in|conv_norm_out|conv_out|position_embedding)", r"\1"),
        (r"time_embedding_([12])", r"time_embedding.linear_\1"),
        ("down" + numbered, lambda match: block(match, "down_blocks", config.layers)),
        ("up" + numbered, lambda match: block(match, "up_blocks", config.layers + 1)),
        (r"mid_resnet_([01])/" + _RESNET, r"mid_block.resnets.\1.\2"),
        (r"mid_(?P<kind>attention|motion_module)/(?P<rest>.*)", middle),
        (r"downsamplers_(\d+)/conv", r"down_blocks.\1.downsamplers.0.conv"),
        (r"upsamplers_(\d+)/conv", r"up_blocks.\1.upsamplers.0.conv"),
    ]


def mmdit_rules() -> list[Rule]:
    """Return the rules of SD3Transformer2DModel; parameters that it lacks have names of our own."""
    block, video = r"transformer_blocks.\1.", r"video_blocks.\1."
    return [
        (r"", ""),  # the group embedding
        (r"(mask_embedding|aligned_embedding|aligned_choice|stem_embedding|proj_out)", r"\1"),
        (r"(stem|retouch)/(conv_in|norm_out|conv_out|norm_shift|conv_shift|conv_shifted)", r"\1.\2"),
        (r"stem/resnet/" + _RESNET, r"stem.resnet.\1"),
        (r"retouch/resnets_(\d+)/" + _RESNET, r"retouch.resnets.\1.\2"),
        (r"norm_out/linear", "norm_out.linear"),
        (r"patch_embedding", "pos_embed.proj"),
        (r"text_embedding", "context_embedder"),
        (r"time_embedding_([12])", r"time_text_embed.timestep_embedder.linear_\1"),
        (r"pooled_embedding_([12])", r"time_text_embed.text_embedder.linear_\1"),
        (r"blocks_(\d+)/(norm1|norm1_context)/linear", block + r"\2.linear"),
        (r"blocks_(\d+)/(attn2?)/(to_[qkv]|norm_[qk])", block + r"\2.\3"),
        (r"blocks_(\d+)/(attn2?)_out", block + r"\2.to_out.0"),
        (r"blocks_(\d+)/attn_context/to_([qkv])", block + r"attn.add_\2_proj"),
        (r"blocks_(\d+)/attn_context/norm_([qk])", block + r"attn.norm_added_\2"),
        (r"blocks_(\d+)/attn_context_out", block + "attn.to_add_out"),
        (r"blocks_(\d+)/(ff|ff_context)/net_0", block + r"\2.net.0.proj"),
        (r"blocks_(\d+)/(ff|ff_context)/net_2", block + r"\2.net.2"),
        (r"video_blocks_(\d+)/norm/linear", video + "norm.linear"),
        (r"video_blocks_(\d+)/attn/(to_[qkv]|norm_[qk])", video + r"attn.\2"),
        (r"video_blocks_(\d+)/attn_out", video + "attn.to_out.0"),
    ]


def autoencoder_kl_rules(config: AutoencoderKLConfig) -> list[Rule]:
    """Return the rules of AutoencoderKL, whose decoder numbers levels from the latents outwards."""
    last = len(config.channels) - 1
    decoder_level = lambda match: str(last - int(match["level"]))
    return [
        (r"(quant_conv|post_quant_conv)", r"\1"),
        (r"(encoder|decoder)/(conv_in|conv_out)", r"\1.\2"),
        (r"(encoder|decoder)/norm_out", r"\1.conv_norm_out"),
        (r"(encoder|decoder)/mid/resnet_([01])/" + _RESNET, r"\1.mid_block.resnets.\2.\3"),
        (r"(encoder|decoder)/mid/attention/norm", r"\1.mid_block.attentions.0.group_norm"),
        (r"(encoder|decoder)/mid/attention/to_out", r"\1.mid_block.attentions.0.to_out.0"),
        (r"(encoder|decoder)/mid/attention/(to_[qkv])", r"\1.mid_block.attentions.0.\2"),
        (r"encoder/down_(\d+)_resnet_(\d+)/" + _RESNET, r"encoder.down_blocks.\1.resnets.\2.\3"),
        (r"encoder/downsampler_(\d+)", r"encoder.down_blocks.\1.downsamplers.0.conv"),
        (r"decoder/up_(?P<level>\d+)_resnet_(?P<i>\d+)/" + _RESNET,
         lambda match: f"decoder.up_blocks.{decoder_level(match)}.resnets.{match['i']}.{match[3]}"),
        (r"decoder/upsampler_(?P<level>\d+)/conv",
         lambda match: f"decoder.up_blocks.{decoder_level(match)}.upsamplers.0.conv"),
    ]


def autoencoder_tiny_rules(config: AutoencoderTinyConfig) -> list[Rule]:
    """Return the rules of AutoencoderTiny, which numbers all layers, also those without parameters."""
    places, number = {"encoder/conv_in": "encoder.layers.0", "decoder/conv_in": "decoder.layers.0"}, 1
    for level, blocks in enumerate(config.encoder_blocks):
        steps = [f"down_{level}"] if level else []
        for step in steps + [f"level_{level}_block_{i}" for i in range(blocks)]:
            places[f"encoder/{step}"] = f"encoder.layers.{number}"
            number += 1
    places["encoder/conv_out"], number = f"encoder.layers.{number}", 2  # a ReLU follows the decoder's first layer
    for level, blocks in enumerate(config.decoder_blocks):
        if level:
            places[f"decoder/up_{level}"] = f"decoder.layers.{number + 1}"  # the upsampling layer also has a number
            number += 2
        for i in range(blocks):
            places[f"decoder/level_{level}_block_{i}"] = f"decoder.layers.{number}"
            number += 1
    places["decoder/conv_out"] = f"decoder.layers.{number}"
    return [
        (r"(?P<block>.*_block_\d+)/conv(?P<i>[123])",
         lambda match: f"{places[match['block']]}.conv.{2 * (int(match['i']) - 1)}"),
        (r".*", lambda match: places[match[0]]),
    ]


def small_codec_rules(config: CodecConfig) -> list[Rule]:
    """Return the rules of `pytorch.small_codec.Codec`, which has our names."""
    return [(r".*", lambda match: match[0].replace("/", "."))]


def keypoint_encoder_rules() -> list[Rule]:
    """Return the rules of the keypoint encoder."""
    return [(r"blocks_(\d+)", r"blocks.\1"), (r"(conv_in|conv_out)", r"\1")]


def image_encoder_rules(config: ImageEncoderConfig) -> list[Rule]:
    """Return the rules of CLIPVisionModelWithProjection."""
    layer = r"vision_model.encoder.layers.\1."
    return [
        (r"", "vision_model.embeddings"),
        (r"patch_embedding", "vision_model.embeddings.patch_embedding"),
        (r"norm_in", "vision_model.pre_layrnorm"),
        (r"norm_out", "vision_model.post_layernorm"),
        (r"projection", "visual_projection"),
        (r"layers_(\d+)/to_out", layer + "self_attn.out_proj"),
        (r"layers_(\d+)/to_([qkv])", layer + r"self_attn.\2_proj"),
        (r"layers_(\d+)/norm([12])", layer + r"layer_norm\2"),
        (r"layers_(\d+)/mlp_([12])", layer + r"mlp.fc\2"),
    ]


CODEC_RULES = {AutoencoderKLConfig: autoencoder_kl_rules, AutoencoderTinyConfig: autoencoder_tiny_rules,
               CodecConfig: small_codec_rules}
