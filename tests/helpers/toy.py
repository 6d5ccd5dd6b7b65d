"""A deliberately small second model family: one layer that paints the portrait and ignores the motion.

It registers like any other family. A shared room that needs a change for it is not yet a room for every family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from durian_jax import families
from durian_jax.configs.base import base
from durian_jax.convert.families.family import Part
from durian_jax.convert.names import name_map
from durian_jax.data.samples.config import SampleConfig
from durian_jax.diffusion.training_draws import sample_noise, sample_times
from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import K
from durian_jax.fields import read_fields
from durian_jax.images import to_float, to_uint8
from durian_jax.inference.generate import generate
from durian_jax.models.batch import Field
from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.codecs.make import make_codec
from durian_jax.models.family import ModelConfig
from durian_jax.models.layers import conv
from durian_jax.training.recipes.codec import CODEC_STAGES
from durian_jax.training.stage import Stage

NAME = "toy"


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    """Sizes."""

    family: ClassVar[str] = NAME
    image_size: int = 32
    max_frames: int = 4
    codec: CodecConfig = CodecConfig(patch=4, encoder_channels=(8,), decoder_channels=(8,), latent_channels=4,
                                     norm_groups=2)
    dtype: str = "float32"
    identity_dim: None = None

    def batch_spec(self, encoded=False):
        s, h, c = self.image_size, self.latent_size, self.codec.latent_channels
        motion = {"keypoints": Field(("B", "F", K, 3), "value", "clip")}
        if encoded:
            return {**motion, "frame_latents": Field(("B", "F", h, h, c), "latent", "target"),
                    "portrait_latents": Field(("B", h, h, c), "latent", "reference")}
        return {**motion, "frames": Field(("B", "F", s, s, 3), "picture", "target"),
                "portrait": Field(("B", s, s, 3), "picture", "reference")}

    @property
    def size_multiple(self):
        return self.codec.downscale

    @property
    def fixed_size(self):
        return False

    def encoder_fields(self):
        return {name: self.to_dict()[name] for name in ("image_size", "codec")}

    def to_dict(self):
        return {"family": self.family, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]):
        return read_fields(cls, {**values, "codec": read_fields(CodecConfig, values["codec"])})


class Toy(nn.Module):
    """One convolution over noisy latents beside the portrait's."""

    config: ToyConfig

    def setup(self):
        self.codec = make_codec(self.config.codec, self.config.dtype)
        self.painter = conv(self.config.codec.latent_channels)

    def encode(self, images):
        return self.codec.encode(images.reshape(-1, *images.shape[-3:])).reshape(
            *images.shape[:-3], *[self.config.latent_size] * 2, self.config.codec.latent_channels)

    def decode(self, latents, temporal=False):
        x = self.codec.decode(latents.reshape(-1, *latents.shape[-3:]))
        return x.reshape(*latents.shape[:-3], *x.shape[1:])

    def finished(self, frames, condition):
        return frames

    def encode_batch(self, batch):
        return {"keypoints": batch["keypoints"], "frame_latents": self.encode(batch["frames"]),
                "portrait_latents": self.references(batch)}

    def probe(self, images):
        return {"latents": self.encode(images)}

    def references(self, batch):
        return batch["portrait_latents"] if "portrait_latents" in batch else self.encode(batch["portrait"])

    def condition(self, batch, references=None):
        return self.references(batch) if references is None else references

    def branches(self, condition):
        return (condition,)

    def denoise(self, latents, timesteps, condition, temporal=False):
        b, f = latents.shape[:2]
        portrait = jnp.broadcast_to(condition[:, None], latents.shape)
        x = jnp.concatenate([latents, portrait], -1)
        return self.painter(x.reshape(b * f, *x.shape[2:])).reshape(latents.shape)

    def __call__(self, batch):
        latents = self.encode(batch["frames"])
        self.decode(latents)
        return self.denoise(latents, jnp.zeros(latents.shape[:2]), self.condition(batch))


