"""`durian check`: find the problems of a photo or a driving video within seconds, and say how to fix them.

The limits are set so that ordinary talking heads pass. A false alarm costs more than a miss, because it teaches users
to ignore the next one. S is the number of frames sampled for the face mesh, T the number of all frames.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.prepare.annotate import UnsureAttribute, annotate_image
from durian_jax.prepare.attribute_file import Attribute, is_attribute_file, read_attribute
from durian_jax.prepare.crop import FACE_CENTRE, FACE_HEIGHT, face_height, frame_ranges
from durian_jax.prepare.look import Look, faceless, find_cuts, look_at_photo, look_at_video, measure, outside_crop
from durian_jax.prepare.track import MIN_FACE_HEIGHT, describe_ranges
from durian_jax.progress import SHORT, progress_bar
from durian_jax.video import PHOTO_SUFFIXES, VIDEO_SUFFIXES
from durian_jax.video.given import existing_file
from durian_jax.video.pictures import DamagedPicture

# A second face counts from this share of the largest face's height.
_OTHER_FACE = 0.4
# Picture sizes of the models that the messages name, in pixels: the shipped model and the paper's.
_SMALL_MODEL, _LARGE_MODEL = 128, 512
# Space that a crop needs above the hairline, in face heights. Less than the second value always cuts off a hat.
_HEADROOM, _LEAST_HEADROOM = (FACE_CENTRE - FACE_HEIGHT / 2) / FACE_HEIGHT, 0.3
# Largest yaw, pitch and roll in degrees. Beyond them a photo shows too little of the face, and the mesh cannot follow
# a video. A photo beyond the last value, a yaw, is an error.
_PHOTO_POSE, _VIDEO_POSE, _LOST_YAW = (25, 25, 30), (40, 30, 40), 50
# Sharp faces have at least 0.4 and a median of 0.6. A blur of 1.5 % of the face height reduces it to this value.
_BLURRED = 0.32
# Limits for `quality.exposure`. The darkest usable clip in our collection has 0.40.
_DARK, _WHITE = 0.25, 0.15
# Smallest distance to the picture's edge in face heights. In a video the mesh still works slightly beyond the edge.
_PHOTO_EDGE, _VIDEO_EDGE = 0.03, -0.03
# Limits of a calm face. Mouth and eyes are as in `faces.quality` (teeth may show). Eyes are closed below this share of
# their median in the video. The last limit is for yaw, pitch and roll, in degrees.
_MOUTH, _EYES, _CLOSED, _CALM_POSE = 0.3, 0.15, 0.5, 20
# Smallest number of frames (the default of `durian prepare`) and smallest frame rate.
_LEAST_FRAMES, _LEAST_FPS = 8, 12


@dataclass(frozen=True)
class Finding:
    """One problem of a file.

    Attributes:
        level: "error" (`durian animate` refuses the file or cannot produce a face) or "warning".
        code: short name of the problem, such as "small-face".
        message: the measured value and the limit.
        fix: what the user can do.
        frames: ranges (first, last + 1) in a video; empty if the whole file is meant.
    """

    level: str
    code: str
    message: str
    fix: str
    frames: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Report:
    """Findings and measures of one file.

    Attributes:
        file: the path as it was given.
        kind: "photo", "video" or "attribute file"; "file" if neither its name nor its content tells.
        findings: errors first.
        measures: values by name (see `look.measure`); for a video, the median over its frames. `largest_model` is
            the picture size up to which the face needs no enlargement. `second_face` is another face's height. A video
            with `whole_seconds` is this long, and only its first `seconds` were looked at.
        attribute: kind to take from the photo; empty if none was asked for.
    """

    file: str
    kind: str
    findings: tuple[Finding, ...]
    measures: dict[str, Any]
    attribute: str = ""

    @property
    def ok(self) -> bool:
        """Whether the report has no error."""
        return all(finding.level != "error" for finding in self.findings)

    def as_dict(self) -> dict:
        """Return the report as a dictionary for JSON; frame ranges stay (first, last + 1)."""
        return {**asdict(self), "ok": self.ok}


def check_files(paths: Sequence[str | Path], annotator: Annotator | None = None,
                attributes: Sequence[tuple[str, str | Path]] = ()) -> list[Report]:
    """Return a report on each photo, video or attribute file, in order.

    An unreadable file gets an error in its report and does not stop the others.

    Args:
        paths: photos, videos and attribute files. The suffix tells which one a file is; for an unknown suffix the
            content does.
        annotator: a loaded annotator; None: load one for this call.
        attributes: (kind, photo) pairs. Also check whether each photo, or attribute file, shows its attribute.

    Raises:
        InputError: the annotator is not installed.
    """
    annotator, reports = annotator or Annotator(), []
    asked = [("", path) for path in paths] + list(attributes)
    for attribute, path in progress_bar(asked, desc="checking", unit="file", leave=False, delay=SHORT,
                                        disable=len(asked) < 2):
        kind = "attribute file" if is_attribute_file(path) else "photo" if attribute else _kind(Path(path))
        try:
            if is_attribute_file(path):
                stored = read_attribute(path)
                findings, measures = _of_attribute(path, attribute or stored.kind, annotator), _stored_measures(stored)
            else:
                look, damage = _look(path, kind, annotator)
                findings, measures = _judge(look)
                findings += damage
                if attribute:
                    findings = [finding for finding in findings if finding.code != "not-neutral"]
                    findings += _of_attribute(path, attribute, annotator) if look.seen.any() else []
        except InputError as error:
            findings, measures = [_unreadable(path, error)], {}
        except Exception as error:  # noqa: BLE001 (one odd file must not stop the others)
            findings, measures = [_unreadable(path, f"unexpected {type(error).__name__}: {error}")], {}
        findings = sorted(findings, key=lambda finding: finding.level != "error")
        reports.append(Report(str(path), kind, tuple(findings), measures, attribute))
    return reports


def _look(path: str | Path, kind: str, annotator: Annotator) -> tuple[Look, list[Finding]]:
    """Return the `Look` of a file, and what its decoder says of damage."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always", DamagedPicture)
        if kind == "file":
            path = existing_file(path, "a photo or a video")
        look = look_at_photo(path, annotator) if kind == "photo" else look_at_video(path, annotator)
    damage = []
    for one in given:
        if issubclass(one.category, DamagedPicture):
            damage.append(Finding("warning", "damaged", *_message_and_fix(path, one.message)))
        else:
            warnings.warn(one.message, one.category, stacklevel=2)
    return look, damage


