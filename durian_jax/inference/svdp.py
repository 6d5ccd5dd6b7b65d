"""SVDP's inputs as batches: the source, attributes from other photos, and the driver's eyes, nose and mouth.

T frames of the video, F frames of a segment, A attributes, H x W pixels, h x w latents, K keypoints. A photo is a clip
of one frame.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.driven_face import motion_in_plane
from durian_jax.faces.fill_region import LAYERS, ordered_layers
from durian_jax.faces.moved_references import Reference, driver_on_face, on_faces
from durian_jax.faces.regions import driven_region
from durian_jax.faces.topology import GROUPS, REGION_KINDS, RIGID
from durian_jax.faces.warp import similarity, transform_keypoints, warp_image
from durian_jax.images import to_float
from durian_jax.inference.references import Attributes, Interpolation, blend_weights, stacked_references, with_photos
from durian_jax.inference.segments import history_before, joined, segment_length, segment_starts
from durian_jax.models.svdp.config import SVDPConfig, rate_fits

if TYPE_CHECKING:
    from durian_jax.checkpoints.weights import Checkpoint
    from durian_jax.inference.backend import Backend

DRIVEN_BY = "pixels"
OPTIONS = ("interpolate", "order", "absolute", "align_frame", "regions")
IN_PLACE = {"absolute": True}

# Share of the frames in which both eyes must lie inside the picture and show something.
_EYES_VISIBLE = 0.5
# Standard deviation, in grey levels, of a region in which nothing can be seen: noise of a camera and of compression.
_PLAIN = 4.0


@dataclass(frozen=True)
class SegmentsJob:
    """A video in segments, each of which continues the one before; see `inference.family.Job`.

    Attributes:
        batch: reference fields and attribute_valid.
        regions, masks: (T, H, W, 3) uint8 and (T, H, W) bool, the driver's regions in the whole video.
        length: F.
        history: T frames that a segment continues.
        moved: makes the fields of `moved_references` for (F, K, 3) keypoints of the driver and the (F, A) weights of
            these frames; None: the model has no `aligned_pictures`.
        keypoints: (T, K, 3) of the driver.
        face: (K, 3) of the portrait, onto which the driver's regions are moved; None: they stay, as without
            `aligned_pictures`.
        weights: (T, A) blend the attributes, see `inference.references.blend_weights`; None: they are composed.
    """

    batch: dict[str, np.ndarray]
    regions: np.ndarray
    masks: np.ndarray
    length: int
    history: int
    keypoints: np.ndarray
    moved: Callable[[np.ndarray, np.ndarray | None], dict[str, np.ndarray]] | None = None
    face: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def starts(self) -> list[int]:
        """First frame of every segment."""
        return segment_starts(len(self.regions), self.length)

    def segment(self, number: int, previous: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The driver's regions, and after the first segment the latents of the frames before: never encoded again."""
        start = self.starts[number]
        part = slice(start, start + self.length)
        fields = driver_fields(self.regions[part], self.masks[part], self.keypoints[part], self.face)
        weights = None if self.weights is None else self.weights[part]
        if self.moved is not None:
            fields |= self.moved(self.keypoints[part], weights)
        if weights is not None:
            fields["attribute_weights"] = weights
        fields = {name: x[None] for name, x in fields.items()}
        before = history_before(number, self.starts, previous, self.history)
        if before is None:
            return fields
        return {**fields, "history_latents": before[None], "history_valid": np.ones(1, np.float32)}

    def join(self, segments: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Put the segments one after the other."""
        return joined(segments, self.starts)


def check_motion(config: SVDPConfig, fps: float, frames: int, *, absolute: bool = False,
                 align_frame: int | None = None, regions: Sequence[str] = REGION_KINDS, **options: Any) -> None:
    """Refuse a driving video or options; see `inference.family.FamilyInference`.

    Raises:
        InputError: another frame rate than in training, an unknown region, or no such frame.
    """
    if isinstance(regions, str) or not regions or not set(regions) <= set(REGION_KINDS):
        raise InputError(f"regions: expected a list with some of {', '.join(REGION_KINDS)}, found {regions or 'none'}")
    if frames != 1 and not rate_fits(fps, config.fps):
        raise InputError(f"driving video: expected about {config.fps:g} frames per second, as in training, found "
                         f"{fps:g}; resample it (--fps {config.fps:g})")
    if not isinstance(align_frame, int | np.integer | None) or isinstance(align_frame, bool):
        raise InputError(f"align_frame: expected the number of a frame, found {align_frame!r}")
    if align_frame is not None and absolute:
        raise InputError("align_frame chooses the frame in which the driver's head is moved onto the portrait's, and "
                         "absolute leaves it where it is; choose one")
    if align_frame is not None and not 0 <= align_frame < (frames or align_frame + 1):
        raise InputError(f"align_frame: expected 0..{frames - 1}, found {align_frame}")


def make_job(model: "Backend", portrait: Clip, attributes: Attributes, driving: Clip | np.ndarray, *,
             interpolate: Interpolation | None = None, order: Sequence[str] = (),
             absolute: bool = False, align_frame: int | None = None, regions: Sequence[str] = REGION_KINDS
             ) -> SegmentsJob:
    """The job of a video, see `Animator.animate`.

    Args:
        interpolate: blend attributes, see `inference.references.blend_weights`.
        order: which attributes cover others, see `faces.fill_region.ordered_layers`.
        absolute: leave the driver where it is; else one similarity moves all its frames so that in one frame its head
            has the portrait's place, size and roll.
        align_frame: number of this frame; None: the one that is most like the portrait.
        regions: of the driver that the model sees, some of `REGION_KINDS`.

    Raises:
        InputError: a driver without pixels, without visible eyes or with another frame rate, an unknown region,
            frame or kind in `order`, or weights that do not fit the attributes.
    """
    config = model.config
    assert isinstance(config, SVDPConfig)
    if not isinstance(driving, Clip):
        raise InputError("this model is driven by pixels of eyes, nose and mouth: expected a driving clip, found "
                         "keypoints alone")
    check_motion(config, driving.fps, len(driving), absolute=absolute, align_frame=align_frame, regions=regions)
    height, width = driving.frames.shape[1:3]
    if height != width:
        raise InputError(f"driving clip: expected square pictures, found {width} x {height}; crop it, as "
                         "`annotate_video` does")
    if not absolute:
        driving = aligned(driving, portrait, align_frame)
    if "eyes" in regions:
        check_eyes(driving)
    size = config.image_size
    frames = driving.frames if driving.frames.shape[1:3] == (size, size) else np.stack(
        [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in driving.frames])
    masks = np.stack([driven_region(keypoints, size, size, regions) for keypoints in driving.keypoints])
    weights, layers = blend_weights(interpolate, attributes, len(driving)), ordered_layers(order)
    batch = transfer_batch(model, [(portrait, attributes)], layers=layers)
    references = {name: x[0] for name, x in batch.items()}
    moved = partial(moved_references, portrait, attributes, references, regions=regions,
                    layers=layers) if config.aligned_pictures else None
    return SegmentsJob(batch, frames, masks, segment_length(len(frames), config.max_frames, config.history),
                       config.history, driving.keypoints, moved,
                       portrait.keypoints[0] if config.aligned_pictures else None, weights)


def driver_fields(pictures: np.ndarray, masks: np.ndarray, keypoints: np.ndarray, face: np.ndarray | None
                  ) -> dict[str, np.ndarray]:
    """What the model sees of a driver's F frames: driving_regions (F, H, W, 3), 0 elsewhere, and driving_masks.

    Args:
        pictures, masks, keypoints: (F, H, W, 3) uint8, (F, H, W) bool and (F, K, 3).
        face: (K, 3) of the portrait, see `SegmentsJob`.
    """
    if face is not None:
        pictures, masks = driver_on_face(pictures, masks, keypoints, face)
    known = masks[..., None].astype(np.float32)
    return {"driving_regions": to_float(pictures) * known, "driving_masks": known}


def motion_fields(config: SVDPConfig, portrait: Clip, attributes: Attributes,
                  references: Mapping[str, np.ndarray], driving: Clip, keypoints: np.ndarray) -> dict[str, np.ndarray]:
    """The motion of a clip; see `inference.family.FamilyInference`."""
    size = config.image_size
    masks = np.stack([driven_region(face, size, size) for face in driving.keypoints])
    fields = driver_fields(driving.frames, masks, driving.keypoints,
                           portrait.keypoints[0] if config.aligned_pictures else None)
    return fields if not config.aligned_pictures else {
        **fields, **moved_references(portrait, attributes, references, driving.keypoints,
                                     references.get("attribute_weights"))}


def moved_references(portrait: Clip, attributes: Attributes, references: Mapping[str, np.ndarray], faces: np.ndarray,
                     weights: np.ndarray | None = None, regions: Sequence[str] = REGION_KINDS,
                     layers: Sequence[str] = LAYERS) -> dict[str, np.ndarray]:
    """Source and attributes on the driver's face, as models with `aligned_pictures` see them.

    Args:
        portrait, attributes: photos, for their keypoints.
        references: their fields of `inference.references.make_references`.
        faces: (F, K, 3) keypoints of the driver.
        weights: (F, A) blend the attributes; None: they are composed.
        regions: of the driver that the model sees.
        layers: attribute kinds from the skin outwards.

    Returns:
        moved_source and moved_attributes (F, H, W, 3), 0 where nothing is known, and their masks (F, H, W, 1); float32.
    """
    source = Reference(references["portrait"], references["portrait_mask"][..., 0] == 0, portrait.keypoints[0])
    worn = [Reference(picture, mask[..., 0] > 0, photo.keypoints[0], kind) for (kind, photo), picture, mask in zip(
        with_photos(attributes), references["attributes"], references["attribute_masks"], strict=False)]
    fields: dict[str, np.ndarray] = {}
    blank = np.zeros_like(source.picture)
    for name, pictured, shares in (("moved_source", [source], None), ("moved_attributes", worn, weights)):
        pictures, known = on_faces(pictured, faces, blank, shares, regions, layers)
        fields |= {name: pictures, f"{name}_masks": known[..., None]}
    return fields


def aligned(driving: Clip, portrait: Clip, frame: int | None = None) -> Clip:
    """Move all frames of a driver by one similarity, so that in one frame its head lies where the portrait's does.

    Args:
        driving: T frames of square pictures.
        portrait: a photo.
        frame: number of the frame to align; None: `most_similar_frame`.

    Raises:
        InputError: no such frame.
    """
    if frame is None:
        frame = most_similar_frame(driving.keypoints, portrait.keypoints[0])
    if not 0 <= frame < len(driving):
        raise InputError(f"align_frame: expected 0..{len(driving) - 1}, found {frame}")
    side = driving.frames.shape[1]
    move = motion_in_plane(driving.keypoints[frame], portrait.keypoints[0], side)
    return Clip(np.stack([warp_image(image, move, "replicate") for image in driving.frames]),
                transform_keypoints(driving.keypoints, move, side, side), np.zeros_like(driving.masks), driving.fps,
                driving.identity)


def most_similar_frame(keypoints: np.ndarray, target: np.ndarray) -> int:
    """The frame of (T, K, 3) keypoints whose face, moved by a similarity, is nearest to (K, 3) target keypoints."""
    def distance(face: np.ndarray) -> float:
        move = similarity(face[RIGID, :2], target[RIGID, :2])
        moved = face[:, :2] @ move[:, :2].T + move[:, 2]
        return float(((moved - target[:, :2]) ** 2).sum())
    return int(np.argmin([distance(face) for face in keypoints]))


def check_eyes(driving: Clip) -> None:
    """Refuse a driver whose eyes cannot be seen.

    Raises:
        InputError: in more than half of the frames an eye lies outside the picture, or nothing is seen at its place.
    """
    eyes = np.concatenate([driving.keypoints[:, GROUPS[name], :2] for name in ("right_eye", "left_eye")], 1)
    inside = ((eyes >= 0) & (eyes <= 1)).all((1, 2))
    if inside.mean() < _EYES_VISIBLE:
        raise InputError(f"driving clip: expected both eyes in the picture, found them in {int(inside.sum())} of "
                         f"{len(driving)} frames; choose another video or alignment frame")
    height, width = driving.frames.shape[1:3]
    seen = [frame[driven_region(keypoints, height, width, ("eyes",))].mean(-1).std() > _PLAIN
            for frame, keypoints in zip(driving.frames[inside], driving.keypoints[inside], strict=True)]
    if np.mean(seen) < _EYES_VISIBLE:
        raise InputError(f"driving clip: expected visible eyes, found something plain over them in "
                         f"{len(seen) - sum(seen)} of {len(seen)} frames; choose another video")


def transfer_batch(model: "Checkpoint | Backend", cases: Sequence[tuple[Clip, Attributes]], slots: int | None = None,
                   layers: Sequence[str] = LAYERS) -> dict[str, np.ndarray]:
    """The references of clips, without motion; see `inference.family.FamilyInference`."""
    return stacked_references(cases, slots, least=0, layers=layers)