def make_model(config, remat="none", attention=None):
    """Nothing here needs either."""
    return Toy(config)


@dataclass(frozen=True)
class ToySamples(SampleConfig):
    """A clip's first frame is the portrait."""

    @classmethod
    def for_model(cls, model, values):
        return cls(**values, image_size=model.image_size)

    def sample(self, source, index, rng):
        clip = source[index]
        chosen = rng.integers(0, len(clip), self.frames)
        return {"frames": clip.frames[chosen], "keypoints": clip.keypoints[chosen], "portrait": clip.frames[0]}


def loss(run, model, variables, batch, key):
    """Squared error of clean latents."""
    noise_key, time_key = jax.random.split(key)
    b, f = batch["keypoints"].shape[:2]
    times = sample_times(run.objective, time_key, (b, f))

    def forward(m):
        clean = batch["frame_latents"] if "frame_latents" in batch else jax.lax.stop_gradient(m.encode(batch["frames"]))
        noise = sample_noise(run.objective, noise_key, clean.shape, shared_offset=False)
        noisy = run.objective.noise_schedule.add_noise(clean, noise, times)
        return m.denoise(noisy, run.objective.noise_schedule.timesteps(times), m.condition(batch)), clean
    prediction, clean = model.apply(variables, method=forward)
    return jnp.mean((prediction - clean) ** 2), {}


def columns(checkpoint, batch):
    """Portrait | result | truth."""
    return [to_uint8(batch["portrait"]), generate(checkpoint, batch)[:, 0], to_uint8(batch["frames"][:, 0])]


STAGES: Mapping[str, Stage] = {**CODEC_STAGES, "paint": Stage("paint", "painter/", loss, columns)}


@dataclass(frozen=True)
class ToyJob:
    """The whole video at once, or one frame after the other if `single` is True."""

    batch: dict
    keypoints: np.ndarray
    single: bool

    @property
    def starts(self):
        return list(range(len(self.keypoints))) if self.single else [0]

    def segment(self, number, previous):
        assert len(previous) == min(number, 2)
        return {"keypoints": self.keypoints[None, number:number + 1] if self.single else self.keypoints[None]}

    def join(self, segments):
        return iter(segments)


DRIVEN_BY = "keypoints"
OPTIONS = ("single",)
IN_PLACE: Mapping = {}


def check_motion(config, fps, frames, **options):
    """Any motion will do."""


def make_job(model, portrait: Clip, attributes: Sequence, driving: Clip, single: bool = False) -> ToyJob:
    """Attributes are ignored, and so is the motion but for its length."""
    return ToyJob({"portrait": to_float(portrait.frames)}, driving.keypoints, single)


def check_exportable(config):
    """Everything is."""


def export_parts(config, shapes, read, dtype):
    """One folder per network."""
    rules = [(r".*", lambda match: match[0].replace("/", "."))]
    tensors = name_map([(path, len(shape)) for path, shape in shapes.items()], rules)
    of = lambda network: ((tensor.name, read(tensor)) for tensor in tensors if tensor.path.startswith(network))
    return {network: Part({"_class_name": network}, of(network), "model") for network in ("codec", "painter")}


def config(stage: str = "paint", **changes) -> ConfigDict:
    """A training config."""
    made = base(NAME, stage)
    made.model = {name: x for name, x in ToyConfig().to_dict().items() if name != "family"}
    made.update({"batch_size": 2, "total_steps": 3, "log_every": 1, "checkpoint_every": 1, "sample_every": 2,
                 "learning_rate": 1e-2, "warmup_steps": 1, "init_fresh": "codec/", **changes})
    return made


def register() -> None:
    """Add the family to the table."""
    here = __name__
    families.register(NAME, families.Family(config=f"{here}:ToyConfig", model=f"{here}:make_model",
                                            samples=f"{here}:ToySamples", recipe=here, inference=here, convert=here))
