"""What a model family provides for inference: how inputs become batches, and how long videos become segments."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.families import get_family

if TYPE_CHECKING:
    from durian_jax.checkpoints.weights import Checkpoint
    from durian_jax.inference.backend import Backend
    from durian_jax.inference.references import Attributes
    from durian_jax.models.family import ModelConfig


class Job(Protocol):
    """One video to make, as segments that are sampled one after the other.

    T frames of the video, F frames of a segment, H x W pixels.

    Attributes:
        batch: the fields that all segments share, with B = 1.
        starts: number of the video's frame with which each segment begins.
    """

    batch: dict[str, np.ndarray]
    starts: Sequence[int]

    def segment(self, number: int, previous: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The other fields of segment `number`, with B = 1.

        Args:
            previous: latents (F, h, w, c) of up to two segments before.
        """

    def join(self, segments: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Segments (F, H, W, 3) uint8, one by one -> the frames (n, H, W, 3) uint8, as soon as they are done."""


class FamilyInference(Protocol):
    """The functions of a family's module in `inference`.

    Attributes:
        DRIVEN_BY: what models see of the driving video, "keypoints" or "pixels".
        OPTIONS: names of the options of `make_job`.
        IN_PLACE: the options with which the result's face lies where the driver's does, as far as the family can.
    """

    DRIVEN_BY: str
    OPTIONS: Collection[str]
    IN_PLACE: Mapping[str, Any]

    def check_motion(self, config: "ModelConfig", fps: float, frames: int, **options: Any) -> None:
        """Refuse a driving video, or options of `make_job`, before any expensive work.

        Args:
            fps: frames per second of the video.
            frames: number of the frames to animate; 0: not known.
            options: some of `OPTIONS`.

        Raises:
            InputError: the model cannot use them.
        """

    def make_job(self, model: "Backend", portrait: Clip, attributes: "Attributes",
                 driving: Clip | np.ndarray, **options: Any) -> Job:
        """The job of a portrait, attributes and a motion; see `Animator.animate`."""

    def motion_fields(self, config: "ModelConfig", portrait: Clip, attributes: "Attributes",
                      references: Mapping[str, np.ndarray], driving: Clip, keypoints: np.ndarray
                      ) -> dict[str, np.ndarray]:
        """The fields with the motion of a clip of F frames, without B.

        Args:
            portrait: photo of the identity.
            attributes: kind and photo of each, see `inference.references.make_references`.
            references: fields of `transfer_batch` of these photos, without B, and perhaps attribute_weights (F, A).
            driving: F frames of any person in the wanted motion and place.
            keypoints: (F, K, 3) of the face that the result shall show.
        """

    def transfer_batch(self, model: "Checkpoint | Backend", cases: Sequence[tuple[Clip, "Attributes"]],
                       slots: int | None = None) -> dict[str, np.ndarray]:
        """The batch, without motion, in which portraits get attributes of other people.

        A family whose models transfer no attributes does not have it.

        Args:
            model: what the batch is for.
            cases: portrait, and kind and photo of every attribute, of each clip.
            slots: A; None: as many as the cases have.
        """


def motion_batch(config: "ModelConfig", references: Mapping[str, np.ndarray],
                 motions: Sequence[tuple[Clip, "Attributes", Clip, np.ndarray]]) -> dict[str, np.ndarray]:
    """`FamilyInference.motion_fields` of several clips of equal length, with a batch axis.

    Args:
        references: a batch of `FamilyInference.transfer_batch`.
        motions: portrait, attributes, driving clip and keypoints of each clip.
    """
    make = get_family(config.family).load("inference").motion_fields
    fields = [make(config, portrait, attributes, {name: x[row] for name, x in references.items()}, driving, keypoints)
              for row, (portrait, attributes, driving, keypoints) in enumerate(motions)]
    return {name: np.stack([one[name] for one in fields]) for name in fields[0]}


def check_transfers(config: "ModelConfig", what: str) -> None:
    """Refuse models that transfer no attributes.

    Args:
        what: needs such a model, for the error.

    Raises:
        InputError: the model's family has no `transfer_batch`.
    """
    if not hasattr(get_family(config.family).load("inference"), "transfer_batch"):
        raise InputError(f"{what}: expected a model that transfers attributes, found one of the family "
                         f"{config.family}; name another checkpoint")


def check_options(config: "ModelConfig", options: Collection[str]) -> None:
    """Refuse options that a model's family does not have.

    Args:
        options: names.

    Raises:
        InputError: some are not in the family's `OPTIONS`.
    """
    known = get_family(config.family).load("inference").OPTIONS
    unknown = sorted({*options} - {*known})
    if unknown:
        raise InputError(f"{', '.join(unknown)}: models of the family {config.family} take {', '.join(known)}; leave "
                         f"{'it' if len(unknown) == 1 else 'them'} out, or name a checkpoint of another family")


def check_driven_by(config: "ModelConfig", what: str, user: str) -> None:
    """Refuse models that see something else of the driving video.

    Args:
        what: "keypoints" or "pixels".
        user: needs such a model, for the error.

    Raises:
        InputError: the model's family has another `DRIVEN_BY`.
    """
    found = get_family(config.family).load("inference").DRIVEN_BY
    if found != what:
        raise InputError(f"{user}: expected a model driven by {what} of the video, found one driven by {found} (family "
                         f"{config.family}); name another checkpoint")
