"""The reports of a preparation: report.json and rejected.jsonl."""

import json
from dataclasses import asdict
from pathlib import Path

from durian_jax.data.corrections import Corrections
from durian_jax.errors import InputError
from durian_jax.files import read_json, write_json, write_text
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.inputs import VideoInput
from durian_jax.prepare.work import Work

# A report of millions of videos has gigabytes.
_LARGEST_REPORT = 16 << 30


def finished_before(out: Path, videos: list[VideoInput], settings: Settings) -> dict | None:
    """Return the report of a dataset made with the same settings from the same inputs, if they have not changed."""
    # Its own corrections are in the dataset already.
    others = [place for place in settings.corrections if place != str(out)]
    corrections = Corrections(others)
    try:
        made = (out / "dataset.json").stat().st_mtime
        report = read_json(out / "report.json", most=_LARGEST_REPORT)
        sources = [path for video in videos for path in (video.path, *corrections.files(video.name))]
        if any(path.stat().st_mtime > made for path in sources):
            return None
        used = dict(report["settings"])
        used["corrections"] = [place for place in used.get("corrections", ()) if place != str(out)]
        entries = (*report.get("files", ()), *report.get("rejected_files", ()))
        seen = [(entry["file"], entry["name"]) for entry in entries]
    except (OSError, InputError, KeyError, TypeError, ValueError):  # not a report of ours, so nothing is replaced
        return None
    same = sorted(map(str, seen)) == sorted(str((str(video.path), video.name)) for video in videos)
    return report if same and used == {**asdict(settings), "corrections": others} else None


def write_report(out: Path, work: Work, videos: list[VideoInput], keys: list[str], settings: Settings,
                 max_rejected: int | None, seconds: float) -> dict:
    """Write report.json and rejected.jsonl; remove the work folder if the dataset is complete.

    Args:
        out: folder of the dataset.
        work: state of the preparation.
        videos, keys: the inputs, and the key of each.
        settings: how videos became clips.
        max_rejected: largest number of rejected videos; None: any.
        seconds: duration of the run.

    Returns:
        The content of report.json, see `pipeline.prepare`.

    Raises:
        InputError: too many videos were rejected, none could be used, or the dataset is not complete.
    """
    outcomes = [(video, work.outcome(key)) for video, key in zip(videos, keys, strict=True)]
    accepted = [entry for _, (entry, _) in outcomes if entry]
    rejected = [{"file": str(video.path), "name": video.name, "reason": reason}
                for video, (_, reason) in outcomes if reason]
    # The reports of an earlier dataset, which this run would have replaced, stay with it.
    place = work.folder if (out / "dataset.json").exists() and not work.assembled else out
    write_text(place / "rejected.jsonl", "".join(json.dumps(entry) + "\n" for entry in rejected))
    report = {
        "accepted": len(accepted), "rejected": len(rejected),
        "clips": sum(len(entry["clips"]) for entry in accepted),
        "frames": sum(clip["frames"] for entry in accepted for clip in entry["clips"]),
        "seconds": round(seconds, 1),
        "settings": {**asdict(settings), "corrections": list(settings.corrections)},  # as JSON has it
        "files": accepted, "rejected_files": rejected,
    }
    write_json(place / "report.json", report)
    if max_rejected is not None and len(rejected) > max_rejected:
        reasons = "\n".join(f"  {entry['reason']}" for entry in rejected[:5])
        raise InputError(f"stopped: {len(rejected)} of {len(accepted) + len(rejected)} videos were rejected, more than "
                         f"--max-rejected {max_rejected}; {len(videos) - len(accepted) - len(rejected)} were not "
                         f"processed. All reasons are in {place / 'rejected.jsonl'}; the first are:\n{reasons}\n"
                         "Repair or remove these files and run the same command again; finished videos are kept")
    if not accepted:
        raise InputError(f"none of the {len(rejected)} videos could be used (all reasons are in "
                         f"{place / 'rejected.jsonl'}); the first reason: {rejected[0]['reason']}")
    if not work.assembled:
        raise InputError(f"{out}: the pipeline ended without a dataset ({len(accepted)} accepted, {len(rejected)} "
                         f"rejected of {len(videos)}); run the same command again")
    work.remove()
    return report
