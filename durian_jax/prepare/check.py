"""`durian check`: what will go wrong with a photo or a driving video, and how to mend it, within seconds.

The limits are set so that ordinary talking heads pass: a false alarm costs more than a miss, because it teaches
to ignore the next one. S is the number of frames that the face mesh sees, T of all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.errors import InputError
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.crop import FACE_CENTRE, FACE_HEIGHT, face_height, runs
from durian_jax.prepare.look import Look, faceless, find_cuts, look_at_photo, look_at_video, measure, outside_crop
from durian_jax.prepare.track import MIN_FACE_HEIGHT, describe_ranges
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

# Another face counts from this share of the largest one's height.
_OTHER_FACE = 0.4
# The models whose needs are named, in pixels: the shipped one and the paper's.
_SMALL_MODEL, _LARGE_MODEL = 128, 512
# The space that a crop wants above the hairline, in face heights; less than the second always cuts a hat.
_HEADROOM, _LEAST_HEADROOM = (FACE_CENTRE - FACE_HEIGHT / 2) / FACE_HEIGHT, 0.3
# Yaw, pitch, roll in degrees: a photo beyond shows too little of a face, a video frame leaves what a mesh can follow.
_PHOTO_POSE, _VIDEO_POSE, _LOST_YAW = (25, 25, 30), (40, 30, 40), 50
# Sharp faces have 0.4 at least, the middle of them 0.6; blur of 1.5 % of the face height leaves this.
_BLURRED = 0.32
# Of `quality.exposure`: the dimmest usable clip at hand has 0.40.
_DARK, _WHITE = 0.25, 0.15
# Distance to the picture's edge in face heights; in a video the mesh goes on a little beyond it.
_PHOTO_EDGE, _VIDEO_EDGE = 0.03, -0.03
# A calm face: mouth and eyes as in `faces.quality` (teeth may show), eyes as a share of what they usually are in the
# video, and yaw, pitch, roll in degrees.
_MOUTH, _EYES, _CLOSED, _CALM_POSE = 0.3, 0.15, 0.5, 20
# What `durian prepare` takes.
_LEAST_FRAMES, _LEAST_FPS = 8, 12


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        level: "error" (`durian animate` refuses the file or cannot give a face) or "warning".
        code: its name, such as "small-face".
        message: what was found, and the limit.
        fix: what to do.
        frames: where in a video, as (first, last + 1); empty where all of it is meant.
    """

    level: str
    code: str
    message: str
    fix: str
    frames: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found in one file.

    Attributes:
        file: as it was given.
        kind: "photo" or "video".
        findings: errors first.
        measures: numbers by name (see `look.measure`); of a video the middle over its frames. `largest_model` is
            the picture size up to which the face needs no enlargement, `second_face` another face's height.
    """

    file: str
    kind: str
    findings: tuple[Finding, ...]
    measures: dict[str, float]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def as_dict(self) -> dict:
        """For JSON; frames stay (first, last + 1)."""
        return {**asdict(self), "ok": self.ok}


def check_files(paths: Sequence[str | Path], annotator: Annotator | None = None) -> list[Report]:
    """A report on each photo or video, in order. What cannot be read is an error in its report and stops no other.

    Args:
        paths: files; pictures and videos are told apart by their names' endings, else by their content.
        annotator: a running one to use; None starts its own.

    Raises:
        InputError: no annotator.
    """
    worker, reports = annotator or Annotator(), []
    try:
        for path in tqdm(paths, desc="checking", unit="file", leave=False, delay=2, disable=len(paths) < 2):
            kind = _kind(Path(path))
            try:
                look = look_at_photo(path, worker) if kind == "photo" else look_at_video(path, worker)
                findings, measures = _judge(look)
            except InputError as error:
                findings, measures = [_unreadable(path, error)], {}
            except Exception as error:  # noqa: BLE001 (one odd file must not end the others)
                findings, measures = [_unreadable(path, f"unexpected {type(error).__name__}: {error}")], {}
            findings = sorted(findings, key=lambda finding: finding.level != "error")
            reports.append(Report(str(path), kind, tuple(findings), measures))
            if annotator is None and not worker.alive:
                worker.close()
                worker = Annotator()
    finally:
        if annotator is None:
            worker.close()
    return reports


def describe(report: Report) -> str:
    """The report in words: one line on the file, then one on each finding, or "ok"."""
    measures, about = report.measures, report.kind
    if measures:
        about += f", {measures['width']} x {measures['height']}"
    if "seconds" in measures:
        about += f", {measures['frames']} frames in {measures['seconds']:.1f} s"
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
    if suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
        return "photo" if suffix in IMAGE_SUFFIXES else "video"
    return "photo" if path.is_file() and cv2.haveImageReader(str(path)) else "video"


def _judge(look: Look) -> tuple[list[Finding], dict[str, float]]:
    """The findings, and the measures of the report."""
    measures = {"width": look.width, "height": look.height}
    if look.fps:
        measures |= {"frames": len(look), "fps": round(look.fps, 3), "seconds": round(len(look) / look.fps, 3)}
    if not look.seen.any():
        return [_no_face(look)], measures
    values = measure(look)
    measures |= {name: round(float(np.nanmedian(value)), 3) for name, value in values.items()}
    measures["second_face"] = round(max(look.others.values(), default=0.0), 1)
    judges = (_of_frames, _of_video if look.fps else _of_photo)
    return [finding for judge in judges for finding in judge(look, values)], measures


def _of_frames(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    """What a photo and every frame of a video must show."""
    def found(code, flags, message, fix, level="warning"):
        # One or two frames of a video harm nobody, and may be mistaken.
        flags = _lasting(flags, 3) if look.fps else flags
        if flags.any():
            yield Finding(level, code, message(flags), fix, () if flags.all() else look.ranges(flags))

    tall, sharp, light, white, lips = (values[k] for k in ("face_height", "sharpness", "light", "white", "lips"))
    need = "the {} px model needs {:.0f} px".format
    yield from found(
        "small-face", values["largest_model"] < _SMALL_MODEL,
        lambda where: f"the face is {tall[where].min():.0f} px high; {need(_SMALL_MODEL, _SMALL_MODEL * FACE_HEIGHT)}, "
                      f"{need(_LARGE_MODEL, _LARGE_MODEL * FACE_HEIGHT)}",
        "use a larger original or film closer; enlarging adds no detail")
    yield from found(
        "blurred", sharp < _BLURRED,
        lambda where: f"the face's sharpness is {sharp[where].min():.2f}, expected at least {_BLURRED}",
        "choose one in focus and without motion blur")
    yield from found(
        "dark-or-bright", light < _DARK,
        lambda where: f"the lightest parts of the face have {light[where].min():.0%} of full brightness, expected at "
                      f"least {_DARK:.0%}", "choose or take one with more light; brightening it shows noise")
    yield from found(
        "dark-or-bright", white > _WHITE,
        lambda where: f"{white[where].max():.0%} of the face is pure white, expected at most {_WHITE:.0%}",
        "choose or take one with softer light; what is white cannot be recovered")
    limit = _VIDEO_EDGE if look.fps else _PHOTO_EDGE
    gap = values["edge"] * tall
    yield from found(
        "face-at-edge", values["edge"] < limit,
        lambda where: f"from the face to the picture's edge are {np.nanmin(gap[where]):.0f} px, expected at least "
                      f"{limit * np.nanmedian(tall[where]):.0f}", "choose one that shows the whole head")
    angles = np.abs(np.stack([values[name] for name in ("yaw", "pitch", "roll")], axis=1))
    limits = _VIDEO_POSE if look.fps else _PHOTO_POSE
    yield from found(
        "extreme-pose", (angles > limits).any(axis=1),
        lambda where: "yaw, pitch and roll reach {:.0f}, {:.0f} and {:.0f} degrees, ".format(*angles[where].max(axis=0))
                      + "expected at most {}, {} and {}".format(*limits),
        "choose one that looks towards the camera, upright",
        "error" if not look.fps and angles[0, 0] > _LOST_YAW else "warning")
    # Blur and darkness hide lips too, and have been said.
    yield from found(
        "occluded-mouth", (lips < 1) & (sharp >= _BLURRED) & (light >= _DARK),
        lambda where: f"no lips are seen where the mouth should be ({lips[where].min():.1f} of the least evidence): a "
                      "hand, microphone or mask may hide them",
        "choose one with a free mouth; if the lips are free, ignore this guess from the pixels")


def _of_photo(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    tall, headroom, eyes, mouth = (float(values[name][0]) for name in ("face_height", "headroom", "eyes", "mouth"))
    yield from _several_faces(look, tall)
    if look.head_cut or headroom < _LEAST_HEADROOM:
        space = max(headroom, 0.0)
        touched = ", which the head touches" if look.head_cut else ""
        more = np.ceil((_HEADROOM - space) * tall)
        yield Finding("warning", "no-headroom", f"the hairline is {space * tall:.0f} px ({space:.2f} face heights) "
                      f"below the upper edge{touched}; voluminous hair and hats need {_HEADROOM:.2f}",
                      f"use a photo with {more:.0f} px more above the head, or extend it by that")
    if mouth > _MOUTH or eyes < _EYES:
        what = (f"the mouth is open by {mouth:.2f} of its width, expected at most {_MOUTH}" if mouth > _MOUTH else
                f"the eyes are open by {eyes:.2f} of their width, expected at least {_EYES}")
        yield Finding("warning", "not-neutral", f"{what} of a source", "choose a calm face, as motion is added to it; "
                      "to take hair or other attributes from, this photo serves")


def _of_video(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    yield from _several_faces(look, float(np.nanmedian(values["face_height"])))
    cuts, missing = find_cuts(look), ~look.seen
    if missing.any():
        # A single frame between distant ones may be the detector's fault: tracked, the face might be found.
        certain = missing if look.stride == 1 else _lasting(missing, 2)
        ranges = faceless(look, certain if certain.any() else missing, cuts)
        stop = f", or stop before them with --frames {ranges[0][0]}" if ranges[0][0] else ""
        yield Finding("error" if certain.any() else "warning", "faceless-frames",
                      f"no face in {missing.sum()} of {len(missing)} frames looked at; `durian animate` needs one in "
                      "every frame", f"cut them out{stop}", ranges)
    if cuts.any():
        at = np.flatnonzero(cuts)
        edges = [0, *at, len(look)]
        first, last = max(zip(edges[:-1], edges[1:], strict=True), key=lambda shot: shot[1] - shot[0])
        times = ", ".join(f"{frame / look.fps:.2f} s" for frame in at[:5]) + (", ..." if len(at) > 5 else "")
        yield Finding("warning", "cut-inside", f"{len(at)} cut{'s' * (len(at) > 1)} at {times}; the motion jumps there",
                      f"use one shot; the longest goes from {first / look.fps:.2f} s to {last / look.fps:.2f} s",
                      tuple((int(frame), int(frame) + 1) for frame in at))
    yield from _first_frame(look, values)
    leaving = _lasting(outside_crop(look, cuts), 3)
    if leaving.any():
        yield Finding("warning", "large-drift", "the head moves faster than the crop follows and leaves it",
                      "choose a calmer clip, or stabilise it", look.ranges(leaving))
    if len(look) < _LEAST_FRAMES:
        yield Finding("warning", "too-short", f"{len(look)} frames, expected at least {_LEAST_FRAMES}",
                      "choose a longer clip")
    if look.fps < _LEAST_FPS:
        yield Finding("warning", "low-fps", f"{look.fps:g} frames per second, expected at least {_LEAST_FPS}",
                      "export it at its original rate; repeating frames does not help")


def _first_frame(look: Look, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Motion is measured against the first frame: what is open there cannot open any more."""
    parts = {"the mouth is open": values["mouth"] / _MOUTH,
             "the eyes are closed": _CLOSED * np.nanmedian(values["eyes"]) / np.maximum(values["eyes"], 1e-3),
             "the head is turned": np.max([np.abs(values[k]) for k in ("yaw", "pitch", "roll")], axis=0) / _CALM_POSE}
    away = np.max(list(parts.values()), axis=0)
    if not away[0] > 1:
        return
    why = max(parts, key=lambda part: parts[part][0])
    calm = np.flatnonzero(away <= max(0.7, 1.1 * np.nanmin(away)))[0]
    fix = "choose a clip that begins with a calm face"
    if away[calm] < 0.8 * away[0]:
        frame = int(look.index[calm])
        fix = f"begin at {frame / look.fps:.2f} s (frame {frame}), e.g. with ffmpeg -ss, where the face is calm"
    yield Finding("warning", "first-frame-not-neutral", f"{why} ({parts[why][0]:.1f} times the limit); motion is "
                  "measured against this frame", fix, ((0, 1),))


