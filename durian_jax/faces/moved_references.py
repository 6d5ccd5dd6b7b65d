"""Reference pictures turned into the head poses of a driving clip.

The face of a reference turns in space as the driver's head does and keeps its shape; gaze and mouth are the driver's
(`faces.driven_face`). A spline moves the picture: through the face's points, and through two rings around the head. The
outline of a head hardly depends on where it looks, but the points of the face that lie before it move far.

T frames, H x W pixels, K keypoints. Pictures are uint8 or float; results have their dtype.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.faces.driven_face import driven_faces, head_motion, shaped_faces, turn_in_plane
from durian_jax.faces.face_shape import LIPS
from durian_jax.faces.fill_region import LAYERS
from durian_jax.faces.topology import GROUPS, POSITION, REGION_KINDS, K
from durian_jax.faces.warp import spline_field

# A moved pixel counts as known if more than this share of it comes from known ones.
_WHOLLY = 0.99
# Points that move by themselves: the spline passes nearly through them, and bends little elsewhere.
_IRISES = [np.arange(K)[GROUPS[f"{side}_iris"]] for side in ("right", "left")]
_LOCAL = np.concatenate([LIPS, *_IRISES])
# Of the other points, every second one is as good as all, and much faster.
_POINTS = np.union1d(np.arange(0, K, 2), _LOCAL)
_SMOOTH, _SMOOTH_LOCAL = 0.05, 0.01  # best of a few values for drawn people in the poses of others
_GRID = 32  # nodes per side, close enough for irises
# Points of what a driver shows.
_SHOWN = np.concatenate([np.arange(K)[GROUPS[name]] for name in GROUPS if name.endswith(("eye", "iris", "lips"))
                         or name.startswith("nose")])
# What worn things follow: a beard moves with the mouth.
_WORN_FOLLOW = {"mouth"}

_EARS, _FOREHEAD, _CHIN = [POSITION[234], POSITION[454]], POSITION[10], POSITION[152]
# The rings, in widths of the face: radii, and how far their centre lies behind the ears; best for drawn people.
_RINGS, _BEHIND = (0.75, 1.15), 0.12
_RING_POINTS = 12


@dataclass(frozen=True)
class Reference:
    """A picture of a face, or of something that a face wears.

    Attributes:
        picture: (H, W, 3).
        known: (H, W) bool, pixels that may be shown.
        keypoints: (K, 3) of the face.
        kind: of the attribute; "": the source.
    """

    picture: np.ndarray
    known: np.ndarray
    keypoints: np.ndarray
    kind: str = ""

    def on(self, faces: np.ndarray, regions: Collection[str] = REGION_KINDS) -> tuple[np.ndarray, np.ndarray]:
        """The picture in the poses of (T, K, 3) faces: (T, H, W, 3), and (T, H, W) bool, what is known of it.

        Its gaze and mouth are theirs as far as `regions` allow, see `driven_faces`.
        """
        motion = head_motion(self.keypoints, faces)
        follow = {*regions} & _WORN_FOLLOW if self.kind else regions
        driven = driven_faces(self.keypoints, faces, motion, follow)[:, _POINTS, :2]
        around, turned_around = head_rings(self.keypoints, *motion)
        sources = np.concatenate([self.keypoints[_POINTS, :2], around])
        smooth = np.where(np.isin(_POINTS, _LOCAL), _SMOOTH_LOCAL, _SMOOTH)
        smooth = np.concatenate([smooth, np.full(len(around), _SMOOTH)])
        known = self.known.view(np.uint8) * np.uint8(255)
        pictures, shares = [], []
        for targets in np.concatenate([driven, turned_around], 1):
            origin = spline_field(targets, sources, *self.known.shape, smooth, _GRID)
            pictures.append(cv2.remap(self.picture, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
            shares.append(cv2.remap(known, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
        return np.stack(pictures), np.stack(shares) > 255 * _WHOLLY


def head_rings(face: np.ndarray, scale: np.ndarray, rotation: np.ndarray, shift: np.ndarray
               ) -> tuple[np.ndarray, np.ndarray]:
    """Points around a head whose outline turns, and where a motion takes them.

    Their centre, a point behind the ears, moves with the head. The rings themselves follow scale and roll only.

    Args:
        face: (K, 3).
        scale, rotation, shift: (T), (T, 3, 3), (T, 3), see `head_motion`.

    Returns:
        (P, 2) points, and (T, P, 2) where they go, in the keypoints' unit.
    """
    right, left = face[_EARS]
    width = np.linalg.norm(left - right)
    backward = np.cross(left - right, face[_CHIN] - face[_FOREHEAD])
    centre = (right + left) / 2 + _BEHIND * width * backward / np.linalg.norm(backward)
    angles = np.arange(_RING_POINTS) * (2 * np.pi / _RING_POINTS)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    offsets = np.concatenate([radius * width * ring for radius in _RINGS])
    moved = scale[:, None] * (rotation @ centre) + shift
    return (centre[:2] + offsets,
            moved[:, None, :2] + scale[:, None, None] * (offsets @ turn_in_plane(rotation).swapaxes(1, 2)))


def on_faces(references: Sequence[Reference], faces: np.ndarray, blank: np.ndarray,
             weights: np.ndarray | None = None, regions: Collection[str] = REGION_KINDS,
             layers: Sequence[str] = LAYERS) -> tuple[np.ndarray, np.ndarray]:
    """References on the faces of a clip, on top of each other as they are worn.

    Args:
        references: the source alone, or attributes.
        faces: (T, K, 3).
        blank: (H, W, 3), what unknown pixels show; decides size and dtype.
        weights: (T, R) of each reference in every frame. Those of at least 0 are of one kind, sum to 1 and are blended.
            None: none are.
        regions: of the driver that gaze and mouth follow.
        layers: attribute kinds from the skin outwards.

    Returns:
        (T, H, W, 3) pictures, and (T, H, W) float32, the share of each pixel that is known: 0 or 1 without weights.
    """
    pictures = np.repeat(blank[None], len(faces), 0)
    known = np.zeros(pictures.shape[:3], np.float32)
    weights = np.full((len(faces), len(references)), -1, np.float32) if weights is None else weights
    pairs = list(zip(references, weights.T[..., None, None], strict=True))
    blended = [(reference, weight) for reference, weight in pairs if weight.min() >= 0]
    groups = [[(reference, np.float32(1))] for reference, weight in pairs if weight.min() < 0]
    groups += [blended] if blended else []
    for group in sorted(groups, key=lambda group: (*layers, "").index(group[0][0].kind)):
        total, share = np.zeros(pictures.shape, np.float32), np.zeros_like(known)
        for reference, weight in group:
            moved, shown = reference.on(faces, regions)
            total += (weight * shown)[..., None] * moved
            share += weight * shown
        # The mean over what is known. The model multiplies it by the share.
        below = known * (1 - share)
        known = share + below
        mean = (total + below[..., None] * pictures) / np.maximum(known, 1e-6)[..., None]
        if np.issubdtype(pictures.dtype, np.integer):
            mean = np.rint(mean)
        pictures = np.where(known[..., None] > 0, mean, pictures).astype(pictures.dtype)
    return pictures, known


def driver_on_face(pictures: np.ndarray, known: np.ndarray, faces: np.ndarray, face: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray]:
    """A driver's regions, moved onto the face that they drive: they get its shape and place.

    Args:
        pictures: (T, H, W, 3) of the driver.
        known: (T, H, W) bool, pixels that may be shown.
        faces: (T, K, 3) of the driver.
        face: (K, 3) of the person.

    Returns:
        (T, H, W, 3) pictures, 0 where nothing is known, and (T, H, W) bool, what is known of them.
    """
    targets = shaped_faces(face, faces, head_motion(face, faces))[:, _SHOWN, :2]
    moved, shares = np.empty_like(pictures), np.empty(known.shape, bool)
    for t, (picture, mask) in enumerate(zip(pictures, known, strict=True)):
        origin = spline_field(targets[t], faces[t, _SHOWN, :2], *mask.shape, _SMOOTH_LOCAL, _GRID)
        warp = lambda field, origin=origin: cv2.remap(field.astype(np.float32), origin, None, cv2.INTER_LINEAR,
                                                      borderMode=cv2.BORDER_CONSTANT)
        share = warp(mask)
        shares[t] = share > 0.5
        # The mean over known pixels.
        mean = warp(picture * mask[..., None]) / np.maximum(share, 0.5)[..., None]
        mean = np.rint(mean) if np.issubdtype(pictures.dtype, np.integer) else mean
        moved[t] = np.where(shares[t][..., None], mean, 0)
    return moved, shares
