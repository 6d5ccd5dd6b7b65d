"""What a model family provides: a config that creates the model, and the model's methods. Imports no jax."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from durian_jax.families import DEFAULT, get_family
from durian_jax.fields import check_object
from durian_jax.models.batch import Spec

if TYPE_CHECKING:
    import jax

    from durian_jax.models.attention.method import AttentionMethod

# Types that activations may have.
DTYPES = ("float32", "bfloat16")


class ModelConfig(ABC):
    """Sizes of a model: a frozen dataclass of plain values, so that it can be hashed, compared and written as JSON.

    Attributes:
        family: key of `families.FAMILIES`.
        encoders: prefixes of the parameter paths of networks that only encode: training may run them once, ahead.
        guidance: names of the branches of guidance after the first, see `Model.branches`.
        image_size: H = W in pixels.
        max_frames: F, number of frames of the longest clip that the temporal layers take.
        codec: sizes of the autoencoder, with `latent_channels` and `downscale`.
        dtype: of activations: "float32" or "bfloat16".
        identity_dim: width of the identity embedding of the portrait that batches bring; None: they bring none.
    """

    family: ClassVar[str]
    encoders: ClassVar[tuple[str, ...]] = ("codec/",)
    guidance: ClassVar[tuple[str, ...]] = ()
    image_size: int
    max_frames: int
    codec: Any
    dtype: str
    identity_dim: int | None
    __dataclass_fields__: ClassVar[dict[str, Any]]  # every family's config is a dataclass

    def create(self, remat: str = "none", attention: "AttentionMethod | None" = None) -> "Model":
        """Build the model.

        Args:
            remat: what the backward pass recomputes, a key of `models.layers.REMAT_POLICIES`.
            attention: how attention in space is computed; None: by XLA.
        """
        return get_family(self.family).load("model")(self, remat, attention)

    @abstractmethod
    def batch_spec(self, encoded: bool = False) -> Spec:
        """Every field of a batch.

        Args:
            encoded: of samples that `durian encode` has made, with latents instead of pictures.
        """

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Picture sizes must be multiples of this number of pixels."""

    @property
    @abstractmethod
    def fixed_size(self) -> bool:
        """Whether the model makes pictures of `image_size` only."""

    @abstractmethod
    def encoder_fields(self) -> dict[str, Any]:
        """Fields of the config that decide how samples are encoded."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the family among them."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`; `values` has no "family".

        Raises:
            FieldError: names a field that is unknown, missing, of another type, out of its range, or in contradiction
                to another one (`durian_jax.fields`).
        """

    @property
    def least_parameters(self) -> int:
        """Fewer parameters than the model has: refuses a damaged config before the model is built, which is slow."""
        return 1

    def guidance_for(self, fields: Collection[str]) -> tuple[str, ...]:
        """The names of `guidance` whose conditions a batch with these fields brings; a first part of them."""
        return self.guidance

    @property
    def latent_size(self) -> int:
        """h = w of the latents."""
        return self.image_size // self.codec.downscale


class Model(Protocol):
    """The methods of a family's Flax module that shared code calls, all pure.

    B clips, F frames, H x W pixels, h x w latents, c latent channels. A batch is float32, see `batch.model_inputs`.
    """

    def __call__(self, batch: "Mapping[str, jax.Array]") -> Any:
        """Run every network once on a training batch, for initialisation."""

    def init(self, rngs: "jax.Array", batch: "Mapping[str, jax.Array]") -> Any:
        """Initialise the variables; see `flax.linen.Module.init`."""

    def apply(self, variables: Mapping[str, Any], *args: Any, method: "str | Callable[..., Any]", **kwargs: Any) -> Any:
        """Call a method, or a function of the model, with these variables; see `flax.linen.Module.apply`."""

    def encode(self, images: "jax.Array") -> "jax.Array":
        """Images (..., H, W, 3) in [-1, 1] -> latents (..., h, w, c)."""

    def decode(self, latents: "jax.Array", temporal: bool = False) -> "jax.Array":
        """Latents (..., h, w, c) -> images (..., H, W, 3) float32, about [-1, 1]."""

    def finished(self, frames: "jax.Array", condition: Any) -> "jax.Array":
        """Decoded frames and their condition, from `condition` -> the frames to show.

        Both are (B, F, H, W, 3) float32, about [-1, 1].
        """

    def encode_batch(self, batch: "Mapping[str, jax.Array]") -> "dict[str, jax.Array]":
        """A batch of pictures -> the fields of an encoded batch."""

    def probe(self, images: "jax.Array") -> "dict[str, jax.Array]":
        """Name -> output of every network of `ModelConfig.encoders` for images (M, H, W, 3) in [-1, 1]."""

    def references(self, batch: "Mapping[str, jax.Array]") -> Any:
        """What all clips of a video share, from the fields with role "reference": a pytree."""

    def condition(self, batch: "Mapping[str, jax.Array]", references: Any = None) -> Any:
        """All that `denoise` needs besides latents and time, for one clip: a pytree.

        Args:
            references: from `references`; None: computed here.
        """

    def branches(self, condition: Any) -> tuple[Any, ...]:
        """The conditions of guidance, from the least to the most conditioned (`diffusion.guidance`)."""

    def denoise(self, latents: "jax.Array", timesteps: "jax.Array", condition: Any, temporal: bool = False
                ) -> "jax.Array":
        """The network's prediction (B, F, h, w, c) float32.

        Args:
            latents: (B, F, h, w, c) noisy latents.
            timesteps: (B, F) in [0, 1000].
            condition: from `condition` or `branches`.
            temporal: run the temporal layers.
        """


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Build a model's config from plain values, such as those of a checkpoint's config.json.

    Args:
        values: fields of the family's config and "family"; without it the family is `families.DEFAULT`.

    Raises:
        InputError: an unknown family; otherwise see `ModelConfig.from_dict`.
    """
    check_object(values)
    values = dict(values)
    return get_family(values.pop("family", DEFAULT)).load("config").from_dict(values)
