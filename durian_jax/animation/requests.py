"""What to animate: one video, all photos or videos of a folder, or the rows of a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from durian_jax.animation.timeline import Timeline, read_timeline
from durian_jax.errors import InputError, listed
from durian_jax.faces.clip import attribute_bit
from durian_jax.progress import say
from durian_jax.tables import TABLE_SUFFIXES, read_table
from durian_jax.video import PHOTO_SUFFIXES, VIDEO_SUFFIXES, local_path

# Instead of a photo: the portrait's own attribute is taken away.
NONE = "none"

# Columns of a table of jobs.
REQUIRED, OPTIONAL = ("source", "driving"), ("attributes", "timeline", "out")


@dataclass(frozen=True)
class Wanted:
    """What a video shows of an attribute kind.

    Attributes:
        photos: of people who wear it; (): the portrait's own is taken away.
        weights: of the photos, to blend them; they sum to 1. None: there is one photo, or none, or a timeline.
        timeline: the weights over time.
        file: of the timeline.
    """

    photos: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    timeline: Timeline | None = None
    file: str = ""

    @property
    def blended(self) -> bool:
        """Whether photos are blended."""
        return self.weights is not None or self.timeline is not None

    def weights_at(self, seconds: np.ndarray) -> np.ndarray:
        """(T, P) weights of the P photos at times (T,); NaN for a photo that is not blended."""
        if self.timeline is not None:
            return self.timeline.at(seconds)
        weights = np.array(self.weights or [np.nan] * len(self.photos), np.float32)
        return np.tile(weights, (len(seconds), 1))

    def __str__(self):
        if self.timeline is not None:
            return self.file
        if self.weights is None:
            return self.photos[0] if self.photos else NONE
        return ",".join(f"{photo}@{weight:g}" for photo, weight in zip(self.photos, self.weights, strict=True))


@dataclass(frozen=True)
class Request:
    """One video to make.

    Attributes:
        source: photo of the identity.
        driving: video of the motion.
        attributes: attribute kind -> what to show of it.
        out: the .mp4 to write.
    """

    source: str | Path
    driving: str | Path
    attributes: Mapping[str, Wanted]
    out: Path

    @property
    def inputs(self) -> tuple[str | Path, ...]:
        """All files that are read."""
        return self.source, self.driving, *self.photos

    @property
    def photos(self) -> tuple[str, ...]:
        """All photos of attributes."""
        return tuple(photo for wanted in self.attributes.values() for photo in wanted.photos)

    @property
    def described(self) -> dict[str, str]:
        """The attributes as `parse_attributes` reads them."""
        return {kind: str(wanted) for kind, wanted in self.attributes.items()}

    def interpolate(self, frames: int, fps: float) -> np.ndarray | None:
        """The weights of all photos, see `inference.references.blend_weights`; None: no attribute is blended."""
        if not any(wanted.blended for wanted in self.attributes.values()):
            return None
        return np.concatenate([wanted.weights_at(np.arange(frames) / fps) for wanted in self.attributes.values()], 1)

    @property
    def concat(self) -> Path:
        """The video with driving, source, attributes and result side by side."""
        return self.out.with_name(f"{self.out.stem}_concat.mp4")

    @property
    def crop(self) -> Path:
        """The animated crop, if `out` shows the whole photo."""
        return self.out.with_name(f"{self.out.stem}_crop.mp4")

    @property
    def report(self) -> Path:
        """Settings, timings and versions."""
        return self.out.with_suffix(".json")

    def outputs(self, paste_back: bool) -> tuple[Path, ...]:
        """All files that are written."""
        return self.out, self.concat, *((self.crop,) if paste_back else ()), self.report


def parse_attributes(attributes: Sequence[str], folder: Path | None = None, timeline: str | Path | None = None
                     ) -> dict[str, Wanted]:
    """Parse ["hair=a.png", "glasses=none", "beard=b.png,c.png@0.3", ...] to what to show of each kind, in this order.

    Args:
        attributes: "KIND=PHOTO"; "KIND=none" takes the portrait's own away; "KIND=PHOTO,PHOTO@WEIGHT" blends.
        folder: that names of photos are relative to; None: the current one.
        timeline: file of one more attribute, see `animation.timeline`.

    Raises:
        InputError: another form, an unknown kind, a kind given twice, two kinds to blend, or a timeline with a mistake.
    """
    requests: dict[str, Wanted] = {}
    for text in attributes:
        kind, sign, value = text.partition("=")
        if not sign or not value:
            raise InputError(f"attribute {text!r}: expected KIND=PHOTO, such as hair=person.png")
        attribute_bit(kind)
        if kind in requests:
            raise InputError(f"attribute {kind} is given twice ({requests[kind]} and {value}); choose one, or blend "
                             f"them with {kind}=PHOTO,PHOTO@WEIGHT")
        requests[kind] = _wanted(kind, value, folder)
    if timeline is not None:
        found = read_timeline(timeline)
        if found.attribute in requests:
            raise InputError(f"{timeline}: attribute {found.attribute} is also given as {requests[found.attribute]}; "
                             "choose one")
        requests[found.attribute] = Wanted(found.photos, timeline=found, file=str(timeline))
    blended = [kind for kind, wanted in requests.items() if wanted.blended]
    if len(blended) > 1:
        raise InputError(f"attributes {' and '.join(blended)}: expected one kind to blend, found {len(blended)}; give "
                         "one photo of the others")
    return requests


def _wanted(kind: str, value: str, folder: Path | None) -> Wanted:
    """Parse what follows "KIND=". A file of exactly this name is one photo."""
    place = lambda photo: photo if folder is None else str(folder / local_path(photo))
    if value == NONE:
        return Wanted()
    if "," not in value or Path(place(value)).is_file():
        return Wanted((place(value),))
    parts = [part.strip() for part in value.split(",")]
    photos, weights = zip(*map(_weighted, parts), strict=True)
    known = [weight for weight in weights if weight is not None]
    if len(parts) == 2 and len(known) == 1:
        weights = tuple(1 - known[0] if weight is None else weight for weight in weights)
    elif len(known) < len(parts):
        raise InputError(f"attribute {kind}={value}: expected a weight after each photo, or after one of two, such as "
                         f"{kind}={parts[0]},{parts[1]}@0.3; found {len(known)} weights for {len(parts)} photos")
    if not all(photos) or not all(weight >= 0 for weight in weights) or abs(sum(weights) - 1) > 1e-4:
        found = ", ".join(f"{photo}@{weight:g}" for photo, weight in zip(photos, weights, strict=True))
        raise InputError(f"attribute {kind}={value}: expected photos with weights of at least 0 that sum to 1, found "
                         f"{found}")
    return Wanted(tuple(map(place, photos)), tuple(weights))


def _weighted(part: str) -> tuple[str, float | None]:
    """Split "PHOTO@WEIGHT"; the weight is None if there is none."""
    photo, sign, weight = part.rpartition("@")
    try:
        return (photo, float(weight)) if sign else (part, None)
    except ValueError:  # an @ in the photo's name
        return part, None


def find_requests(source: str | Path | None, driving: str | Path | None, attributes: Sequence[str], out: str | Path,
                  jobs: str | Path | None = None, timeline: str | Path | None = None) -> list[Request] | Request:
    """Return the videos to make.

    A photo and a video are one request. A folder instead of one of them makes a request of each photo or video in it;
    `out` is then a folder, and each video is named after the photo or video of the folder.

    A table of jobs has the columns of `REQUIRED` and `OPTIONAL`. Names of photos and videos are relative to the table.
    Attributes are those of `parse_attributes`, separated by semicolons. The column out is relative to the folder `out`;
    where it is empty, the video is named after source and driving video.

    Args:
        source: photo, or a folder of photos.
        driving: video, or a folder of videos.
        attributes: see `parse_attributes`.
        out: the .mp4 to write, or a folder for several videos.
        jobs: a table (.csv or .jsonl) instead of source, driving and attributes.
        timeline: see `parse_attributes`.

    Returns:
        One request, or a list of them.

    Raises:
        InputError: arguments that are missing or contradict each other, a folder without photos or videos, or a table
            with a mistake.
    """
    if jobs is not None:
        if source is not None or driving is not None or attributes or timeline is not None:
            raise InputError(f"jobs: the table {jobs} names sources, driving videos and attributes; leave out -s, -d, "
                             "-a and --timeline")
        return _of_table(Path(jobs), _folder(out))
    if source is None or driving is None:
        raise InputError("expected a photo (-s) and a driving video (-d), or a table of jobs (--jobs); found "
                         f"{'neither' if source is None and driving is None else 'only one of them'}")
    given = parse_attributes(attributes, timeline=timeline)
    folders = [path for path in (source, driving) if Path(path).is_dir()]
    if not folders:
        return Request(source, driving, given, Path(out))
    if len(folders) == 2:
        raise InputError(f"{source} and {driving}: expected one folder, found two; write the pairs into a table for "
                         f"--jobs, with the columns {', '.join(REQUIRED)}")
    _folder(out)
    kind, suffixes = ("photo", PHOTO_SUFFIXES) if folders[0] is source else ("video", VIDEO_SUFFIXES)
    files = _files(Path(folders[0]), kind, suffixes)
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else file.name for file in files]
    pairs = [(file, driving) if folders[0] is source else (source, file) for file in files]
    return [Request(photo, video, given, Path(out) / f"{name}.mp4") for (photo, video), name in zip(
        pairs, names, strict=True)]


def check_apart(requests: Sequence[Request], summary: Path, paste_back: bool) -> None:
    """Refuse requests that would write the same file, or a file that another one reads.

    Raises:
        InputError: see above.
    """
    read = {Path(path).resolve(): path for request in requests for path in request.inputs}
    written: dict[Path, str] = {summary.resolve(): "the summary"}
    for request in requests:
        for path in request.outputs(paste_back):
            place = path.resolve()
            if place in read:
                raise InputError(f"output {path} would replace the input {read[place]}; choose another output folder")
            if place in written:
                raise InputError(f"output {path}: {request.source} with {request.driving} and {written[place]} would "
                                 "write the same file; give them other names, in a table by the column out")
            written[place] = f"{request.source} with {request.driving}"


def _of_table(table: Path, out: Path) -> list[Request]:
    """The requests of a table."""
    if table.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"jobs: expected a table ({' or '.join(TABLE_SUFFIXES)}), found {table}")
    requests = []
    for number, row in read_table(table, REQUIRED, OPTIONAL):
        where = f"{table}, line {number}"
        cells = {name: row.get(name) or "" for name in (*REQUIRED, *OPTIONAL)}
        for name, value in cells.items():
            if not isinstance(value, str):
                raise InputError(f"{where}: {name}: expected text, found {value!r}")
            if name in REQUIRED and not value:
                raise InputError(f"{where}: expected the name of a file in the column {name}, found none")
        try:
            given = parse_attributes([text.strip() for text in cells["attributes"].split(";") if text.strip()],
                                     table.parent, cells["timeline"] and table.parent / local_path(cells["timeline"])
                                     or None)
            source, driving = (table.parent / local_path(cells[name]) for name in REQUIRED)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        name = cells["out"] or f"{source.stem}_{driving.stem}.mp4"
        if Path(name).suffix.lower() != ".mp4":
            raise InputError(f"{where}: out: expected a name ending in .mp4, found {name}")
        requests.append(Request(source, driving, given, out / name))
    if not requests:
        raise InputError(f"{table}: expected rows with {', '.join((*REQUIRED, *OPTIONAL))}, found none; add a row per "
                         "video")
    return requests


def _folder(out: str | Path) -> Path:
    """The folder of several videos."""
    out = Path(out)
    if out.is_file() or out.suffix.lower() == ".mp4" and not out.is_dir():
        raise InputError(f"output {out}: expected a folder, because several videos are made; found the name of a file")
    return out


def _files(folder: Path, kind: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The photos or videos of a folder, in the order of their names. Others are named and left out."""
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected a folder of {kind}s") from error
    files = [path for path in found if path.suffix.lower() in suffixes]
    if not files:
        raise InputError(f"{folder}: expected {kind}s ({', '.join(suffix[1:] for suffix in suffixes)}), found none "
                         f"among {len(found)} files; name a folder that contains {kind}s")
    if others := [path.name for path in found if path not in files]:
        say(f"durian: {folder}: left out {len(others)} files that are no {kind}s: {listed(others)}")
    return files
