"""Settings of a training sample that every model family has."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np

from durian_jax.errors import InputError
from durian_jax.fields import FrameCount, Pixels, Range, check_fields

if TYPE_CHECKING:
    from durian_jax.data.sources import ClipSource
    from durian_jax.models.family import ModelConfig


@dataclass(frozen=True)
class SampleConfig(ABC):
    """How a training sample is made from clips; a family adds its own settings. Pixels are at 128 px and scale."""

    from_model: ClassVar[tuple[str, ...]] = ("image_size",)  # fields that follow from the model

    image_size: Pixels = 128  # H = W of the batch; other sizes are resampled
    frames: FrameCount = 1  # F, number of frames to reconstruct
    max_stride: FrameCount = 3  # neighbouring frames of a sample are 1..max_stride frames apart in the clip
    # Undecodable records, each counted once, to skip before the loader gives up.
    max_failures: Annotated[int, Range(0, 10**9)] = 100

    def __post_init__(self):
        check_fields(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Letter of a batch's axis -> its size, without B."""
        return {"F": self.frames}

    @classmethod
    @abstractmethod
    def for_model(cls, model: "ModelConfig", values: Mapping[str, Any]) -> Self:
        """The settings of a run: `values`, and the fields `from_model` as the model needs them."""

    def check_rate(self, name: str, fps: float) -> None:
        """Refuse clips of a frame rate that a run with motion cannot use.

        Args:
            name: of the clips, for the error.
            fps: their frames per second.

        Raises:
            InputError: no rate at all; or, in a family whose models know one, another rate than the model's.
        """
        if not fps > 0:
            raise InputError(f"{name}: expected a frame rate above 0, found {fps:g}; write the dataset again")

    def check_clips(self, source: "ClipSource") -> None:  # noqa: B027 - most families take any clips
        """Refuse clips of which no sample can be made, before training compiles.

        Raises:
            InputError: says what is missing.
        """

    @abstractmethod
    def sample(self, source: "ClipSource", index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Make one training sample from clip `index`, a function of the arguments and of `rng`'s state only.

        Returns:
            The fields of the model's `batch_spec` without B, in the types of `models.batch.STORED_TYPES`.

        Raises:
            DecodeError: a damaged record, of this clip or of another one that the sample needs.
        """
