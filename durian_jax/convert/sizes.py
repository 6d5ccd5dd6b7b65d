"""Conversion between config.json of diffusers and transformers and our sizes. Imports no jax.

Values that our networks do not support are refused; the error lists the fields.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from typing import Annotated, Any

from durian_jax.diffusion import Objective
from durian_jax.diffusion.schedule import TIMESTEPS
from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.fields import (
    LEVELS,
    FieldError,
    FrameCount,
    Groups,
    Heads,
    Items,
    Layers,
    Patch,
    Width,
    check_value,
    in_file,
)
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.unet.config import UNetConfig

# Fields with one supported value; a file may leave them out.
_UNET_FIXED = {
    "act_fn": "silu", "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "center_input_sample": False, "only_cross_attention": False,
    "dual_cross_attention": False, "use_linear_projection": False, "transformer_layers_per_block": 1,
    "resnet_time_scale_shift": "default", "time_embedding_type": "positional", "class_embed_type": None,
    "addition_embed_type": None, "encoder_hid_dim": None, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}
_MOTION_FIXED = {
    "motion_transformer_layers_per_block": 1, "motion_mid_block_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1, "conv_in_channels": None,
}
_KL_FIXED = {"act_fn": "silu", "in_channels": 3, "out_channels": 3, "mid_block_add_attention": True,
             "latents_mean": None}
_TINY_FIXED = {"act_fn": "relu", "in_channels": 3, "out_channels": 3, "upsample_fn": "nearest",
               "upsampling_scaling_factor": 2}
_CLIP_FIXED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_channels": 3}


def _reads(function: Callable) -> Callable:
    """Name the file, which is the last argument, in errors of its fields."""
    @wraps(function)
    def named(*arguments):
        with in_file(arguments[-1], "is it the config.json of this part?"):
            return function(*arguments)
    return named


@_reads
def unet_config(values: dict[str, Any], origin: str) -> UNetConfig:
    """Read the sizes from UNet2DConditionModel's config.json.

    Args:
        values: the parsed file.
        origin: name of the file, for errors.

    Raises:
        InputError: a U-Net unlike Stable Diffusion 1.5's; lists every field that does not fit.
    """
    down, up = (_field(values, name, _Kinds) for name in ("down_block_types", "up_block_types"))
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in down)
    expected = {"down_block_types": _down_types(attention), "up_block_types": _up_types(attention)}
    _check({**values, "down_block_types": down, "up_block_types": up}, {**_UNET_FIXED, **expected}, origin)
    channels = _field(values, "block_out_channels", _Channels)
    named = "num_attention_heads" if values.get("num_attention_heads") else "attention_head_dim"
    if any(isinstance(values.get(name), list) for name in (named, "layers_per_block")):
        raise InputError(f"{origin}: expected one number of heads and of layers_per_block for all levels, found "
                         f"{shown(values.get(named))} and {shown(values.get('layers_per_block'))}; only U-Nets like "
                         "Stable Diffusion 1.5's can be imported")
    heads, layers = _field(values, named, Heads), _field(values, "layers_per_block", Layers)
    return UNetConfig(channels=channels, layers=layers, attention=attention, heads=(heads,) * len(channels),
                      context_dim=_field(values, "cross_attention_dim", Width), feedforward_multiplier=4,
                      norm_groups=_field(values, "norm_num_groups", Groups), positions=False)


def beyond_diffusers(unet: UNetConfig) -> list[str]:
    """Return the fields that diffusers' classes do not support; []: the U-Net fits these classes."""
    return [name for name, wrong in (
        ("positions", unet.positions), ("context_dim=None", unet.context_dim is None),
        ("feedforward_multiplier", unet.feedforward_multiplier != 4), ("heads", len(set(unet.heads)) > 1)) if wrong]