def _of_attribute(path: str | Path, attribute: str, annotator: Annotator) -> list[Finding]:
    """Return a finding if the photo lacks the attribute or shows it unclearly, judged at the crop's default size."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always", UnsureAttribute)
        try:
            annotate_image(path, known=(attribute,), annotator=annotator)
        except InputError as error:
            return [Finding("error", "no-attribute", *_message_and_fix(path, error))]
    return [Finding("warning", "unsure-attribute", *_message_and_fix(path, one.message)) for one in given
            if issubclass(one.category, UnsureAttribute)]


def _stored_measures(stored: Attribute) -> dict[str, Any]:
    """The measures of the photo that an attribute file comes from."""
    origin = stored.origin
    return {"width": origin.width, "height": origin.height, "face_height": origin.face_height,
            "largest_model": origin.crop, "evidence": origin.evidence}


def describe(report: Report) -> str:
    """Format a report as text: one line for the file, then one line per finding, or "ok"."""
    measures, about = report.measures, report.kind + (f" to take {report.attribute} from" if report.attribute else "")
    if measures:
        about += f", {measures['width']} x {measures['height']}"
    if "seconds" in measures:
        about += f", {measures['frames']} frames in {measures['seconds']:.1f} s"
    if "whole_seconds" in measures:
        about += f" (only the beginning of {measures['whole_seconds']:.1f} s was looked at)"
    if "hdr" in measures:
        about += f", HDR colours ({measures['hdr']}) shown as ordinary ones"
    if "face_height" in measures:
        about += (f", face {measures['face_height']:.0f} px high "
                  f"(enough for models up to {measures['largest_model']:.0f} px)")
    lines = [f"{report.file}: {about}"]
    for finding in report.findings:
        numbers = describe_ranges(list(finding.frames))
        where = f" in frame{'' if numbers.isdigit() else 's'} {numbers}" if numbers else ""
        lines.append(f"  {finding.level} {finding.code}{where}: {finding.message}; {finding.fix}")
    return "\n".join(lines if report.findings else [*lines, "  ok"])


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in PHOTO_SUFFIXES + VIDEO_SUFFIXES:
        return "photo" if suffix in PHOTO_SUFFIXES else "video"
    if not path.is_file():
        return "file"
    return "photo" if cv2.haveImageReader(str(path)) else "video"


def _judge(look: Look) -> tuple[list[Finding], dict[str, Any]]:
    """Return the findings and the measures of a file."""
    measures: dict[str, Any] = {"width": look.width, "height": look.height}
    if look.fps:
        measures |= {"hdr": look.hdr} if look.hdr else {}
        measures |= {"frames": len(look), "fps": round(look.fps, 3), "seconds": round(len(look) / look.fps, 3)}
        if look.total > len(look):
            measures["whole_seconds"] = round(look.total / look.fps, 3)
    if not look.seen.any():
        return [_no_face(look)], measures
    values = measure(look)
    measures |= {name: round(float(np.nanmedian(value)), 3) for name, value in values.items()}
    measures["second_face"] = round(max(look.others.values(), default=0.0), 1)
    judges = (_of_frames, _of_video if look.fps else _of_photo)
    return [finding for judge in judges for finding in judge(look, values)], measures


def _of_frames(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Yield the findings that apply to a photo and to every frame of a video."""
    def found(code, flags, message, fix, level="warning"):
        # One or two frames of a video do little harm and may be false detections.
        flags = _lasting(flags, 3) if look.fps else flags
        if flags.any():
            yield Finding(level, code, message(flags), fix, () if flags.all() else look.ranges(flags))

    if look.turns:
        yield Finding("warning", "not-upright", f"the heads are upright after {look.turns} quarter turns to the left",
                      "do nothing: it is turned automatically")
    tall, sharp, light, white, lips = (values[k] for k in ("face_height", "sharpness", "light", "white", "lips"))
    need = "the {} px model needs {:.0f} px".format
    yield from found(
        "small-face", values["largest_model"] < _SMALL_MODEL,
        lambda where: f"the face is {tall[where].min():.0f} px high; {need(_SMALL_MODEL, _SMALL_MODEL * FACE_HEIGHT)}, "
                      f"{need(_LARGE_MODEL, _LARGE_MODEL * FACE_HEIGHT)}",
        "use a larger original or film closer; upscaling adds no detail")
    yield from found(
        "blurred", sharp < _BLURRED,
        lambda where: f"the face's sharpness is {sharp[where].min():.2f}, expected at least {_BLURRED}",
        "choose a file in focus and without motion blur")
    yield from found(
        "dark-or-bright", light < _DARK,
        lambda where: f"the brightest parts of the face reach {light[where].min():.0%} of full brightness, expected at "
                      f"least {_DARK:.0%}", "use a file with more light; brightening it amplifies noise")
    yield from found(
        "dark-or-bright", white > _WHITE,
        lambda where: f"{white[where].max():.0%} of the face is pure white, expected at most {_WHITE:.0%}",
        "use a file with softer light; white areas cannot be recovered")
    limit = _VIDEO_EDGE if look.fps else _PHOTO_EDGE
    gap = values["edge"] * tall
    yield from found(
        "face-at-edge", values["edge"] < limit,
        lambda where: f"the distance from the face to the picture's edge is {np.nanmin(gap[where]):.0f} px, expected "
                      f"at least {limit * np.nanmedian(tall[where]):.0f}", "choose a file that shows the whole head")
    angles = np.abs(np.stack([values[name] for name in ("yaw", "pitch", "roll")], axis=1))
    limits = _VIDEO_POSE if look.fps else _PHOTO_POSE
    yield from found(
        "extreme-pose", (angles > limits).any(axis=1),
        lambda where: "yaw, pitch and roll reach {:.0f}, {:.0f} and {:.0f} degrees, ".format(*angles[where].max(axis=0))
                      + "expected at most {}, {} and {}".format(*limits),
        "choose a file with an upright face that looks towards the camera",
        "error" if not look.fps and angles[0, 0] > _LOST_YAW else "warning")
    # Blurred, dark and overexposed faces hide the lips too, but have findings of their own.
    yield from found(
        "occluded-mouth", (lips < 1) & (sharp >= _BLURRED) & (light >= _DARK) & (white <= _WHITE),
        lambda where: f"no lips found at the mouth (evidence {lips[where].min():.1f}, expected at least 1); a hand, "
                      "microphone or mask may hide them",
        "choose a file with an uncovered mouth, or ignore this guess if the lips are visible")


