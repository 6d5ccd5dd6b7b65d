"""Folders of ordinary videos -> records for training, and a report of what was used and what was not."""

import glob
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from durian_jax.data.records import write_clips
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.regions import landing_region
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import writable_folder, write_json, write_text
from durian_jax.prepare.annotate import annotate_runs, describe_ranges, no_face, track_face
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.crop import face_height


def prepare(inputs: Sequence[str | Path], out: str | Path, size: int = 128, *, fps: float = 12.0,
            segment_frames: int = 48, min_frames: int = 8, max_frames: int | None = None,
            encoding: str = "png") -> dict:
    """Turn videos into records.

    Every file becomes clips of one person, named after the file. A file that cannot be used is rejected
    with a reason, and the others go on. `out` gets the records, report.json (counts and one entry a file)
    and rejected.jsonl (`file` and `reason` a line).

    Args:
        inputs: video files, folders (searched through all levels) and glob patterns.
        out: folder for the records; made if missing, records in it are replaced.
        size: side of the square frames in pixels.
        fps: frames are thinned out to about this rate.
        segment_frames: longer stretches are cut into clips of at most so many frames.
        min_frames: shorter stretches are left out.
        max_frames: look at this many frames of a file at most; None at all.
        encoding: of the frames, one of `data.records.ENCODINGS`.

    Returns:
        The content of report.json: `accepted` and `rejected` (numbers of files), `clips`, `frames`,
        `files` (accepted ones with their clips, evidence and left-out frames), `rejected_files`.

    Raises:
        InputError: an input that does not exist, an output that cannot be written, no annotator, or not
            one usable file (the reports are written all the same).
    """
    if min(size, segment_frames, min_frames) < 1 or not fps > 0:
        raise InputError(f"expected size, fps, segment and least frames above 0, got {size}, {fps}, "
                         f"{segment_frames} and {min_frames}")
    out = writable_folder(out)
    files = [file for file in find_files(inputs) if out.resolve() not in file.parents]
    if not files:
        raise InputError(f"every input lies in the output folder {out}, whose records would be replaced; "
                         "name another output")
    identities = _identities(files)
    start, accepted, rejected = time.perf_counter(), [], []
    settings = {"size": size, "fps": fps, "segment_frames": segment_frames, "min_frames": min_frames,
                "max_frames": max_frames, "encoding": encoding}
    clips = _all_clips(identities, settings, accepted, rejected)
    first = next(clips, None)
    if first is not None:
        write_clips(out, _chain(first, clips), encoding=encoding, about={"source": "durian prepare"})
    report = {
        "accepted": len(accepted), "rejected": len(rejected),
        "clips": sum(len(entry["clips"]) for entry in accepted),
        "frames": sum(clip["frames"] for entry in accepted for clip in entry["clips"]),
        "seconds": round(time.perf_counter() - start, 1),
        "settings": settings, "files": accepted, "rejected_files": rejected,
    }
    write_json(out / "report.json", report)
    write_text(out / "rejected.jsonl", "".join(json.dumps(entry) + "\n" for entry in rejected))
    if not accepted:
        raise InputError(f"none of the {len(rejected)} files could be used (all reasons are in "
                         f"{out / 'rejected.jsonl'}); the first: {rejected[0]['reason']}")
    return report


def find_files(inputs: Sequence[str | Path]) -> list[Path]:
    """The files that inputs stand for, in order, each once; hidden ones are left out.

    Raises:
        InputError: an input names nothing.
    """
    found = []
    for given in map(str, inputs):
        path = Path(given)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file()
                           and not any(part.startswith(".") for part in file.relative_to(path).parts))
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(given, recursive=True)) if Path(name).is_file()]
        if not files:
            found_instead = "an empty folder" if path.is_dir() else "nothing"
            raise InputError(f"{given}: expected video files, found {found_instead}")
        found += files
    return list(dict.fromkeys(file.resolve() for file in found))