def unet_json(unet: UNetConfig, latent_channels: int, latent_size: int, extra_channels: int = 0) -> dict[str, Any]:
    """Return UNet2DConditionModel's config.json; the inverse of `unet_config`.

    Args:
        latent_channels: c.
        latent_size: h = w.
        extra_channels: number of input channels besides the latents (a ReferenceNet's mask).

    Raises:
        InputError: sizes that the class does not support.
    """
    problems = beyond_diffusers(unet)
    if problems:
        raise InputError(f"UNet2DConditionModel cannot have this model's {', '.join(problems)}; only models of Stable "
                         "Diffusion 1.5's layout are written for it")
    return {
        "_class_name": "UNet2DConditionModel", **_UNET_FIXED, "sample_size": latent_size,
        "in_channels": latent_channels + extra_channels, "out_channels": latent_channels,
        "down_block_types": _down_types(unet.attention), "up_block_types": _up_types(unet.attention),
        "block_out_channels": unet.channels, "layers_per_block": unet.layers, "attention_head_dim": unet.heads[0],
        "cross_attention_dim": unet.context_dim, "norm_num_groups": unet.norm_groups,
    }


def motion_unet_json(config: UNetConfig, latent_channels: int, latent_size: int, temporal_heads: int, max_frames: int
                     ) -> dict[str, Any]:
    """Return UNetMotionModel's config.json: the denoiser with its motion modules.

    Raises:
        InputError: sizes that the class does not support.
    """
    unet = unet_json(config, latent_channels, latent_size)
    motion = motion_json(config, temporal_heads, max_frames)
    same = ("sample_size", "in_channels", "out_channels", "downsample_padding", "mid_block_scale_factor", "act_fn",
            "norm_num_groups", "norm_eps", "block_out_channels", "layers_per_block", "cross_attention_dim",
            "use_linear_projection")
    of_motion = ("motion_max_seq_length", "motion_num_attention_heads", "use_motion_mid_block")
    return {"_class_name": "UNetMotionModel", **{name: unet[name] for name in same},
            "num_attention_heads": unet["attention_head_dim"],
            "down_block_types": tuple(kind.replace("2D", "Motion") for kind in unet["down_block_types"]),
            "up_block_types": tuple(kind.replace("2D", "Motion") for kind in unet["up_block_types"]),
            **{name: motion[name] for name in of_motion}}


def scheduler_json(objective: Objective) -> dict[str, Any]:
    """Return scheduler_config.json: diffusers' DDIMScheduler if it supports the schedule, else our own fields."""
    if not objective.noise_schedule.is_discrete:
        shift = {} if objective.time_shift == 1 else {"time_shift": objective.time_shift}
        return {"_class_name": "DurianScheduler", "schedule": objective.schedule, "prediction": objective.prediction,
                **shift}
    prediction = {"sample": "sample", "epsilon": "epsilon", "velocity": "v_prediction"}[objective.prediction]
    return {"_class_name": "DDIMScheduler", "num_train_timesteps": TIMESTEPS, "beta_start": 0.00085,
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": prediction, "clip_sample": False,
            "set_alpha_to_one": True, "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": objective.noise_schedule.ends_in_noise}


@_reads
def motion_config(values: dict[str, Any], unet: UNetConfig, origin: str) -> tuple[int, int, bool]:
    """Read MotionAdapter's config.json: heads, longest clip, and whether the middle block has a motion module.

    Raises:
        InputError: an adapter that does not fit the U-Net; lists every field that does not fit.
    """
    expected = {"block_out_channels": unet.channels, "motion_layers_per_block": unet.layers,
                "motion_norm_num_groups": unet.norm_groups}
    _check({**values, "block_out_channels": _field(values, "block_out_channels", _Channels)},
           {**_MOTION_FIXED, **expected}, origin)
    return (_field(values, "motion_num_attention_heads", Heads), _field(values, "motion_max_seq_length", FrameCount),
            _field(values, "use_motion_mid_block", bool, True))


def motion_json(unet: UNetConfig, temporal_heads: int, max_frames: int) -> dict[str, Any]:
    """Return MotionAdapter's config.json; the inverse of `motion_config`."""
    return {
        "_class_name": "MotionAdapter", **_MOTION_FIXED, "block_out_channels": unet.channels,
        "motion_layers_per_block": unet.layers, "motion_norm_num_groups": unet.norm_groups,
        "motion_num_attention_heads": temporal_heads, "motion_max_seq_length": max_frames,
        "use_motion_mid_block": True,
    }


