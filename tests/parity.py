"""Compare our networks with diffusers' and transformers' networks, on random weights that these libraries made.

    python -m tests.parity --width full --markdown docs/parity.md --json docs/parity.json

`make parity` runs this command; the test suite runs the same cases at small width. The relative error of a case is
|ours - theirs| / |theirs|, both as Euclidean norms over the whole output, in float32 on a CPU.
"""

import argparse
import gc
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AutoencoderKL as TorchAutoencoderKL
from diffusers import AutoencoderTiny as TorchAutoencoderTiny
from diffusers import UNet2DConditionModel, UNetMotionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from durian_jax.configs.durian import get_config
from durian_jax.convert import sizes
from durian_jax.convert.families.durian.network_maps import network_maps
from durian_jax.convert.names import Tensor
from durian_jax.files import write_json, write_text
from durian_jax.models.attention import KeyValues, ReferenceSet, reference_attention
from durian_jax.models.codecs.autoencoder_kl import AutoencoderKL, PixelAttention
from durian_jax.models.codecs.autoencoder_tiny import AutoencoderTiny, TinyBlock
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian
from durian_jax.models.durian.references import Condition, EncodedReferences, References
from durian_jax.models.image_encoder import EncoderLayer, ImageEncoder
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.layers import timestep_embedding
from durian_jax.models.parameters import param_shapes
from durian_jax.models.resnet import Downsample, ResnetBlock, Upsample
from durian_jax.models.unet.config import UNetConfig
from durian_jax.models.unet.motion import MotionModule
from durian_jax.models.unet.transformer import SpatialTransformer
from durian_jax.models.unet.unet import UNet
from tests.helpers.parity import apply, first, inside, last, make, our_params, perturbed
from tests.sd3_parity import SD3Parity

# Largest relative error in float32 of a block and of a network.
LIMITS = {"block": 2e-5, "network": 1e-4}

_SMALL_KL = AutoencoderKLConfig(channels=(8, 16), layers=1, norm_groups=4)
_SMALL_TINY = AutoencoderTinyConfig(channels=8, encoder_blocks=(1, 2), decoder_blocks=(2, 1))
_SMALL_CLIP = ImageEncoderConfig(channels=16, layers=2, heads=2, mlp_channels=32, image_size=28, projection=24)
_SMALL_UNET = UNetConfig(channels=(16, 32, 32), layers=2, attention=(True, True, False), heads=(2, 2, 2),
                         context_dim=24, feedforward_multiplier=4, norm_groups=8, positions=False)

CONFIGS = {
    "small": DurianConfig(image_size=32, max_frames=8, unet=_SMALL_UNET, codec=_SMALL_KL, image_encoder=_SMALL_CLIP,
                          keypoint_patch=1, keypoint_channels=(8,), temporal_heads=2),
    "full": replace(DurianConfig.from_dict(get_config("sd15,stage=1").model.to_dict()), image_size=256,
                    dtype="float32"),
}
TINY_CODECS = {"small": _SMALL_TINY, "full": AutoencoderTinyConfig()}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    family: str
    scope: str
    max_abs_error: float
    relative_error: float
    dtype: str
    width: str


