"""Cases of `tests.parity` for Stable Diffusion 3.5: its transformer, whole canvases of SVDP, and its autoencoder."""

import gc
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AutoencoderKL as TorchAutoencoderKL
from diffusers import SD3Transformer2DModel
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.embeddings import PatchEmbed
from flax.traverse_util import flatten_dict

from durian_jax.convert import sizes
from durian_jax.convert.families.svdp.network_maps import network_maps
from durian_jax.convert.names import autoencoder_kl_rules, mmdit_rules, name_map
from durian_jax.models.codecs.autoencoder_kl import AutoencoderKL
from durian_jax.models.codecs.config import AutoencoderKLConfig
from durian_jax.models.mmdit.blocks import JointBlock
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.mmdit.mmdit import MMDiT, Place
from durian_jax.models.parameters import param_shapes
from durian_jax.models.svdp.config import SVDPConfig
from tests.helpers.parity import apply, first, last, make, our_params, perturbed

# Stable Diffusion 3.5's position table as diffusers makes it: i * (sample_size / patch) / canvas_size.
_SAMPLE_SIZE = {"small": 8, "full": 128}

CONFIGS = {
    "small": SVDPConfig(
        image_size=16, mode="joint", driving_capacity=1.0,
        codec=AutoencoderKLConfig((8, 16), 1, 16, 4, 1.5305, 0.0609, quant_conv=False),
        mmdit=MMDiTConfig(width=32, layers=3, heads=2, dual_layers=2, positions="canvas", canvas_size=24,
                          canvas_step=4 / 24, text_dim=24, text_tokens=5, pooled_dim=12, time_rotation=4)),
    "full": SVDPConfig(
        image_size=128, mode="joint", driving_capacity=1.0,
        codec=AutoencoderKLConfig((128, 256, 512, 512), 2, 16, 32, 1.5305, 0.0609, quant_conv=False),
        mmdit=MMDiTConfig(width=1536, layers=24, heads=24, dual_layers=13, positions="canvas", canvas_size=384,
                          canvas_step=64 / 384, text_dim=4096, text_tokens=128, pooled_dim=2048, time_rotation=16)),
}


