"""The reenactments of `durian demo`: four people do what a driver does, one of them with a new hairstyle."""

from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.evaluation import metrics
from durian_jax.evaluation.contact_sheet import side_by_side
from durian_jax.evaluation.reenactment import ReenactmentCase, by_driver, reenactment_case
from durian_jax.inference.animator import Animator
from durian_jax.progress import progress_bar
from durian_jax.video import Provenance, there_and_back, write_video

# Attribute kinds of each person.
PEOPLE: tuple[tuple[str, ...], ...] = ((), (), (), ("hair",))
REENACTMENT_COLUMNS = ("portrait", "driver", "result", "exact truth")
Result = tuple[ReenactmentCase, np.ndarray]


def reenact_people(checkpoint: str | Path, frames: int = 16) -> list[Result]:
    """Reenact `PEOPLE`; return each case with its result (T, H, W, 3) uint8.

    Args:
        checkpoint: name of a shipped checkpoint, or a folder.
        frames: T; reduced to the checkpoint's `max_frames` if larger.
    """
    model = load_checkpoint(checkpoint)
    system = by_driver(Animator(model))
    frames, size = min(frames, model.config.max_frames), model.config.image_size
    results = []
    for index, kinds in enumerate(progress_bar(PEOPLE, desc="reenacting", unit="person")):
        case = reenactment_case(index, frames, size, kinds)
        results.append((case, system(case)))
    return results


def write_reenactments(out: Path, results: list[Result], provenance: Provenance) -> dict[str, Any]:
    """Write a video of each reenactment and return the page's section."""
    videos = []
    for number, (case, result) in enumerate(results):
        attributes = [(kind, photo.frames) for kind, photo in case.attributes]
        clips = [("portrait", case.source.frames), *attributes, ("driver", case.driver.frames), ("result", result),
                 ("exact truth", case.truth.frames)]
        file = f"reenact_{number}.mp4"
        write_video(out / file, there_and_back(side_by_side(clips)), case.motion.fps / 2,
                    provenance=provenance)
        title = " with new ".join(["reenactment", *(kind for kind, _ in case.attributes)])
        videos.append({"file": file, "title": title, "note": f"{metrics.psnr(result, case.truth.frames):.1f} dB"})
    return {"title": "Reenactment", "videos": videos,
            "text": "A person does what a driver does. The model sees only the driver's eyes, nose and mouth."}


def reenactment_rows(results: list[Result], moment: float) -> list[tuple[str, tuple[np.ndarray, ...]]]:
    """Rows of the contact sheet: portrait, driver, result and truth at a relative position of the clip."""
    rows = []
    for case, result in results:
        shown = [clip[int(moment * len(clip))] for clip in (case.driver.frames, result, case.truth.frames)]
        rows.append(("\n+ ".join(["motion", *(kind for kind, _ in case.attributes)]),
                     (case.source.frames[0], *shown)))
    return rows