class Parity:
    """The networks of both libraries with the same random weights, at one width, and the cases that compare them.

    Args:
        width: "small" or "full".
    """

    def __init__(self, width: str):
        self.width, self.config = width, CONFIGS[width]
        self.rng = np.random.default_rng(0)
        torch.manual_seed(0)
        self._maps = _network_maps(self.config)
        # h = w of the latents, and frames per clip.
        self.side, self.frames = (8, 3) if width == "small" else (16, 2)

    # --- networks of both libraries -------------------------------------------------------------------

    @cached_property
    def motion_unet(self) -> tuple[UNetMotionModel, dict]:
        """UNetMotionModel, and our denoiser's parameters."""
        unet, motion = self._unet_json(), sizes.motion_json(
            self.config.unet, self.config.temporal_heads, self.config.max_frames)
        common = ("in_channels", "out_channels", "block_out_channels", "layers_per_block", "cross_attention_dim",
                  "norm_num_groups")
        model = UNetMotionModel(
            **{name: unet[name] for name in common}, num_attention_heads=unet["attention_head_dim"],
            down_block_types=tuple(t.replace("2D", "Motion") for t in unet["down_block_types"]),
            up_block_types=tuple(t.replace("2D", "Motion") for t in unet["up_block_types"]),
            motion_num_attention_heads=motion["motion_num_attention_heads"],
            motion_max_seq_length=motion["motion_max_seq_length"])
        return perturbed(model), self._ours(model, [*self._maps["denoiser"], *self._maps["motion"]], "denoiser")

    @cached_property
    def unet(self) -> tuple[UNet2DConditionModel, dict]:
        """UNet2DConditionModel, and our denoiser's parameters without motion modules."""
        model = perturbed(make(UNet2DConditionModel, self._unet_json()))
        return model, self._ours(model, self._maps["denoiser"], "denoiser")

    def reference_unet(self, network: str) -> tuple[UNet2DConditionModel, dict]:
        """UNet2DConditionModel with a mask's channel, and our ReferenceNet's parameters."""
        model = perturbed(make(UNet2DConditionModel, self._unet_json(extra_channels=1)))
        return model, self._ours(model, self._maps[network], network)

    @cached_property
    def autoencoder_kl(self) -> tuple[TorchAutoencoderKL, dict]:
        model = perturbed(make(TorchAutoencoderKL, sizes.codec_json(self.config.codec, self.config.image_size)))
        return model, self._ours(model, self._maps["codec"], "codec")

    @cached_property
    def autoencoder_tiny(self) -> tuple[TorchAutoencoderTiny, dict]:
        side = 2 ** len(TINY_CODECS[self.width].encoder_blocks) * self.config.unet.channels[-1]
        config = DurianConfig(
            image_size=side, unet=_SMALL_UNET, codec=TINY_CODECS[self.width], keypoint_patch=1, temporal_heads=2,
            keypoint_channels=(8,) * (len(TINY_CODECS[self.width].encoder_blocks) - 1))
        model = perturbed(make(TorchAutoencoderTiny, sizes.codec_json(config.codec, side)))
        return model, self._ours(model, _network_maps(config)["codec"], "codec")

    @cached_property
    def clip(self) -> tuple[CLIPVisionModelWithProjection, dict]:
        values = sizes.image_encoder_json(self.config.image_encoder)
        values = {name: value for name, value in values.items() if name not in ("architectures", "model_type")}
        # Plain attention, not a fused one: the case compares the network's definition.
        model = perturbed(CLIPVisionModelWithProjection(CLIPVisionConfig(**values, attn_implementation="eager")))
        return model, self._ours(model, self._maps["image_encoder"], "image_encoder")

    def _unet_json(self, extra_channels: int = 0) -> dict:
        return sizes.unet_json(self.config.unet, self.config.codec.latent_channels, self.config.latent_size,
                               extra_channels)

    def _ours(self, model: torch.nn.Module, tensors: list[Tensor], network: str) -> dict:
        return our_params(model.state_dict(), tensors, f"{network}/")

    def random(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    # --- cases ----------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Measure every case. A network is deleted after its cases, to save memory."""
        for cases, networks in ((self.unet_cases, ("unet",)), (self.motion_cases, ("motion_unet",)),
                                (self.kl_cases, ("autoencoder_kl",)), (self.tiny_cases, ("autoencoder_tiny",)),
                                (self.clip_cases, ("clip",)), (self.reference_cases, ("unet",)),
                                (SD3Parity(self.width, self.rng).cases, ())):
            for name, family, scope, theirs, ours in cases():
                yield self._row(name, family, scope, theirs, ours)
            for network in networks:
                self.__dict__.pop(network, None)
            gc.collect()

    def _row(self, name: str, family: str, scope: str, theirs: torch.Tensor, ours: jax.Array) -> Row:
        theirs, ours = theirs.detach().numpy().astype(np.float64), np.asarray(ours, np.float64)
        if theirs.shape != ours.shape:
            raise ValueError(f"{name}: theirs has shape {theirs.shape}, ours {ours.shape}")
        difference = ours - theirs
        return Row(name, family, scope, float(abs(difference).max()),
                   float(np.linalg.norm(difference) / np.linalg.norm(theirs)), "float32", self.width)

    def unet_cases(self) -> Iterator[tuple]:
        model, params = self.unet
        cfg, (b, side) = self.config.unet, (2, self.side)
        time_code = self.random(b, 4 * cfg.channels[0])
        steps = np.array([0.0, 17.0, 999.0], np.float32)
        yield ("timestep code and embedding", "unet", "block",
               model.time_embedding(model.time_proj(torch.tensor(steps))),
               apply(lambda m, x: m.time_embedding_2(jax.nn.silu(m.time_embedding_1(
                   timestep_embedding(x, cfg.channels[0])))), params, steps, module=UNet(cfg, 4)))
        for level in range(len(cfg.channels)):
            number, width = level * cfg.layers, cfg.channels[level]
            x = self.random(b, cfg.channels[max(level - 1, 0)], side, side)
            resnet = ResnetBlock(width, cfg.norm_groups)
            yield (f"residual block of level {level}", "unet", "block",
                   model.down_blocks[level].resnets[0](torch.tensor(x), torch.tensor(time_code)),
                   first(apply(resnet, inside(params, f"down_resnets_{number}"), last(x), time_code)))
            if cfg.attention[level]:
                x, context = self.random(b, width, side, side), self.random(b, 1, cfg.context_dim)
                site = SpatialTransformer(width, cfg.heads[level], cfg.norm_groups, False, True, 4)
                yield (f"attention of level {level}", "unet", "block",
                       model.down_blocks[level].attentions[0](torch.tensor(x), torch.tensor(context)).sample,
                       first(apply(lambda m, x, c: m(x, 1, context=c)[0],
                                     inside(params, f"down_attentions_{number}"), last(x), context, module=site)))
        x = self.random(b, cfg.channels[0], side, side)
        yield ("downsampling", "unet", "block", model.down_blocks[0].downsamplers[0](torch.tensor(x)),
               first(apply(Downsample(cfg.channels[0]), inside(params, "downsamplers_0"), last(x))))
        x = self.random(b, cfg.channels[-1], side, side)
        yield ("upsampling", "unet", "block", model.up_blocks[0].upsamplers[0](torch.tensor(x)),
               first(apply(Upsample(cfg.channels[-1]), inside(params, "upsamplers_0"), last(x))))
        x, context = self.random(b, 4, side, side), self.random(b, 3, cfg.context_dim)
        steps = np.array([3.0, 801.0], np.float32)
        yield ("UNet2DConditionModel", "unet", "network",
               model(torch.tensor(x), torch.tensor(steps), torch.tensor(context)).sample,
               first(apply(lambda m, x, t, c: m(x[:, None], t[:, None], context=c)[0][:, 0], params, last(x), steps,
                             context, module=UNet(cfg, 4))))

    def motion_cases(self) -> Iterator[tuple]:
        model, params = self.motion_unet
        cfg, side, f = self.config.unet, self.side, self.frames
        modules = [(f"motion module of level {level}", model.down_blocks[level].motion_modules[1], width,
                    f"down_motion_modules_{level * cfg.layers + 1}") for level, width in enumerate(cfg.channels)]
        modules.append(("motion module in the middle", model.mid_block.motion_modules[0], cfg.channels[-1],
                        "mid_motion_module"))
        for name, theirs, width, path in modules:
            x = self.random(2 * f, width, side, side)
            ours = MotionModule(self.config.temporal_heads, cfg.norm_groups)
            yield (name, "motion", "block", theirs(torch.tensor(x), num_frames=f),
                   first(apply(lambda m, x: m(x, f), inside(params, path), last(x), module=ours)))
        x, context = self.random(2, 4, f, side, side), self.random(2, 3, cfg.context_dim)
        steps = np.array([3.0, 801.0], np.float32)
        ours = apply(lambda m, x, t, c: m(x, t, context=c, temporal=True)[0], params, x.transpose(0, 2, 3, 4, 1),
                      np.repeat(steps[:, None], f, 1), context, module=UNet(cfg, 4, self.config.temporal_heads))
        yield ("UNetMotionModel", "motion", "network",
               model(torch.tensor(x), torch.tensor(steps), torch.tensor(context).repeat_interleave(f, 0)
                     ).sample.permute(0, 2, 3, 4, 1), ours)

    def kl_cases(self) -> Iterator[tuple]:
        model, params = self.autoencoder_kl
        cfg = self.config.codec
        family, side = "autoencoder_kl", self.side * cfg.downscale
        x = self.random(1, cfg.channels[0], side, side)
        yield ("residual block", family, "block", model.encoder.down_blocks[0].resnets[0](torch.tensor(x), None),
               first(apply(ResnetBlock(cfg.channels[0], cfg.norm_groups, epsilon=1e-6),
                             inside(params, "encoder/down_0_resnet_0"), last(x))))
        x = self.random(1, cfg.channels[-1], self.side, self.side)
        yield ("attention in the middle", family, "block", model.decoder.mid_block.attentions[0](torch.tensor(x)),
               first(apply(PixelAttention(cfg.norm_groups), inside(params, "decoder/mid/attention"), last(x))))
        images = self.rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
        latents = self.random(2, cfg.latent_channels, self.side, self.side)
        module = AutoencoderKL(cfg)
        yield ("AutoencoderKL, encoding", family, "network",
               model.encode(torch.tensor(images)).latent_dist.mode() * cfg.scaling_factor,
               first(apply(lambda m, x: m.encode(x), params, last(images), module=module)))
        yield ("AutoencoderKL, decoding", family, "network",
               model.decode(torch.tensor(latents) / cfg.scaling_factor).sample,
               first(apply(lambda m, x: m.decode(x), params, last(latents), module=module)))

    def tiny_cases(self) -> Iterator[tuple]:
        model, params = self.autoencoder_tiny
        cfg = TINY_CODECS[self.width]
        family, side = "autoencoder_tiny", self.side * cfg.downscale
        x = self.random(1, cfg.channels, side, side)
        yield ("residual block", family, "block", model.encoder.layers[1](torch.tensor(x)),
               first(apply(TinyBlock(cfg.channels), inside(params, "encoder/level_0_block_0"), last(x))))
        images = self.rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
        latents = self.random(2, cfg.latent_channels, self.side, self.side)
        module = AutoencoderTiny(cfg)
        yield ("AutoencoderTiny, encoding", family, "network", model.encode(torch.tensor(images)).latents,
               first(apply(lambda m, x: m.encode(x), params, last(images), module=module)))
        yield ("AutoencoderTiny, decoding", family, "network", model.decode(torch.tensor(latents)).sample,
               first(apply(lambda m, x: m.decode(x), params, last(latents), module=module)))

    def clip_cases(self) -> Iterator[tuple]:
        model, params = self.clip
        cfg = self.config.image_encoder
        tokens = self.random(2, 1 + (cfg.image_size // cfg.patch) ** 2, cfg.channels)
        theirs = model.vision_model.encoder.layers[0](torch.tensor(tokens), None)
        yield ("transformer layer", "clip", "block", theirs[0] if isinstance(theirs, tuple) else theirs,
               apply(EncoderLayer(cfg), inside(params, "layers_0"), tokens))
        images = self.random(2, 3, cfg.image_size, cfg.image_size)
        yield ("CLIPVisionModelWithProjection", "clip", "network", model(torch.tensor(images)).image_embeds,
               apply(ImageEncoder(cfg), params, last(images)))

    def reference_cases(self) -> Iterator[tuple]:
        b, f, g, n, s, h, d = 2, self.frames, 3, self.side**2, self.side**2, 8, 40
        q, k, v = (self.random(b, f, n, h, d) for _ in range(3))
        rk, rv = (self.random(b, g, s, h, d) for _ in range(2))
        valid = np.array([[[True, True, False]], [[True, False, True]]])
        references = KeyValues(rk.reshape(b, g * s, h, d), rv.reshape(b, g * s, h, d), (s,) * g)
        ours = jax.jit(reference_attention)(q, k, v, references, ReferenceSet(
            jnp.asarray(valid), jnp.ones((b, 1, 1)), jnp.asarray(valid[:, :, 1:])))
        yield ("attention over frame and references", "reference_attention", "block",
               _plain_reference_attention(q, k, v, rk, rv, valid[:, 0]), ours)
        yield ("dual-reference denoising", "reference_attention", "network", *self._dual_reference())

    def _dual_reference(self) -> tuple[torch.Tensor, jax.Array]:
        """DNet, ARNet and PRNet with two attributes, against three diffusers U-Nets with plainly written attention."""
        cfg, side, f, a = self.config, self.side, self.frames, 2
        latents, keypoints = self.random(1, f, side, side, 4), self.random(1, f, side, side, cfg.unet.channels[0])
        portrait, attributes = self.random(1, side, side, 4), self.random(1, a, side, side, 4)
        masks = (self.rng.random((1, 1 + a, side, side, 1)) > 0.5).astype(np.float32)
        embeddings = self.random(1, 1 + a, cfg.unet.context_dim)
        steps = np.full((1, f), 500.0, np.float32)

        params, features = {}, []
        inputs = np.concatenate([np.concatenate([portrait[:, None], attributes], 1), masks], -1)[0]
        for network, part in (("portrait_reference", slice(0, 1)), ("attribute_reference", slice(1, None))):
            model, ours = self.reference_unet(network)
            params |= {f"{network}/{path}": x for path, x in ours.items()}
            x = torch.tensor(first(inputs[part]))
            features.append(_recorded_features(model, x, torch.tensor(embeddings[0, part])[:, None]))
            del model, ours
            gc.collect()
        # One array (1, G * N, C) per attention site: the portrait, then the attributes.
        sites = {name: torch.cat([x[name].reshape(1, -1, x[name].shape[-1]) for x in features], 1)
                 for name in features[0]}
        # Two calls, each with its own parameters: all three networks at once would not fit into memory.
        encoded = EncodedReferences(portrait, masks[:, 0], attributes, masks[:, 1:], embeddings[:, 0],
                                    embeddings[:, 1:])
        ours_features = apply(lambda m: m.reference_features(encoded), params, module=cfg.create())
        params.clear()

        model, ours = self.unet
        # The keypoints' features are added to the first convolution's features.
        bias = torch.tensor(first(keypoints[0]))
        hook = model.conv_in.register_forward_hook(lambda module, args, output: output + bias)
        processors = {name: _ReferenceProcessor(sites[name]) if name in sites else processor
                      for name, processor in model.attn_processors.items()}
        model.set_attn_processor(processors)
        context = torch.tensor(embeddings[:, 1:]).expand(f, -1, -1)
        theirs = model(torch.tensor(first(latents[0])), torch.tensor(steps[0]), context).sample
        hook.remove()

        def run(m: Durian, features):
            references = References(m.denoiser.project_references(features), embeddings[:, 1:])
            return m.denoise(latents, steps, Condition(keypoints, references, m.select(jnp.ones((1, a)))))
        params = {f"denoiser/{path}": x for path, x in ours.items()}
        return theirs.permute(0, 2, 3, 1)[None], apply(run, params, ours_features, module=cfg.create())


# --- plain PyTorch transcriptions ---------------------------------------------------------------------

def _plain_reference_attention(q, k, v, rk, rv, valid) -> torch.Tensor:
    """The paper's SA for every frame: softmax(Q [K, K_port, K_attr]^T / sqrt(d)) [V, V_port, V_attr]."""
    q, k, v, rk, rv = map(torch.tensor, (q, k, v, rk, rv))
    out = torch.zeros_like(q)
    for i in range(q.shape[0]):
        chosen = [j for j in range(rk.shape[1]) if valid[i, j]]
        for t in range(q.shape[1]):
            for head in range(q.shape[3]):
                keys = torch.cat([k[i, t, :, head], *(rk[i, j, :, head] for j in chosen)])
                values = torch.cat([v[i, t, :, head], *(rv[i, j, :, head] for j in chosen)])
                weights = torch.softmax(q[i, t, :, head] @ keys.T / q.shape[-1] ** 0.5, -1)
                out[i, t, :, head] = weights @ values
    return out


class _ReferenceProcessor:
    """diffusers' attention processor of a self-attention that also attends to reference tokens (1, S, C)."""

    def __init__(self, references: torch.Tensor):
        self.references = references

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **unused):
        frames, n, c = hidden_states.shape
        everything = torch.cat([hidden_states, self.references.expand(frames, -1, -1)], 1)
        heads = lambda x: x.reshape(frames, -1, attn.heads, c // attn.heads).transpose(1, 2)
        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(everything)), heads(attn.to_v(everything))
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        return attn.to_out[0]((weights @ v).transpose(1, 2).reshape(frames, n, c))


def _recorded_features(model: UNet2DConditionModel, x: torch.Tensor, context: torch.Tensor) -> dict[str, torch.Tensor]:
    """Processor name -> input of this self-attention of a U-Net at timestep 0."""
    recorded, hooks = {}, []
    for name, module in model.named_modules():
        if re.fullmatch(r".*\.attn1", name):
            hooks.append(module.register_forward_pre_hook(
                lambda module, args, kwargs, name=name: recorded.__setitem__(
                    f"{name}.processor", args[0] if args else kwargs["hidden_states"]), with_kwargs=True))
    model(x, torch.zeros(x.shape[0]), context)
    for hook in hooks:
        hook.remove()
    return recorded


# --- helpers ------------------------------------------------------------------------------------------

def _network_maps(config: DurianConfig) -> dict[str, list[Tensor]]:
    return network_maps(config, {path: x.shape for path, x in param_shapes(config).items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", choices=sorted(CONFIGS), default="small")
    parser.add_argument("--markdown", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    began = time.monotonic()
    head = f"{'case':50s} {'family':20s} {'scope':8s} {'max abs':>9s} {'relative':>9s}"
    print(head, flush=True)
    rows = []
    with torch.no_grad():
        for row in Parity(arguments.width).rows():
            rows.append(row)
            print(f"{row.name:50s} {row.family:20s} {row.scope:8s} {row.max_abs_error:9.1e} {row.relative_error:9.1e}",
                  flush=True)
    if not all(row.relative_error < LIMITS[row.scope] for row in rows):
        raise SystemExit("an error is above its limit")
    seconds = time.monotonic() - began
    versions = {name: version(name) for name in ("jax", "flax", "torch", "diffusers", "transformers")}
    if arguments.json:
        write_json(arguments.json, {"rows": [asdict(row) for row in rows], "limits": LIMITS, "versions": versions})
    if arguments.markdown:
        write_text(arguments.markdown, markdown(rows, versions, seconds))


def markdown(rows: list[Row], versions: dict[str, str], seconds: float) -> str:
    """The committed table."""
    lines = ["# Parity with PyTorch", "",
             "Ours beside diffusers' and transformers' networks on random weights that those libraries made, at Stable "
             "Diffusion 1.5's and 3.5 Medium's width." if rows[0].width == "full" else "Ours at small width.",
             "Relative error: |ours - theirs| / |theirs|, Euclidean norms over the whole output. Limits: "
             f"{LIMITS['block']:.0e} for a block, {LIMITS['network']:.0e} for a network.", "",
             "Made by `make parity` (`python -m tests.parity --width full --markdown docs/parity.md --json "
             f"docs/parity.json`) in {seconds / 60:.0f} minutes on {platform.machine()}, CPU, Python "
             f"{platform.python_version()}, " + ", ".join(f"{name} {v}" for name, v in versions.items()) + ".", "",
             "| case | family | scope | max abs error | relative error | dtype |", "|---|---|---|---|---|---|"]
    lines += [f"| {row.name} | {row.family} | {row.scope} | {row.max_abs_error:.1e} | {row.relative_error:.1e} | "
              f"{row.dtype} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