def _of_photo(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    tall, headroom, eyes, mouth = (float(values[name][0]) for name in ("face_height", "headroom", "eyes", "mouth"))
    yield from _several_faces(look, tall)
    if look.head_cut or headroom < _LEAST_HEADROOM:
        space = max(headroom, 0.0)
        touched = ", and the head touches this edge" if look.head_cut else ""
        more = np.ceil((_HEADROOM - space) * tall)
        yield Finding("warning", "no-headroom", f"the hairline is {space * tall:.0f} px ({space:.2f} face heights) "
                      f"below the upper edge{touched}; voluminous hair and hats need {_HEADROOM:.2f}",
                      f"use a photo with {more:.0f} px more space above the head, or pad this photo by as much")
    if mouth > _MOUTH or eyes < _EYES:
        what = (f"the mouth is open by {mouth:.2f} of its width, expected at most {_MOUTH}" if mouth > _MOUTH else
                f"the eyes are open by {eyes:.2f} of their width, expected at least {_EYES}")
        yield Finding("warning", "not-neutral", f"{what} in a source photo", "choose a calm face, because motion is "
                      "added to it; this photo still works as a source of attributes such as hair")


def _of_video(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    yield from _several_faces(look, float(np.nanmedian(values["face_height"])))
    cuts, missing = find_cuts(look), ~look.seen
    if missing.any():
        # Without tracking, a single miss may be the detector's fault.
        certain = missing if look.stride == 1 else _lasting(missing, 2)
        ranges = faceless(look, certain if certain.any() else missing, cuts)
        stop = f", or stop before them with --frames {ranges[0][0]}" if ranges[0][0] else ""
        yield Finding("error" if certain.any() else "warning", "faceless-frames",
                      f"no face in {missing.sum()} of {len(missing)} sampled frames; `durian animate` needs a face in "
                      "every frame", f"remove these frames{stop}", ranges)
    if cuts.any():
        at = np.flatnonzero(cuts)
        edges = [0, *at, len(look)]
        first, last = max(zip(edges[:-1], edges[1:], strict=True), key=lambda shot: shot[1] - shot[0])
        times = ", ".join(f"{frame / look.fps:.2f} s" for frame in at[:5]) + (", ..." if len(at) > 5 else "")
        yield Finding("warning", "cut-inside", f"{len(at)} cut{'s' * (len(at) > 1)} at {times}; the motion jumps there",
                      f"use a single shot; the longest lasts from {first / look.fps:.2f} s to {last / look.fps:.2f} s",
                      tuple((int(frame), int(frame) + 1) for frame in at))
    yield from _first_frame(look, values)
    leaving = _lasting(outside_crop(look, cuts), 3)
    if leaving.any():
        yield Finding("warning", "large-drift", "the head moves faster than the crop can follow and leaves the crop",
                      "choose a video with less head motion, or stabilise it", look.ranges(leaving))
    if len(look) < _LEAST_FRAMES:
        yield Finding("warning", "too-short", f"{len(look)} frames, expected at least {_LEAST_FRAMES}",
                      "choose a longer video")
    if look.fps < _LEAST_FPS:
        yield Finding("warning", "low-fps", f"{look.fps:g} frames per second, expected at least {_LEAST_FPS}",
                      "export the video at its original frame rate; repeating frames does not help")


def _first_frame(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Yield a finding if the first frame is not calm.

    Motion is measured against the first frame, so a mouth that is open there cannot open any further.
    """
    parts = {"the mouth is open": values["mouth"] / _MOUTH,
             "the eyes are closed": _CLOSED * np.nanmedian(values["eyes"]) / np.maximum(values["eyes"], 1e-3),
             "the head is turned": np.max([np.abs(values[k]) for k in ("yaw", "pitch", "roll")], axis=0) / _CALM_POSE}
    away = np.max(list(parts.values()), axis=0)
    if not away[0] > 1:
        return
    why = max(parts, key=lambda part: parts[part][0])
    calm = np.flatnonzero(away <= max(0.7, 1.1 * np.nanmin(away)))[0]
    fix = "choose a video that begins with a calm face"
    if away[calm] < 0.8 * away[0]:
        frame = int(look.index[calm])
        fix = f"begin at {frame / look.fps:.2f} s (frame {frame}), where the face is calm, e.g. with ffmpeg -ss"
    yield Finding("warning", "first-frame-not-neutral", f"{why} ({parts[why][0]:.1f} times the limit); motion is "
                  "measured against this frame", fix, ((0, 1),))


def _several_faces(look: Look, tall: float) -> Iterator[Finding]:
    also = sorted(number for number, height in look.others.items() if height >= _OTHER_FACE * tall)
    # In a video, a single detection may be false.
    if also and (len(also) > 1 or len(look.others) < 3):
        other = np.median([look.others[number] for number in also])
        yield Finding("warning", "several-faces", f"a second face is {other:.0f} px high, the largest {tall:.0f}; the "
                      "largest is used", "choose with --face or --driving-face, or crop the file to one person")


def _no_face(look: Look) -> Finding:
    tall = face_height(look.points)
    if np.isfinite(tall).any() and np.nanmax(tall) < MIN_FACE_HEIGHT:
        return Finding("error", "small-face", f"the face is {np.nanmax(tall):.0f} px high, expected at least "
                       f"{MIN_FACE_HEIGHT}", "use a larger original or film closer; upscaling adds no detail")
    where = f"any of the {len(look.index)} sampled frames" if look.fps else "the picture"
    return Finding("error", "no-face", f"no face found in {where}, expected a frontal face at least {MIN_FACE_HEIGHT} "
                   "px high", "choose another file, or rotate it upright")


def _lasting(flags: np.ndarray, least: int) -> np.ndarray:
    """Keep flags that hold for at least `least` neighbouring frames, or for all frames."""
    kept = np.zeros(len(flags), bool)
    for first, last in frame_ranges(flags):
        kept[first:last] = last - first >= min(least, len(flags))
    return kept


def _unreadable(path: str | Path, error: InputError | str) -> Finding:
    return Finding("error", "unreadable", *_message_and_fix(path, error))


def _message_and_fix(path: str | Path, error: Exception | str) -> tuple[str, str]:
    """Split a text at its last semicolon into the message and the fix."""
    words = " ".join(str(error).removeprefix(f"{path}: ").removeprefix(f"{Path(path)}: ").split())
    if words.startswith(("no such file; ", "expected ")) and "://" not in str(path) and not Path(path).is_file():
        return words, "name the files in it" if Path(path).is_dir() else "correct the path"
    message, _, fix = words.rpartition("; ")
    if not message or fix.startswith("expected"):
        message, fix = words, "use a complete picture or video"
    return message, fix
