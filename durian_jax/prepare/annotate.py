"""Annotate ordinary pictures and videos: keypoints, a stable crop and masks.

A video is read twice, frame by frame. The first pass keeps only the faces (`track`), which decide the runs and
boxes. The second pass cuts the crops. So memory holds only the pictures of the clips that are being cut.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.images import turned
from durian_jax.prepare.attribute_file import Attribute, attribute_of_kind, is_attribute_file, read_attribute
from durian_jax.prepare.attributes import Evidence
from durian_jax.prepare.crop import face_centre, face_height, head_box, smooth_track
from durian_jax.prepare.maskers import Masker, default_masker
from durian_jax.prepare.stretches import Crop, Stretch, cut_clips, finish, stretch_of, take
from durian_jax.prepare.track import (
    MIN_FACE_HEIGHT,
    Faces,
    Run,
    bridge,
    choose_face,
    choose_person,
    describe_ranges,
    find_faces,
)
from durian_jax.progress import SHORT, progress_bar
from durian_jax.video import iterate_video, probe_video, read_image

# What becomes of frames without a face, see `annotate_video`; and the longest gap in seconds that is bridged.
GAPS = ("skip", "bridge", "hold")
_BRIDGE = 0.5
# Photos with less evidence are refused. White beards give none, so beards have no limit. A photo without hair or hat
# gives an empty mask.
_LEAST_EVIDENCE = {"glasses": 0.15}


class FramesLeftOut(UserWarning):
    """Warning: frames of a video show no face and are skipped."""


class FramesBridged(UserWarning):
    """Warning: frames of a video show no face; the face moves on between its neighbours, or stands still."""


class FaceChosen(UserWarning):
    """Warning: one of several faces is used."""


class ColoursReduced(UserWarning):
    """Warning: a video has HDR colours, which become ordinary ones."""


class PictureTurned(UserWarning):
    """Warning: a picture or video is not upright and is turned."""


class UnsureAttribute(UserWarning):
    """Warning: a photo gives little evidence of an attribute that it is said to show."""


def annotate_image(path: str | Path, size: int = 128, known: tuple[str, ...] | None = None,
                   annotator: Annotator | None = None, face: str = "largest",
                   masker: Masker | None = default_masker) -> Clip:
    """Annotate a photo as a clip of one frame.

    A photo that is not upright is turned. A warning says so, and also which of several faces is used.

    A file of `save_attribute` stands for the photo that it was cut from, if `known` is its kind. It needs no annotator,
    and `face` and `masker` were chosen when it was saved.

    Args:
        path: a picture, or an attribute file.
        size: side of the square crop in pixels.
        known: attribute kinds that the person certainly wears (see `maskers.Masker`); None: judge all kinds from
            the pixels.
        annotator: a loaded annotator; None: load one for this call.
        face: of several faces "largest", "left", "right", or its number, counted from the left from 1.
        masker: finds the pixels of each attribute, see `maskers.make_masker`. None: no masks, which is faster; a
            driving video needs none.

    Raises:
        InputError: the picture is unreadable or shows no usable face, a known attribute is not found, or the
            annotator is not installed.
    """
    if is_attribute_file(path):
        return _stored_attribute(path, known).clip(size)
    return annotate_photo(path, [Crop(size, masker=masker, known=known)], annotator, face).clips[0]


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo of one person.

    Attributes:
        clips: the photo in each of the sizes that were asked for, as clips of one frame.
        evidence: of each attribute, at the first size.
        width, height: of the photo in pixels, upright.
        face_height: of the face in the photo, in pixels.
    """

    clips: list[Clip]
    evidence: Evidence
    width: int
    height: int
    face_height: float


def annotate_photo(path: str | Path, crops: Sequence[Crop], annotator: Annotator | None = None, face: str = "largest"
                   ) -> AnnotatedPhoto:
    """Annotate a photo in several sizes; see `annotate_image`.

    Args:
        path: a picture.
        crops: sizes and masks; `known` is the same in all of them.
        annotator: a loaded annotator; None: load one for this call.
        face: see `annotate_image`.

    Raises:
        InputError: see `annotate_image`.
    """
    image = read_image(path)
    annotator = annotator or Annotator()
    image = upright(image, annotator, path)
    points = _chosen_face(annotator.faces(image), path, face)
    run = Run(0, points[None])
    box = head_box(run.points, 1.0, *image.shape[:2])
    clips, found = [], []
    for crop in crops:
        stretch = Stretch(run, np.zeros(1, int), box, box, run.points, 25.0)
        take(stretch, image, 0, crop, None)
        clip, evidence = finish(stretch, crop, annotator)
        _check_known(path, crop.known or (), clip, evidence)
        clips.append(_named(clip, path))
        found.append(evidence)
    for kind in crops[0].known or ():
        _warn_unsure(path, kind, getattr(found[0], kind))
    return AnnotatedPhoto(clips, found[0], image.shape[1], image.shape[0], float(face_height(points)))


