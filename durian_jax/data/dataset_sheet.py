"""`durian sheet DATASET`: one page with every clip of a dataset, for inspection before training.

The page holds only text. Each clip has one picture file beside the page, loaded when it scrolls into view.
Any browser can therefore open ten thousand clips, from a disk or from a server.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import jinja2
import numpy as np

from durian_jax.data.clip_outline import Outline
from durian_jax.data.clip_record import QUALITIES, EncodedClip, Provenance
from durian_jax.data.corrections import correction_file
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError
from durian_jax.faces.clip import layer_bit
from durian_jax.faces.draw import keypoint_image
from durian_jax.faces.fill_region import LAYERS
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import atomic_file, parse_json, read_json, writable_file, writable_folder
from durian_jax.progress import progress_bar

FRAMES = 4  # shown frames per clip, evenly spaced
SIDE = 160  # width of a frame on the page in pixels
# RGB colours of filled attributes and of thin outlines. They differ from skin and from each other.
FILLS = {"hair": (150, 80, 255), "glasses": (0, 210, 255), "beard": (150, 220, 0), "hat": (255, 50, 90)}
LINES = {"person": (255, 255, 255), "eyes": (110, 190, 255), "nose": (255, 160, 40), "mouth": (255, 110, 200)}
VIEW = (255, 235, 0)  # edge between view and margin
STRENGTH = 0.5  # opacity of a fill
_GAP, _GROUP_GAP, _GROUND = 2, 12, (32, 32, 35)
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True)
class Column:
    """A column of the page's table.

    Attributes:
        name: text of the heading.
        hint: longer explanation, shown as a tooltip.
        kind: "number" or "text", the type of the sort keys.
    """

    name: str
    hint: str
    kind: str = "number"


@dataclass(frozen=True)
class Cell:
    """A cell of the page's table: its text, its sort key (NaN and "" come last) and its tooltip."""

    text: str
    key: float | str
    hint: str = ""

    @property
    def sort(self) -> str:
        """The sort key as text for the page."""
        return self.key if isinstance(self.key, str) else f"{self.key:.7g}"


_UNKNOWN = Cell("–", math.nan)
_CORRECTED = Cell("corrected", math.nan, "a person has corrected these masks")

COLUMNS = (
    Column("#", "index in the dataset"), Column("name", "name of the clip", "text"),
    Column("identity", "name of the person", "text"),
    Column("video", "source video and range of its frames", "text"), Column("frames", "number of frames"),
    Column("certainty", "how certain it is which kinds are worn, from 0 to 1, and the least certain kind; sorted "
                        "upwards, doubtful clips come first; – if unknown"),
    *(Column(f"{kind} %", f"share of the view that {kind} covers, mean over the frames; – if it is never visible")
      for kind in ATTRIBUTE_KINDS),
    *(Column(name.replace("_", " "), f"{name}; – if not measured") for name in QUALITIES),
    *(Column(f"{name} °", f"smallest and largest {name} of the head; sorted by their difference")
      for name in ("yaw", "pitch", "roll")))


def dataset_sheet(directory: str | os.PathLike, out: str | os.PathLike | None = None,
                  limit: int | None = None) -> Path:
    """Write a page of all clips with masks, keypoints and qualities, and of the rejected files.

    A clip that cannot be decoded is shown with its error.

    Args:
        directory: folder of a complete dataset. The page also shows rejected.jsonl and report.json if they exist.
        out: path of the page, ending in .html. None: DATASET/sheet.html. Pictures go into the folder
            `<name>_pictures` beside the page. The picture of clip 12 is 00012.jpg.
        limit: maximum number of shown clips, evenly spaced over the dataset. None shows all.

    Returns:
        The page's path.

    Raises:
        InputError: no dataset, a limit below 1, or an output that cannot be written.
    """
    clips = RecordedClips(directory)
    if limit is not None and limit < 1:
        raise InputError(f"expected a limit of at least 1 clip, got {limit}; omit the limit to show all clips")
    page = writable_file(clips.directory / "sheet.html" if out is None else out, (".html", ".htm"))
    pictures = writable_folder(page.with_name(f"{page.stem}_pictures"))
    chosen = np.linspace(0, len(clips) - 1, min(limit or len(clips), len(clips))).round().astype(int).tolist()

    # Threads are enough, because OpenCV releases the GIL. They start faster than processes.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    rows, certainties = [], _certainties(clips.directory)
    try:
        drawn = pool.map(lambda index: _open(clips, index), chosen)
        bar = progress_bar(drawn, desc="drawing", total=len(chosen), unit="clip")
        for index, opened in zip(chosen, bar, strict=True):
            if opened.strip:
                _write_bytes(pictures / _picture_name(index), opened.strip)
            outline = clips.outline(index)
            certainty = _CORRECTED if opened.corrected else certainties.get(outline.name, _UNKNOWN)
            rows.append(_row(index, outline, opened, pictures.name, certainty))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run waits only for the clips in progress
    rejected_columns, rejected = _rejected(clips.directory / "rejected.jsonl")
    text = _environment().get_template("sheet.html").render(
        dataset=clips.directory.resolve().name, about=clips.about, total=len(clips), rows=rows, columns=COLUMNS,
        facts=_facts(clips.about), warnings=_warnings(clips.directory / "report.json"),
        rejected=rejected, rejected_columns=rejected_columns, fills=FILLS, lines=LINES, view=VIEW)
    # The name of a rejected file may hold characters that UTF-8 cannot encode.
    _write_bytes(page, text.encode("utf-8", "replace"))
    # Delete the surplus pictures of an earlier page last: that page stays complete until the new one exists.
    ours = {path.name for path in pictures.glob("*.jpg") if re.fullmatch(r"\d{5,}", path.stem)}
    for old in ours - {_picture_name(index) for index in chosen}:
        (pictures / old).unlink(missing_ok=True)
    return page


