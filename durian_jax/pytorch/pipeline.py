"""The pipeline that all model families share: sampling, decoding, devices, offloading. Runs without JAX."""

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import nn

from durian_jax.checkpoints.description import Description
from durian_jax.convert.bundle import read_bundle
from durian_jax.diffusion import Objective, Sampling, sampler_table
from durian_jax.diffusion.guidance import active_branches, combine
from durian_jax.diffusion.noise import frame_noise
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder, open_identity_encoder
from durian_jax.faces.clip import Clip
from durian_jax.families import get_family
from durian_jax.inference.animator import Animator
from durian_jax.inference.backend import Segment
from durian_jax.inference.references import Attributes
from durian_jax.inference.size import at_size
from durian_jax.models.batch import axis_sizes, sampling_fields
from durian_jax.models.family import ModelConfig
from durian_jax.pytorch.device import DTYPES, SLOW_IN_16_BITS, choose_device
from durian_jax.pytorch.files import load_model
from durian_jax.pytorch.networks import Networks


class Pipeline(ABC):
    """An exported model, ready to run (an `inference.backend.Backend`). A family adds its conditions.

    Args:
        model: the networks.
        description: sizes, objective and default sampling.
        identity_encoder: embeds portraits' faces, if the model uses identity embeddings.

    Attributes:
        device: device that computes.
        decode_chunk: number of frames that the autoencoder decodes at a time; fewer frames take less memory.
    """

    def __init__(self, model: Networks, description: Description, identity_encoder: IdentityEncoder | None = None):
        self.model, self.config, self.objective = model, description.config, description.objective
        self.sampling, self.identity_encoder = description.sampling, identity_encoder
        self.decode_chunk = 4
        self.device, self._offload = torch.device("cpu"), False

    @staticmethod
    @abstractmethod
    def make_model(config: ModelConfig) -> Networks:
        """Build the networks."""

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The network that runs in every step."""

    @abstractmethod
    def references(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Compute what all clips of a video share, from the fields with role "reference"."""

    @abstractmethod
    def condition(self, batch: Mapping[str, np.ndarray], references: Any, branches: Sequence[int]) -> Any:
        """Return what `predict` needs besides latents and time, for one clip.

        Args:
            references: from `references`.
            branches: indices of the guidance branches that run.
        """

    @abstractmethod
    def predict(self, z: torch.Tensor, moment: float, condition: Any, *, frames: int, temporal: bool
                ) -> list[torch.Tensor]:
        """Return the network's prediction for each branch of the condition.

        Args:
            z: (B * F, c, h, w) float32 noisy latents.
            moment: diffusion time in [0, 1000].
            frames: F.
            temporal: run the temporal layers.
        """

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: str | None = None, size: int | None = None) -> Self:
        """Load an export of `durian export`.

        Args:
            folder: of the export.
            dtype: of the computation: "float32", "bfloat16" or "float16"; None: the precision of training.
            size: H = W of the pictures; None: the size of training. Some models make no other size.

        Raises:
            InputError: not an export, a damaged export, an export of another family, an unknown dtype, or a size that
                the model cannot make.
        """
        if dtype is not None and dtype not in DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
        folder = Path(folder)
        found, _ = read_bundle(folder)
        expected = get_family(found.config.family).load("pytorch")
        if not issubclass(cls, expected):
            raise InputError(f"{folder}: expected an export for {cls.__name__}, found one for {expected.__name__}; "
                             f"load it with {expected.__name__}")
        config = at_size(found.config, size, str(folder))
        identity_encoder = open_identity_encoder(folder / IDENTITY_FILE, config.identity_dim)
        with torch.device("meta"):
            model = cls.make_model(config)
        load_model(model, folder, DTYPES[dtype or config.dtype])
        return cls(model, Description(config, found.objective, found.sampling), identity_encoder)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return next(self.denoiser.parameters()).dtype

    def to(self, device: str | torch.device | None, *, offload: bool = False, channels_last: bool = True) -> Self:
        """Choose the device.

        Args:
            device: for example "cuda"; None: see `choose_device`.
            offload: keep idle networks in the CPU's memory: slower, for small GPUs.
            channels_last: keep convolution weights with channels last in memory, which is faster.

        Returns:
            The pipeline itself.

        Raises:
            InputError: a device that this machine does not have.
        """
        self.device, self._offload = choose_device(device), offload
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for network in self.model.children():
            # PyTorch's types lack the argument memory_format.
            cast(Any, network).to("cpu" if offload else self.device, memory_format=layout)
        return self

    def __call__(self, portrait: Clip, attributes: Attributes, driving: Clip | np.ndarray, *,
                 steps: int | None = None, guidance_scale: float | Sequence[float] | None = None, seed: int = 0,
                 sampler: str | None = None, noise: str | None = None, **options: Any) -> np.ndarray:
        """Animate the portrait with the attributes and the driver's motion.

        Args:
            portrait, attributes, driving, options: see `Animator.animate`.
            steps, guidance_scale, seed, sampler, noise: see `Sampling`; None: the model's default. A seed gives the
                same frames as in JAX, up to rounding.

        Returns:
            (T, H, W, 3) uint8.
        """
        given = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed, "sampler": sampler,
                 "noise": noise}
        sampling = self.sampling.changed({name: value for name, value in given.items() if value is not None})
        return Animator(self).animate(portrait, attributes, driving, sampling=sampling, **options)

    def generate(self, batch: Mapping[str, np.ndarray], sampling: Sampling | None = None, **options: Any
                 ) -> np.ndarray:
        """Sample B clips of F frames; see `generate_segment`. Return (B, F, H, W, 3) uint8."""
        return self.generate_segment(batch, sampling, **options).images

    @torch.inference_mode()
    def generate_segment(self, batch: Mapping[str, np.ndarray], sampling: Sampling | None = None, *,
                         temporal: bool | None = None, first_frame: int = 0, references: Any = None) -> Segment:
        """Sample B clips of F frames. The arguments are those of `inference.generate.generate_segment`.

        Returns:
            Their pictures and latents.

        Raises:
            InputError: more frames than the temporal layers take, or guidance that does not fit the model.
        """
        sampling = self.sampling if sampling is None else sampling
        spec = sampling_fields(self.config.batch_spec())
        batch = sampling.with_bent_weights(batch)
        batch = {name: np.asarray(batch[name], np.float32) for name in spec if name in batch}
        sizes = axis_sizes(spec, batch)
        b, frames = sizes["B"], sizes["F"]
        temporal = frames > 1 if temporal is None else temporal
        if temporal and frames > self.config.max_frames:
            raise InputError(f"{frames} frames at once exceed the {self.config.max_frames} that the model's temporal "
                             "layers take; generate segments (inference.animator does)")
        names = self.config.guidance_for([name for name, value in batch.items() if value.size])
        active, scales = active_branches(sampling.scales(self.config.guidance)[:len(names)])
        references = self.references(batch) if references is None else references
        side, channels = self.config.latent_size, self.config.codec.latent_channels
        drawn = frame_noise(sampling.seed, sampling.noise_frames(first_frame, frames), (side, side, channels))
        drawn = drawn * np.float32(sampling.noise_scale)
        noise = self.to_tensor(np.broadcast_to(drawn, (b, *drawn.shape)), torch.float32).flatten(0, 1)
        with self.at_work(self.denoiser):
            condition = self.condition(batch, references, active)
            latents = self.sample(noise, condition, sampling, scales, frames=frames, temporal=temporal)
        images = self.decode(latents, frames if temporal else 1).unflatten(0, (b, frames))
        images = self.finished(images, condition)
        return Segment(_pictures(images), latents.unflatten(0, (b, frames)).movedim(-3, -1).float().cpu().numpy())

    def sample(self, noise: torch.Tensor, condition: Any, sampling: Sampling, scales: Sequence[float], *, frames: int,
               temporal: bool) -> torch.Tensor:
        """Denoise.

        Args:
            noise: (B * F, c, h, w) float32.
            condition: from `condition`.
            sampling: steps and sampler.
            scales: of the branches of the condition, see `diffusion.guidance`.
            frames: F.
            temporal: run the temporal layers.

        Returns:
            Clean latents of the shape of `noise`.
        """
        objective: Objective = self.objective
        times, table = sampler_table(objective.noise_schedule, sampling.sampler, sampling.steps, objective.time_shift)
        z, previous = noise, torch.zeros_like(noise)
        for t, (a, b, c) in zip(times, table.tolist(), strict=True):
            moment = float(objective.noise_schedule.timesteps(t))
            of_prediction, of_noisy = (float(x) for x in objective.clean_coefficients(t))
            predictions = self.predict(z, moment, condition, frames=frames, temporal=temporal)
            x = combine([of_prediction * prediction + of_noisy * z for prediction in predictions], scales)
            z, previous = a * z + b * x + c * previous, x
        return z

    def finished(self, frames: torch.Tensor, condition: Any) -> torch.Tensor:
        """Decoded frames (B, F, 3, H, W) float32 and their condition -> the frames to show; here unchanged."""
        return frames

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, frames: int = 1) -> torch.Tensor:
        """Latents (B * F, c, h, w) of clips of F frames -> pictures (B * F, 3, H, W) float32, about [-1, 1].

        `decode_chunk` frames at a time; decoders with temporal layers take a clip at a time.
        """
        whole = frames if self.config.codec.temporal_kernel else 1
        with self.at_work(self.model.vae):
            return torch.cat([self.model.decode(part.to(self.dtype), whole).float()
                              for part in latents.split(whole if whole > 1 else self.decode_chunk)])

    def to_tensor(self, x: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        """(..., H, W, C) in numpy -> (..., C, H, W), on the device, with channels last in memory."""
        return torch.tensor(x).to(self.device, dtype or self.dtype).movedim(-1, -3)

    def warn_if_slow(self) -> None:
        """Warn if this CPU has no arithmetic in the pipeline's precision."""
        capability = torch.backends.cpu.get_cpu_capability()
        if self.device.type == "cpu" and self.dtype != torch.float32 and capability in SLOW_IN_16_BITS:
            name = str(self.dtype).removeprefix("torch.")
            warnings.warn(f"this CPU ({capability}) has no arithmetic in 16 bits: {name} is many times slower than "
                          "float32; choose dtype float32", stacklevel=3)

    @contextlib.contextmanager
    def at_work(self, *networks: nn.Module) -> Iterator[None]:
        """Move offloaded networks to the device for the duration of a block."""
        for network in networks if self._offload else ():
            network.to(self.device)
        try:
            yield
        finally:
            for network in networks if self._offload else ():
                network.to("cpu")


def _pictures(frames: torch.Tensor) -> np.ndarray:
    """(..., 3, H, W), about [-1, 1] -> (..., H, W, 3) uint8."""
    return ((frames + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).movedim(-3, -1).cpu().numpy()