class SD3Parity:
    """The cases at one width.

    Args:
        width: "small" or "full".
        rng: of the inputs.
    """

    def __init__(self, width: str, rng: np.random.Generator):
        self.config, self.rng, self.sample_size = CONFIGS[width], rng, _SAMPLE_SIZE[width]

    def cases(self) -> Iterator[tuple]:
        """Yield name, family, scope, their output and ours."""
        yield from self.block_cases()
        yield from self.network_cases()
        gc.collect()
        yield from self.codec_cases()

    def random(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def block_cases(self) -> Iterator[tuple]:
        cfg, n = self.config.mmdit, 10
        for name, dual, final in (("joint block", False, False), ("joint block with two attentions", True, False),
                                  ("last joint block", False, True)):
            theirs = perturbed(JointTransformerBlock(cfg.width, cfg.heads, cfg.head_width, context_pre_only=final,
                                                     qk_norm="rms_norm", use_dual_attention=dual))
            ours = JointBlock(cfg, dual, True, final)
            x, text, code = self.random(2, 1, n, cfg.width), self.random(2, 1, 1, cfg.width), self.random(
                2, 1, cfg.width)
            params = _block_params(ours, theirs, x, text, code)
            run = lambda m, *inputs: jnp.concatenate([y for y in m(*inputs)[:2] if y is not None], 2)[:, 0]
            texts, images = theirs(torch.tensor(x[:, 0]), torch.tensor(text[:, 0]).expand(-1, cfg.text_tokens, -1),
                                   torch.tensor(code[:, 0]))
            found = torch.cat([images, *([] if texts is None else [texts[:, :1]])], 1)
            yield (name, "mmdit", "block", found, apply(run, params, x, text, code, module=ours))
        rows, columns, channels = 4, 6, self.config.codec.latent_channels
        patches = perturbed(PatchEmbed(self.sample_size, self.sample_size, cfg.patch, channels, cfg.width,
                                       pos_embed_max_size=cfg.canvas_size))
        latents = self.random(2, channels, rows * cfg.patch, columns * cfg.patch)
        state = {f"pos_embed.{name}": x for name, x in patches.state_dict().items()}
        params = our_params(state, name_map([("patch_embedding/kernel", 4), ("patch_embedding/bias", 1)],
                                            mmdit_rules())) | _without_effect(self.config)
        yield ("patches with positions", "mmdit", "block", patches(torch.tensor(latents)),
               apply(lambda m, x: m.embed(x[:, None], [Place(0, 0, 0)]).tokens[:, 0], params, last(latents),
                     module=MMDiT(cfg, channels, 5)))

    def network_cases(self) -> Iterator[tuple]:
        """One picture, and a canvas [source | noisy frame | driver], through diffusers' unmodified class."""
        cfg, channels, f, h = self.config.mmdit, self.config.codec.latent_channels, 2, self.config.latent_size
        noisy, source, driving = self.random(f, channels, h, h), self.random(1, channels, h, h), self.random(
            f, channels, h, h)
        times = np.array([17.0, 801.0], np.float32)
        model = perturbed(make(SD3Transformer2DModel, sizes.mmdit_json(cfg, channels, self.sample_size)))
        nothing = torch.zeros(f, cfg.text_tokens, cfg.text_dim), torch.zeros(f, cfg.pooled_dim)
        canvas = np.concatenate([source.repeat(f, 0), noisy, driving], -1)
        alone, canvas = (model(torch.tensor(x), *nothing, torch.tensor(times)).sample for x in (noisy, canvas))
        state = model.state_dict()
        del model
        shapes = {path: x.shape for path, x in param_shapes(self.config).items() if "video_blocks" not in path}
        tensors = [tensor for tensor in network_maps(self.config, shapes)["transformer"] if tensor.name in state]
        params = our_params(state, tensors, "transformer/") | _without_effect(self.config)
        assert set(state) == {"pos_embed.pos_embed"}, "every tensor of theirs is used"

        def of_picture(m: MMDiT, x, times):
            side = (h // cfg.patch,) * 2
            return m(m.embed(x[None], [Place(0, 0, 0)]), times[None], side)[0]
        yield ("SD3Transformer2DModel", "mmdit", "network", alone, first(apply(
            of_picture, params, last(noisy), times, module=MMDiT(cfg, channels, 5))))

        def of_canvas(m, source, noisy, driving, times):
            whole = jnp.ones((1, f, h, h, 1))
            condition = m.condition({
                "portrait_latents": source, "portrait_mask": whole[:, 0], "attribute_latents": source[:, None][:, :0],
                "attribute_masks": whole[:, :0], "attribute_valid": jnp.ones((1, 0)),
                "driving_latents": driving[None], "driving_masks": whole})
            return m.denoise(noisy[None], times[None], condition)[0]
        params = {f"transformer/{path}": x for path, x in params.items()}
        yield ("SD3Transformer2DModel of source, frame and driver", "mmdit", "network", canvas[..., h:2 * h], first(
            apply(of_canvas, params, last(source), last(noisy), last(driving), times, module=self.config.create())))

    def codec_cases(self) -> Iterator[tuple]:
        cfg = self.config.codec
        model = perturbed(make(TorchAutoencoderKL, sizes.codec_json(cfg, self.config.image_size)))
        shapes = {path.removeprefix("codec/"): x.shape for path, x in param_shapes(self.config).items()
                  if path.startswith("codec/")}
        params = our_params(model.state_dict(), name_map([(path, len(x)) for path, x in shapes.items()],
                                                         autoencoder_kl_rules(cfg)))
        side = self.config.image_size
        images = self.rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
        latents = self.random(2, cfg.latent_channels, *[self.config.latent_size] * 2)
        module = AutoencoderKL(cfg)
        scale, shift = model.config.scaling_factor, model.config.shift_factor
        yield ("AutoencoderKL of 16 channels, encoding", "autoencoder_kl", "network",
               (model.encode(torch.tensor(images)).latent_dist.mode() - shift) * scale,
               first(apply(lambda m, x: m.encode(x), params, last(images), module=module)))
        yield ("AutoencoderKL of 16 channels, decoding", "autoencoder_kl", "network",
               model.decode(torch.tensor(latents) / scale + shift).sample,
               first(apply(lambda m, x: m.decode(x), params, last(latents), module=module)))


def _block_params(ours: JointBlock, theirs: JointTransformerBlock, *inputs: np.ndarray) -> dict[str, jax.Array]:
    """Our block's parameters from theirs, all of which are used."""
    tree = jax.eval_shape(lambda: ours.init(jax.random.key(0), *inputs))["params"]
    paths = [(f"blocks_0/{path}", x.value.ndim) for path, x in flatten_dict(tree, sep="/").items()]
    state = {f"transformer_blocks.0.{name}": x for name, x in theirs.state_dict().items()}
    params = our_params(state, name_map(paths, mmdit_rules()), "blocks_0/")
    assert not state, "every tensor of theirs is used"
    return params


def _without_effect(config: SVDPConfig) -> dict[str, jax.Array]:
    """Parameters that only we have, as an import leaves them."""
    shapes = {path.removeprefix("transformer/"): x.shape for path, x in param_shapes(config).items()}
    return {path: jnp.zeros(shapes[path]) for path in ("group_embedding", "mask_embedding/kernel")}