# --- pictures -----------------------------------------------------------------------------------------

def draw_strip(clip: EncodedClip, side: int = SIDE) -> np.ndarray:
    """Return (H, W, 3) uint8: the shown frames of a clip plain, with masks, with keypoints, and those of its driver.

    Args:
        clip: the clip to draw.
        side: width of each frame in pixels.

    Raises:
        DecodeError: a damaged frame or mask.
    """
    chosen = shown_frames(len(clip))
    height = max(1, round(side * clip.height / clip.width))
    frames = [_scaled(clip.frame(i), side, height) for i in chosen]
    # Bit fields cannot be averaged.
    fields = [cv2.resize(clip.mask(i), (side, height), interpolation=cv2.INTER_NEAREST_EXACT) for i in chosen]
    margin = round(clip.margin * side / clip.width)
    drawn = (keypoint_image(clip.keypoints[chosen], height, side) * 255).astype(np.uint8)
    groups = (frames, [draw_masks(*pair, margin) for pair in zip(frames, fields, strict=True)],
              [np.maximum(frame // 3, lines) for frame, lines in zip(frames, drawn, strict=True)])
    if clip.driver_keypoints is not None:
        groups = (*groups, [_scaled(clip.driver_frame(i), side, height) for i in chosen])
    return _joined([_joined(group, _GAP) for group in groups], _GROUP_GAP)


def shown_frames(count: int) -> list[int]:
    """Return the indices of `FRAMES` evenly spaced frames of a clip of `count` frames, or of all frames."""
    return np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int).tolist()


def draw_masks(frame: np.ndarray, field: np.ndarray, margin: int = 0) -> np.ndarray:
    """Draw a mask over its frame: attributes filled and outlined, person and face regions outlined, the view framed.

    Args:
        frame: (H, W, 3) uint8.
        field: (H, W) uint8 bit field.
        margin: pixels around the view. 0 draws no frame around the view.

    Returns:
        (H, W, 3) uint8.
    """
    picture = frame.astype(np.float32)
    for kind in LAYERS:  # from the skin outwards
        shown = (field & layer_bit(kind)) > 0
        picture[shown] += STRENGTH * (np.array(FILLS[kind], np.float32) - picture[shown])
    picture = np.ascontiguousarray(picture.round().astype(np.uint8))
    for layer, colour in {**LINES, **{kind: FILLS[kind] for kind in LAYERS}}.items():
        edges, _ = cv2.findContours(field & layer_bit(layer), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, colour, 1)
    if margin:
        height, width = field.shape
        cv2.rectangle(picture, (margin, margin), (width - margin - 1, height - margin - 1), VIEW, 1)
    return picture


def _scaled(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    down = frame.shape[1] >= width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if down else cv2.INTER_CUBIC)


def _joined(pictures: list[np.ndarray], gap: int) -> np.ndarray:
    """Join pictures of equal height side by side."""
    between = np.full((pictures[0].shape[0], gap, 3), _GROUND, np.uint8)
    return np.concatenate([part for picture in pictures for part in (between, picture)][1:], 1)


def _picture_name(index: int) -> str:
    return f"{index:05d}.jpg"


# --- rows ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Opened:
    """The readable content of a clip's record.

    Attributes:
        provenance: the clip's origin, None if the record cannot be opened.
        strip: JPEG of `draw_strip`, empty after an error.
        size: (height, width) of the strip.
        error: error message, empty without an error.
        corrected: whether a person has corrected the masks.
    """

    provenance: Provenance | None
    strip: bytes = b""
    size: tuple[int, int] = (0, 0)
    error: str = ""
    corrected: bool = False


def _open(clips: RecordedClips, index: int) -> _Opened:
    provenance = None
    try:
        clip = clips.open(index)
        provenance = clip.provenance
        strip = draw_strip(clip)
        return _Opened(provenance, cv2.imencode(".jpg", strip[..., ::-1], _JPEG)[1].tobytes(), strip.shape[:2],
                       corrected=correction_file(clips.directory, clip).is_file())
    except Exception as error:  # noqa: BLE001 (the page shows a damaged clip and all other clips)
        return _Opened(provenance, error=str(error) or type(error).__name__)


def _row(index: int, outline: Outline, opened: _Opened, folder: str, certainty: Cell) -> dict:
    """Return the template's values for one clip."""
    worn = [kind for kind, area in zip(ATTRIBUTE_KINDS, outline.areas.max(0), strict=True) if area > 0]
    video = opened.provenance.video if opened.provenance else ""
    words = [outline.name, outline.identity, video, *worn, *(["damaged"] if opened.error else [])]
    return {"cells": _cells(index, outline, opened.provenance, certainty), "words": " ".join(words).lower(),
            "error": opened.error, "picture": quote(f"{folder}/{_picture_name(index)}"), "size": opened.size,
            "frames": ", ".join(map(str, shown_frames(len(outline))))}


def _cells(index: int, outline: Outline, provenance: Provenance | None, certainty: Cell) -> list[Cell]:
    """Return one cell per column of `COLUMNS`."""
    areas = [float(area) if area > 0 else math.nan for area in outline.areas.mean(0)]
    spans = [(float(low), float(high)) for low, high in zip(outline.poses.min(0), outline.poses.max(0), strict=True)]
    return [
        Cell(str(index), float(index)), Cell(outline.name, outline.name), Cell(outline.identity, outline.identity),
        _origin(provenance, len(outline)), Cell(str(len(outline)), float(len(outline))),
        certainty,
        *(Cell(_number(100 * area), area) for area in areas),
        *(Cell(_number(value), value) for value in map(float, outline.quality)),
        *(Cell(f"{round(low)}…{round(high)}" if math.isfinite(high - low) else "–", high - low)
          for low, high in spans)]


def _origin(provenance: Provenance | None, frames: int) -> Cell:
    """Return the source video and the range of its frames."""
    if provenance is None or not provenance.video:
        return Cell("", "")
    first, stride = provenance.first_frame, provenance.stride
    step = f", every {stride}" if stride > 1 else ""
    return Cell(f"{Path(provenance.video).name} {first}–{first + (frames - 1) * stride}{step}",
                f"{provenance.video} {first}", provenance.video)


def _certainties(directory: Path) -> dict[str, Cell]:
    """Return the certainty of each clip's kinds by the clip's name, from report.json."""
    found = {}
    try:
        files = _listed(read_json(directory / "report.json"), "files")
    except InputError:
        files = []
    for clip in (clip for part in files for clip in _listed(part, "clips") if isinstance(clip, dict)):
        kind, value = clip.get("least_certain"), clip.get("certainty")
        if isinstance(value, int | float) and isinstance(kind, str):
            found[str(clip.get("name"))] = Cell(f"{value:.2f} {kind}", float(value), f"least certain: {kind}")
    return found


def _number(value: float) -> str:
    """Format a measured value with about three digits."""
    return "–" if not math.isfinite(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


# --- reports of the dataset ----------------------------------------------------------------------------

def _facts(about: Mapping) -> dict[str, str]:
    """Return the fields of dataset.json as text, except `clips_with` and `statistics`: the page shows them apart."""
    def words(value: object) -> str:
        return (", ".join(f"{key.replace('_', ' ')} {words(item)}" for key, item in value.items())
                if isinstance(value, dict) else "–" if value is None else _text(value))

    return {key.replace("_", " "): words(value) for key, value in about.items()
            if key not in ("clips_with", "statistics")}


def _rejected(path: Path) -> tuple[tuple[Column, ...], list[list[Cell]]]:
    """Return columns and rows of rejected.jsonl: file first, reason last, other fields between."""
    entries = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        try:
            entry = parse_json(line)
        except ValueError:
            entry = None
        if line.strip():  # the last line of an interrupted run may be cut off
            entries.append(entry if isinstance(entry, dict) else {"reason": line})
    further = dict.fromkeys(key for entry in entries for key in entry if key not in ("file", "reason"))
    keys = ("file", *further, "reason")
    rows = [[Cell(_text(entry.get(key, "")), _text(entry.get(key, ""))) for key in keys] for entry in entries]
    return tuple(Column(key, key, "text") for key in keys), rows


def _warnings(path: Path) -> list[str]:
    """Return the `warnings` of report.json, both of the whole report and of its files."""
    try:
        report = read_json(path)
    except InputError:
        return []
    found = []
    for part in (report, *_listed(report, "files")):
        source = f"{part['file']}: " if isinstance(part, dict) and "file" in part else ""
        # Most warnings already start with their file.
        found += [text if text.startswith(source) else source + text for text in map(_text, _listed(part, "warnings"))]
    return found


def _listed(part: object, key: str) -> Iterable:
    value = part.get(key, []) if isinstance(part, dict) else []
    return value if isinstance(value, list) else [value]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _environment() -> jinja2.Environment:
    # Names, reasons and paths come from users' files, so the template must escape them.
    return jinja2.Environment(loader=jinja2.PackageLoader("durian_jax.data"), autoescape=True,
                              undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        Path(temporary).write_bytes(content)