def check_photo(path: str | Path, known: tuple[str, ...] | None = None) -> None:
    """Refuse a file that `annotate_image` cannot read, before anything is looked for in it.

    Raises:
        InputError: the picture or attribute file is unreadable, or the file holds another attribute than `known`.
    """
    if is_attribute_file(path):
        _stored_attribute(path, known, warn=False)
    else:
        read_image(path)


def annotate_video(path: str | Path, size: int = 128, max_frames: int | None = None,
                   known: tuple[str, ...] | None = None, annotator: Annotator | None = None, face: str = "largest",
                   gaps: str = "skip", fps: float | None = None,
                   masker: Masker | None = default_masker) -> tuple[Clip, list[tuple[int, int]]]:
    """Annotate a person in a video, as one clip.

    A video that is not upright is turned. Warnings say so, which of several faces is used, and which frames show none.

    Args:
        path: a video.
        size: side of the square crop in pixels.
        max_frames: read at most this many frames; None: read all.
        known: attribute kinds that the person certainly wears; None: judge all kinds from the pixels.
        annotator: a loaded annotator; None: load one for this call.
        face: of several people "largest", "left", "right", or the number, counted from the left from 1.
        gaps: what becomes of frames without a face, one of `GAPS`. "skip": they are left out. "bridge": within half a
            second the face moves on to where it is seen again, and longer gaps are refused. "hold": in longer gaps the
            last face stands still.
        fps: frames per second to read; None: the video's.
        masker: finds the pixels of each attribute, see `maskers.make_masker`. None: no masks, which is faster; a
            driving video needs none.

    Returns:
        The clip, and the frames without a face as (first, last + 1) ranges.

    Raises:
        InputError: the video is unreadable or shows no usable face, a gap is too long, or the annotator is not
            installed.
    """
    if gaps not in GAPS:
        raise InputError(f"gaps: expected one of {', '.join(GAPS)}, found {gaps!r}")
    crop, info = Crop(size, masker=masker, known=known), probe_video(path).at_rate(fps)
    total = min(info.declared_frames or max_frames or 0, max_frames or info.declared_frames) or None
    annotator = annotator or Annotator()
    if info.hdr:
        warnings.warn(f"{path}: HDR colours ({info.hdr}); shown as ordinary ones", ColoursReduced, stacklevel=2)
    turns = annotator.turn(next(iterate_video(path, 1)))
    _warn_turned(turns, path)
    found = find_faces(_bar((turned(picture, turns) for picture in iterate_video(path, max_frames, fps=fps)), total,
                            f"finding the face in {Path(path).name}"), info.fps, annotator)
    if not found.runs:
        raise no_face(path, found)
    faces = replace(found, runs=choose_person(found.runs, face))
    people = len({run.person for run in found.runs})
    if people > 1:
        warnings.warn(f"{path}: {people} people; used: {_which(face)}", FaceChosen, stacklevel=2)
    missing = faces.faceless()
    if missing and gaps == "skip":
        warnings.warn(f"{path}: no face in frames {describe_ranges(missing)} of {len(faces)}; "
                      "these frames are skipped", FramesLeftOut, stacklevel=2)
    elif missing:
        faces = replace(faces, runs=_bridged(path, faces, missing, gaps))
    stretches = [stretch_of(run, smooth_track(run.points), faces, run.first, run.last) for run in faces.runs]
    pictures = _bar((turned(picture, turns) for picture in iterate_video(path, len(faces), fps=fps)), len(faces),
                    f"cropping {Path(path).name}")
    clips = [clip for _, clip, _ in cut_clips(pictures, stretches, crop, annotator)]
    joined = Clip(**{name: np.concatenate([getattr(clip, name) for clip in clips])
                     for name in ("frames", "keypoints", "masks", "box")}, fps=faces.fps)
    return _named(joined, path), missing