def _several_faces(look: Look, tall: float) -> Iterator[Finding]:
    also = sorted(number for number, height in look.others.items() if height >= _OTHER_FACE * tall)
    # In a video, once may be a mistake.
    if also and (len(also) > 1 or len(look.others) < 3):
        other = np.median([look.others[number] for number in also])
        yield Finding("warning", "several-faces", f"a second face is {other:.0f} px high, the largest {tall:.0f}; the "
                      "largest is taken" + (" and may change" if look.fps else ""), "crop to the person that you mean")


def _no_face(look: Look) -> Finding:
    tall = face_height(look.points)
    if np.isfinite(tall).any() and np.nanmax(tall) < MIN_FACE_HEIGHT:
        return Finding("error", "small-face", f"the face is {np.nanmax(tall):.0f} px high, expected at least "
                       f"{MIN_FACE_HEIGHT}", "use a larger original or film closer; enlarging adds no detail")
    where = f"any of the {len(look.index)} frames looked at" if look.fps else "the picture"
    return Finding("error", "no-face", f"no face found in {where}, expected a frontal one at least {MIN_FACE_HEIGHT} "
                   "px high", "choose another file, or turn it upright")


def _lasting(flags: np.ndarray, least: int) -> np.ndarray:
    """Flags that hold for so many neighbours at least, or for all."""
    kept = np.zeros(len(flags), bool)
    for first, last in runs(flags, np.zeros(len(flags), bool)):
        kept[first:last] = last - first >= min(least, len(flags))
    return kept


def _unreadable(path: str | Path, error: InputError | str) -> Finding:
    """An error's words: what is wrong, and after the last semicolon what to do."""
    words = " ".join(str(error).removeprefix(f"{path}: ").split())
    message, _, fix = words.rpartition("; ")
    if not message or fix.startswith("expected"):
        message, fix = words, "give a whole picture or video"
    return Finding("error", "unreadable", message, fix)
