"""The pipeline: a portrait, attributes and a motion become a video, on a GPU or CPU, without JAX."""

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from durian_jax.convert.bundle import read_bundle
from durian_jax.diffusion import Objective, sampler_table
from durian_jax.diffusion.noise import frame_noise
from durian_jax.diffusion.sampling import FIELDS, Sampling
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder, open_identity_encoder
from durian_jax.faces.clip import Clip
from durian_jax.faces.draw import keypoint_image
from durian_jax.inference.animator import Animator
from durian_jax.inference.size import at_size
from durian_jax.models.durian.config import DurianConfig
from durian_jax.pytorch.durian.attention import Site
from durian_jax.pytorch.durian.model import Durian, References
from durian_jax.pytorch.files import load_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Instruction sets, as PyTorch names them.
SLOW_IN_16_BITS = ("DEFAULT", "NO AVX", "AVX2")


def choose_device(name: str | torch.device | None) -> torch.device:
    """A device by name; None: the first NVIDIA or AMD GPU if there is one, else the CPU.

    Raises:
        InputError: no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {str(name)!r}: {str(error).splitlines()[0]}; expected one such as cpu or "
                         "cuda") from error


class DurianPipeline:
    """An exported model, ready to animate (a `Backend` of `inference.animator`).

    Args:
        model: the networks.
        objective: schedule and prediction type.
        identity_encoder: of portraits' faces, where the model attends to such.

    Attributes:
        device: where it computes.
        decode_chunk: frames that the autoencoder decodes at a time; fewer take less memory.
    """

    def __init__(self, model: Durian, objective: Objective, identity_encoder: IdentityEncoder | None = None):
        self.model, self.objective, self.identity_encoder = model, objective, identity_encoder
        self.decode_chunk = 4
        self.device, self._offload = torch.device("cpu"), False

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: str | None = None, size: int | None = None
                        ) -> "DurianPipeline":
        """Read what `durian export` has written.

        Args:
            folder: of the export.
            dtype: to compute in, "float32", "bfloat16" or "float16"; None: what the model was trained in.
            size: H = W of the pictures; None: what the model was trained for; with a position code it makes no other.

        Raises:
            InputError: not an export, a damaged one, an unknown dtype, or a size that the model cannot make.
        """
        if dtype is not None and dtype not in DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
        folder = Path(folder)
        config, objective, _ = read_bundle(folder)
        config = at_size(config, size, str(folder))
        identity_encoder = open_identity_encoder(folder / IDENTITY_FILE, config.identity_dim)
        return cls(load_model(folder, config, DTYPES[dtype or config.dtype]), objective, identity_encoder)

    @property
    def config(self) -> DurianConfig:
        """Sizes of the model."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """In which the networks compute."""
        return self.model.denoising_unet.conv_in.weight.dtype

    def to(self, device: str | torch.device | None, *, offload: bool = False, channels_last: bool = True
           ) -> "DurianPipeline":
        """Choose where to compute.

        Args:
            device: such as "cuda"; None: see `choose_device`.
            offload: keep networks in the CPU's memory while others are at work; slower, for small GPUs.
            channels_last: keep convolutions' weights with channels last in memory, which is faster.

        Returns:
            The pipeline itself.

        Raises:
            InputError: no such device here.
        """
        self.device, self._offload = choose_device(device), offload
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for network in self.model.children():
            network.to("cpu" if offload else self.device, memory_format=layout)
        return self

    def compile(self) -> "DurianPipeline":
        """Compile the denoiser's blocks (torch.compile, block by block: the first step takes a minute or two)."""
        # Blocks of one kind share their code; each width and resolution is compiled once.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        unet = self.model.denoising_unet
        for level in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            for block in (*level.resnets, *level.attentions, *level.motion_modules):
                block.compile(dynamic=False)
        return self

    def __call__(self, portrait: Clip, attributes: Sequence[tuple[str, Clip]], driving: Clip | np.ndarray, *,
                 steps: int = 1, guidance_scale: float = 1.0, seed: int = 0, sampler: str = "dpm++",
                 interpolate: float | Sequence[float] | None = None, align_attributes: bool = False) -> np.ndarray:
        """The portrait wearing the attributes, in the driver's motion.

        Args:
            portrait, attributes, driving, interpolate, align_attributes: see `Animator.animate`.
            steps, guidance_scale, seed, sampler: see `Sampling`. The same seed gives the same frames as with JAX, up
                to rounding.

        Returns:
            (T, H, W, 3) uint8.
        """
        return Animator(self).animate(portrait, attributes, driving, interpolate=interpolate,
                                      sampling=Sampling(steps, guidance_scale, seed, sampler),
                                      align_attributes=align_attributes)

    @torch.inference_mode()
    def project_references(self, batch: dict[str, np.ndarray]) -> References:
        """What the denoiser attends to, for a batch whose references serve several calls of `generate`.

        Args:
            batch: portrait, portrait_mask, attributes, attribute_masks and, where the model has such, identity, as
                `inference.durian.reference_batch` makes them.
        """
        self._warn_if_slow()
        model = self.model
        pictures = (self.to_tensor(batch[name]) for name in ("portrait", "portrait_mask", "attributes",
                                                             "attribute_masks"))
        identity = torch.tensor(batch["identity"]).to(self.device, self.dtype) if "identity" in batch else None
        encoders = [getattr(model, name) for name in ("vae", "image_encoder", "identity_projection")
                    if hasattr(model, name)]
        with self._at_work(*encoders):
            encoded = model.encode_references(*pictures, identity)
        with self._at_work(model.portrait_reference):
            portrait = model.portrait_features(encoded)
        with self._at_work(model.attribute_reference):
            attributes = model.attribute_features(encoded)
        with self._at_work(model.denoising_unet):
            return model.project_references(portrait, attributes, encoded.attribute_embeddings)

    @torch.inference_mode()
    def generate(self, batch: dict[str, np.ndarray], sampling: Sampling = Sampling(), *,
                 blend: np.ndarray | None = None, temporal: bool | None = None, first_frame: int = 0,
                 references: References | None = None) -> np.ndarray:
        """Animate B portraits: the counterpart of `inference.generate.generate`, with its arguments; pictures only.

        Returns:
            (B, F, H, W, 3) uint8.

        Raises:
            InputError: more frames than the model's temporal layers know.
        """
        batch = {name: np.asarray(batch[name], np.float32) for name in FIELDS if name in batch}
        b, frames = batch["keypoints"].shape[:2]
        temporal = frames > 1 if temporal is None else temporal
        if temporal and frames > self.config.max_frames:
            raise InputError(f"{frames} frames at once exceed the {self.config.max_frames} that the model's temporal "
                             "layers know; generate windows (inference.animator does)")
        references = self.project_references(batch) if references is None else references
        side, channels = self.config.latent_size, self.config.codec.latent_channels
        noise = frame_noise(sampling.seed, range(first_frame, first_frame + frames), (side, side, channels))
        noise = self.to_tensor(np.broadcast_to(noise, (b, *noise.shape)), torch.float32).flatten(0, 1)
        with self._at_work(self.model.keypoint_encoder, self.model.denoising_unet):
            features = self.keypoint_features(batch["keypoints"])
            sites = self.model.select(references, batch["attribute_valid"], blend)
            latents = self.sample(noise, features, sites, sampling, frames=frames, temporal=temporal)
        return self.decode(latents).reshape(b, frames, *(self.config.image_size,) * 2, 3)

    def keypoint_features(self, keypoints: np.ndarray) -> torch.Tensor:
        """Driving keypoints (B, F, K, 3) -> (B * F, C_0, h, w)."""
        size = self.config.image_size
        drawn = keypoint_image(keypoints.reshape(-1, *keypoints.shape[2:]), size, size)
        return self.model.keypoint_encoder(self.to_tensor(drawn))

    def sample(self, noise: torch.Tensor, keypoint_features: torch.Tensor, sites: Sequence[Site], sampling: Sampling,
               *, frames: int, temporal: bool) -> torch.Tensor:
        """Denoise.

        Args:
            noise: (B * F, c, h, w) float32.
            keypoint_features: (B * F, C_0, h, w).
            sites: from `Durian.select`.
            sampling: how.
            frames: F.
            temporal: run the motion modules.

        Returns:
            Clean latents of the shape of `noise`.
        """
        times, table = sampler_table(self.objective.noise_schedule, sampling.sampler, sampling.steps)
        # Both halves of the guidance are one batch, so that weights are read once; the second sees no references.
        twice = lambda x: torch.cat([x, x]) if sampling.is_guided else x
        if sampling.is_guided:
            sites = [replace(site, guided=True) for site in sites]
        predict = partial(self.predict_clean, keypoint_features=twice(keypoint_features), sites=sites, frames=frames,
                          temporal=temporal)
        z, previous = noise, torch.zeros_like(noise)
        for t, (a, b, c) in zip(times, table.tolist(), strict=True):
            x = predict(twice(z), t)
            if sampling.is_guided:
                x, free = x.chunk(2)
                x = free + sampling.guidance_scale * (x - free)
            z, previous = a * z + b * x + c * previous, x
        return z

    def predict_clean(self, z: torch.Tensor, t: float, *, keypoint_features: torch.Tensor,
                      sites: Sequence[Site] | None, frames: int, temporal: bool) -> torch.Tensor:
        """Clean latents (B * F, c, h, w) float32 as the denoiser sees them in z_t, t in (0, 1]; sites: see `UNet`."""
        moment = torch.full((len(z),), float(self.objective.noise_schedule.timesteps(t)), device=z.device)
        prediction = self.model.denoising_unet(z.to(self.dtype), moment, frames=frames, sites=sites,
                                               bias=keypoint_features, temporal=temporal).float()
        of_prediction, of_noisy = (float(x) for x in self.objective.clean_coefficients(t))
        return of_prediction * prediction + of_noisy * z

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (M, c, h, w) -> pictures (M, H, W, 3) uint8, a few at a time."""
        parts = []
        with self._at_work(self.model.vae):
            for part in latents.split(self.decode_chunk):
                images = self.model.decode(part.to(self.dtype))
                parts.append(((images + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(parts).numpy()

    def to_tensor(self, x: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        """(..., H, W, C) in numpy -> (..., C, H, W), on the device, with channels last in memory."""
        return torch.tensor(x).to(self.device, dtype or self.dtype).movedim(-1, -3)

    def _warn_if_slow(self) -> None:
        capability = torch.backends.cpu.get_cpu_capability()
        if self.device.type == "cpu" and self.dtype != torch.float32 and capability in SLOW_IN_16_BITS:
            name = str(self.dtype).removeprefix("torch.")
            warnings.warn(f"this CPU ({capability}) has no arithmetic in 16 bits: {name} takes many times as long as "
                          "float32; choose dtype float32", stacklevel=3)

    @contextlib.contextmanager
    def _at_work(self, *networks: nn.Module):
        """Networks on the device, for as long as they are needed where they are offloaded."""
        for network in networks if self._offload else ():
            network.to(self.device)
        try:
            yield
        finally:
            for network in networks if self._offload else ():
                network.to("cpu")