def upright(image: np.ndarray, annotator: Annotator, path: str | Path) -> np.ndarray:
    """Return a photo turned so that its heads are upright; a warning says so."""
    turns = annotator.turn(image)
    _warn_turned(turns, path)
    return turned(image, turns)


def no_face(path: str | Path, faces: Faces) -> InputError:
    """Return the error for a video without a usable face."""
    return InputError(f"no face found in any of the {len(faces)} frames of {path}; expected one "
                      f"frontal face at least {MIN_FACE_HEIGHT} px high; choose another video")


def _named(clip: Clip, path: str | Path) -> Clip:
    return Clip(clip.frames, clip.keypoints, clip.masks, clip.fps, Path(path).stem, box=clip.box)


def _stored_attribute(path: str | Path, known: tuple[str, ...] | None, warn: bool = True) -> Attribute:
    """Read an attribute file that stands for a photo."""
    if known is None or len(known) != 1:
        kind = read_attribute(path).kind
        raise InputError(f"{path}: expected a photo of a person, found an attribute file, which shows only {kind}; "
                         f"name it as the attribute {kind}={path}")
    attribute = attribute_of_kind(path, known[0])
    if warn:
        _warn_unsure(path, attribute.kind, attribute.origin.evidence)
    return attribute


def _check_known(path: str | Path, known: Sequence[str], clip: Clip, evidence: Evidence) -> None:
    """Refuse a photo that does not show the kinds that the person is said to wear."""
    for kind in known:
        if not clip.mask(kind).any() or getattr(evidence, kind) < _LEAST_EVIDENCE.get(kind, 0):
            seen = ", ".join(evidence.present()) or "none of the kinds that can be transferred"
            raise InputError(f"{path}: no {kind} found on the person (found: {seen}); choose a photo that shows it "
                             "clearly")


def _warn_unsure(path: str | Path, kind: str, evidence: float) -> None:
    if evidence < 1:
        warnings.warn(f"{path}: little evidence of {kind} was found, so another part of the photo may be "
                      "transferred; choose another photo, or look at the result", UnsureAttribute, stacklevel=4)


def _chosen_face(faces: np.ndarray, path: str | Path, which: str) -> np.ndarray:
    """Return the (478, 3) points of a face of a photo; see `annotate_image`."""
    if not len(faces):
        raise InputError(f"no face found in {path}; expected one frontal face at least {MIN_FACE_HEIGHT} "
                         "px high; choose another photo")
    heights = face_height(faces)
    large = faces[heights >= MIN_FACE_HEIGHT]
    if not len(large):
        raise InputError(f"the face in {path} is {heights.max():.0f} px high; expected at least "
                         f"{MIN_FACE_HEIGHT} px; choose a photo with a larger face")
    chosen = choose_face(face_centre(large)[:, 0], face_height(large), which)
    if len(large) > 1:
        warnings.warn(f"{path}: {len(large)} faces; used: {_which(which)}", FaceChosen, stacklevel=4)
    return large[chosen]


def _bridged(path: str | Path, faces: Faces, missing: list[tuple[int, int]], gaps: str) -> list[Run]:
    """Runs that cover all frames; see `annotate_video`."""
    longest = int(_BRIDGE * faces.fps)
    long = [gap for gap in missing if gap[1] - gap[0] > longest]
    if long and gaps == "bridge":
        raise InputError(f"{path}: no face found in frames {describe_ranges(long)}; expected one in every frame, or "
                         f"none for at most {longest} frames; cut these frames out, stop before them with --frames, or "
                         "let the last face stand still with --gaps hold")
    warnings.warn(f"{path}: no face in frames {describe_ranges(missing)} of {len(faces)}; the face "
                  + ("stands still" if long else "moves on to where it is seen again"), FramesBridged, stacklevel=3)
    return bridge(faces.runs, faces.cuts, longest)


def _warn_turned(turns: int, path: str | Path) -> None:
    if turns:
        angle = {1: "90 degrees to the left", 2: "180 degrees", 3: "90 degrees to the right"}[turns]
        warnings.warn(f"{path}: not upright; turned by {angle}", PictureTurned, stacklevel=3)


def _which(face: str) -> str:
    return f"number {face} from the left" if face.isdecimal() else f"the {face}{'most' * (face != 'largest')} one"


def _bar(iterable: Iterable, total: int | None, words: str) -> tqdm:
    return progress_bar(iterable, total=total, desc=words, unit="frame", leave=False, delay=SHORT)