@_reads
def mmdit_config(values: dict[str, Any], channels: int, text_tokens: int, origin: str) -> MMDiTConfig:
    """Read the sizes from SD3Transformer2DModel's config.json.

    The position table that diffusers' class makes itself has the code i * canvas_step.

    Args:
        channels: of the autoencoder's latents.
        text_tokens: number of null text tokens.

    Raises:
        InputError: another class, or a transformer unlike Stable Diffusion 3.5's; lists every field that does not fit.
    """
    kind = values.get("_class_name")
    if kind != "SD3Transformer2DModel":
        raise InputError(f"{origin}: expected the class SD3Transformer2DModel, found {cut(str(kind))}; name the "
                         "folder of the transformer of Stable Diffusion 3.5")
    heads, head_width = (_field(values, name, hint) for name, hint in (
        ("num_attention_heads", Heads), ("attention_head_dim", Width)))
    dual = _field(values, "dual_attention_layers", _Numbers, ())
    _check({"qk_norm": None, "out_channels": channels, **values, "dual_attention_layers": dual},
           {"qk_norm": "rms_norm", "in_channels": channels, "out_channels": channels,
            "caption_projection_dim": heads * head_width, "dual_attention_layers": tuple(range(len(dual)))}, origin)
    size, patch = _field(values, "pos_embed_max_size", Width), _field(values, "patch_size", Patch)
    return MMDiTConfig(
        width=heads * head_width, layers=_field(values, "num_layers", Layers), heads=heads, patch=patch,
        feedforward_multiplier=4, dual_layers=len(dual), positions="canvas", canvas_size=size,
        canvas_step=_field(values, "sample_size", Width) // patch / size,
        text_dim=_field(values, "joint_attention_dim", Width), text_tokens=text_tokens,
        pooled_dim=_field(values, "pooled_projection_dim", Width), time_rotation=head_width // 4)


def mmdit_json(config: MMDiTConfig, channels: int, latent_size: int) -> dict[str, Any]:
    """Return SD3Transformer2DModel's config.json; the inverse of `mmdit_config`.

    Args:
        channels, latent_size: c and h = w of the latents.

    Raises:
        InputError: sizes that the class does not support.
    """
    problems = [name for name, wrong in (
        ("positions", config.positions != "canvas"), ("text_dim=None", config.text_dim is None),
        ("pooled_dim=None", config.pooled_dim is None),
        ("feedforward_multiplier", config.feedforward_multiplier != 4)) if wrong]
    if problems:
        raise InputError(f"SD3Transformer2DModel cannot have this model's {', '.join(problems)}; only models of Stable "
                         "Diffusion 3.5's layout are written for it")
    return {
        "_class_name": "SD3Transformer2DModel", "sample_size": latent_size, "patch_size": config.patch,
        "in_channels": channels, "out_channels": channels, "num_layers": config.layers,
        "attention_head_dim": config.head_width, "num_attention_heads": config.heads,
        "joint_attention_dim": config.text_dim, "caption_projection_dim": config.width,
        "pooled_projection_dim": config.pooled_dim, "pos_embed_max_size": config.canvas_size,
        "dual_attention_layers": tuple(range(config.dual_layers)), "qk_norm": "rms_norm",
    }


@_reads
def codec_config(values: dict[str, Any], origin: str) -> AutoencoderKLConfig | AutoencoderTinyConfig:
    """Read the sizes from AutoencoderKL's or AutoencoderTiny's config.json.

    Raises:
        InputError: another class, or values that our autoencoders do not support.
    """
    kind = values.get("_class_name")
    if kind == "AutoencoderKL":
        quant_conv = _field(values, "use_quant_conv", bool, True)
        _check({"use_post_quant_conv": True, **values}, {**_KL_FIXED, "use_post_quant_conv": quant_conv}, origin)
        return AutoencoderKLConfig(
            channels=_field(values, "block_out_channels", _Channels),
            layers=_field(values, "layers_per_block", Layers),
            latent_channels=_field(values, "latent_channels", Width),
            norm_groups=_field(values, "norm_num_groups", Groups),
            scaling_factor=_field(values, "scaling_factor", float, 0.18215),
            shift_factor=_field(values, "shift_factor", float, 0.0), quant_conv=quant_conv)
    if kind == "AutoencoderTiny":
        widths = {*_field(values, "encoder_block_out_channels", _Channels),
                  *_field(values, "decoder_block_out_channels", _Channels)}
        _check({**values, "widths": len(widths)}, {**_TINY_FIXED, "widths": 1}, origin)
        return AutoencoderTinyConfig(
            channels=widths.pop(), encoder_blocks=_field(values, "num_encoder_blocks", _Blocks),
            decoder_blocks=_field(values, "num_decoder_blocks", _Blocks),
            latent_channels=_field(values, "latent_channels", Width, 4),
            scaling_factor=_field(values, "scaling_factor", float, 1.0))
    raise InputError(f"{origin}: expected the class AutoencoderKL or AutoencoderTiny, found {cut(str(kind))}; name the "
                     "folder of the autoencoder")


def codec_json(codec: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig, image_size: int) -> dict[str, Any]:
    """Return the autoencoder's config.json; the inverse of `codec_config`, except for our own small autoencoder."""
    if isinstance(codec, AutoencoderKLConfig):
        levels = len(codec.channels)
        shift = {"shift_factor": codec.shift_factor} if codec.shift_factor else {}
        return {"_class_name": "AutoencoderKL", **_KL_FIXED, **shift, "use_quant_conv": codec.quant_conv,
                "use_post_quant_conv": codec.quant_conv, "block_out_channels": codec.channels,
                "down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels,
                "layers_per_block": codec.layers, "latent_channels": codec.latent_channels,
                "norm_num_groups": codec.norm_groups, "scaling_factor": codec.scaling_factor,
                "sample_size": image_size}
    if isinstance(codec, AutoencoderTinyConfig):
        levels = len(codec.encoder_blocks)
        return {"_class_name": "AutoencoderTiny", **_TINY_FIXED,
                "encoder_block_out_channels": (codec.channels,) * levels,
                "decoder_block_out_channels": (codec.channels,) * levels,
                "num_encoder_blocks": codec.encoder_blocks, "num_decoder_blocks": codec.decoder_blocks,
                "latent_channels": codec.latent_channels, "scaling_factor": codec.scaling_factor}
    return {"_class_name": "DurianCodec", **asdict(codec)}


@_reads
def image_encoder_config(values: dict[str, Any], origin: str) -> ImageEncoderConfig:
    """Read the sizes from the config.json of CLIPVisionModelWithProjection, or of a full CLIPModel.

    Raises:
        InputError: values that our image encoder does not support.
    """
    if "vision_config" in values:  # CLIPModel has the projection's width outside its vision_config
        values = {**_field(values, "vision_config", Mapping), "projection_dim": _field(values, "projection_dim", Width)}
    _check(values, _CLIP_FIXED, origin)
    return ImageEncoderConfig(**{ours: _field(values, theirs, int) for ours, theirs in _CLIP_FIELDS.items()})


def image_encoder_json(config: ImageEncoderConfig) -> dict[str, Any]:
    """Return CLIPVisionModelWithProjection's config.json; the inverse of `image_encoder_config`."""
    return {"architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model", **_CLIP_FIXED,
            **{theirs: getattr(config, ours) for ours, theirs in _CLIP_FIELDS.items()}}


_CLIP_FIELDS = {"channels": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
                "mlp_channels": "intermediate_size", "image_size": "image_size", "patch": "patch_size",
                "projection": "projection_dim"}


def _down_types(attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention)


def _up_types(attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention))


_Kinds = Annotated[tuple[str, ...], LEVELS]
_Channels = Annotated[tuple[Width, ...], LEVELS]
_Blocks = Annotated[tuple[Layers, ...], LEVELS]
_Numbers = Annotated[tuple[int, ...], Items(0, 256)]


def _field(values: dict[str, Any], name: str, hint: Any, default: Any = None) -> Any:
    """A field of this type (`fields.check_value`); without a default it must be there. Lists become tuples."""
    value = values.get(name)
    if value is None:
        if default is None:
            raise FieldError(name, "expected this field, found none")
        return default
    value = tuple(value) if isinstance(value, list) else value
    check_value(hint, value, name)
    return value


def _check(values: dict[str, Any], expected: dict[str, Any], origin: str) -> None:
    """Refuse fields with other values than expected; missing fields are accepted."""
    wrong = [f"{name}={cut(str(values[name]))} instead of {value}" for name, value in expected.items()
             if name in values and values[name] != value]
    if wrong:
        raise InputError(f"{origin} describes a network that this project does not support: {listed(wrong)}")