def split_run(first: int, last: int, stride: int, segment_frames: int, min_frames: int
              ) -> list[tuple[int, int]]:
    """A run of source frames (first, last + 1) cut into about equal segments of the same form.

    Every segment yields at most `segment_frames` frames when each `stride`-th one is kept; runs that would
    yield fewer than `min_frames` give none.
    """
    kept = -(-(last - first) // stride)
    if kept < min_frames:
        return []
    edges = np.linspace(0, kept, -(-kept // segment_frames) + 1).round().astype(int)
    return [(first + a * stride, min(first + b * stride, last))
            for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _all_clips(identities: dict[Path, str], settings: dict, accepted: list, rejected: list) -> Iterator[Clip]:
    """Clips of all files one after the other; fills the two lists on the way."""
    annotator = Annotator()
    try:
        for file, identity in tqdm(identities.items(), desc="preparing", unit="file"):
            try:
                clips, entry = _file_clips(file, identity, annotator, settings)
            except InputError as error:
                rejected.append({"file": str(file), "reason": str(error)})
            except Exception as error:  # noqa: BLE001 (one odd file must not end a long run)
                rejected.append({"file": str(file), "reason": f"unexpected {type(error).__name__}: {error}"})
            else:
                accepted.append(entry)
                yield from clips
            if not annotator.alive:
                annotator.close()
                annotator = Annotator()
    finally:
        annotator.close()


def _file_clips(file: Path, identity: str, annotator: Annotator, settings: dict) -> tuple[list[Clip], dict]:
    """All clips of one file, and its entry in the report."""
    track = track_face(file, annotator, settings["max_frames"])
    if not track.usable.any():
        raise no_face(file, track)
    stride = max(1, round(track.fps / settings["fps"]))
    stretches = [part for run in track.runs()
                 for part in split_run(*run, stride, settings["segment_frames"], settings["min_frames"])]
    if not stretches:
        longest = max(b - a for a, b in track.runs())
        raise InputError(f"{file}: a face is seen without interruption for {longest} frames at most; "
                         f"expected {settings['min_frames'] * stride}; choose a longer clip")
    clips, evidence = zip(*annotate_runs(file, track, stretches, settings["size"], annotator, stride),
                          strict=True)
    # One person wears the same things throughout a file: the middle of all judgements counts.
    middle = {kind: float(np.median([getattr(e, kind) for e in evidence])) for kind in ATTRIBUTE_KINDS}
    worn = [kind for kind, value in middle.items() if value >= 1]
    clips = [replace(clip, masks=_agreed_masks(clip, worn), identity=identity) for clip in clips]
    heights = face_height(track.points[track.usable])
    entry = {
        "file": str(file), "identity": identity, "source_frames": len(track.points), "source_fps": track.fps,
        "skipped": describe_ranges(track.skipped()), "cuts": np.flatnonzero(track.cuts).tolist(),
        "face_height": round(float(np.median(heights)), 1),
        "attributes": worn,
        "evidence": {kind: round(value, 2) for kind, value in middle.items()},
        "clips": [{"first": first, "last": last - 1, "frames": len(clip)}
                  for (first, last), clip in zip(stretches, clips, strict=True)],
    }
    return clips, entry


def _agreed_masks(clip: Clip, worn: list[str]) -> np.ndarray:
    """(T, H, W) masks of a clip, with only and all of the kinds that its whole file is judged to show.

    Glasses and beard are regions of the face and can be added afterwards; hair and hat cannot.
    """
    masks = clip.masks & np.uint8(sum(attribute_bit(kind) for kind in worn))
    for kind in ("glasses", "beard"):
        if kind in worn and not clip.mask(kind).any():
            found = np.stack([landing_region(kind, points, *masks.shape[1:]) for points in clip.keypoints])
            masks[found] |= attribute_bit(kind)
            if kind == "glasses":  # worn in front of hair
                masks[found] &= np.uint8(255 - attribute_bit("hair"))
    return masks


def _identities(files: list[Path]) -> dict[Path, str]:
    """File -> name of its person: the file's stem, with its folder where stems collide."""
    stems = [file.stem for file in files]
    return {file: file.stem if stems.count(file.stem) == 1 else f"{file.parent.name}/{file.name}"
            for file in files}


def _chain(first: Clip, rest: Iterator[Clip]) -> Iterator[Clip]:
    yield first
    yield from rest
