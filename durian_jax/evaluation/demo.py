"""`durian demo`: results on held-out procedural people, next to the exact answers.

Only two functions are compiled, one for compositions and one for interpolations. A transfer runs as a
composition with an empty second slot.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from tqdm import tqdm

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.diffusion import Sampling
from durian_jax.evaluation.contact_sheet import (
    Section,
    draw_sheet,
    side_by_side,
    split_picture,
    with_inset,
)
from durian_jax.evaluation.demo_reenactment import (
    REENACTMENT_COLUMNS,
    Result,
    reenact_people,
    reenactment_rows,
    write_reenactments,
)
from durian_jax.evaluation.settings import sampling_settings
from durian_jax.evaluation.transfer import TransferCase, sample, score, summarize, transfer_case
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import check_folder, staged, write_json, write_text
from durian_jax.inference.family import check_driven_by, check_transfers
from durian_jax.progress import progress_bar
from durian_jax.versions import versions
from durian_jax.video import Provenance, there_and_back, write_image, write_video
from durian_jax.video.signing import Signer

COMPOSITIONS = (("hair", "glasses"), ("hat", "beard"))
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COLUMNS = ("portrait", "attribute", "driving", "result", "exact truth")
_SLOTS = 2
_BATCH = 5
_SHEET_FRAME = 0.7  # relative position of the frame that the contact sheet shows


def run_demo(out: str | Path, *, checkpoint: str | Path = "tiny", cases: int = 2, frames: int = 16,
             sampling: Sampling | Mapping[str, Any] | None = None,
             reenactment: str | Path | None = "svdp-tiny", signer: Signer | None = None) -> dict:
    """Run transfers, compositions, one interpolation and reenactments; write videos, a sheet, a page and a report.

    Args:
        out: output folder; created if missing.
        checkpoint: name of a shipped checkpoint, or a folder.
        cases: number of transfers per attribute kind.
        frames: frames per clip; reduced to the checkpoint's `max_frames` if larger.
        sampling: steps, guidance and seed of `checkpoint`.
        reenactment: name or folder of a checkpoint that reenacts people; None: no reenactments.
        signer: signs a C2PA manifest in each video; None: plain metadata only.

    Returns:
        The content of report.json.

    Raises:
        InputError: a checkpoint is unknown, the model `reenactment` is not driven by pixels, or `out` is not writable.
    """
    started = time.perf_counter()
    out = check_folder(out)
    check_transfers(read_description(checkpoint).config, "the demo")
    if reenactment is not None:
        check_driven_by(read_description(reenactment).config, "pixels", "--reenactment")
    model = load_checkpoint(checkpoint)
    sampling = model.description.sampling_for(sampling)
    size, frames = model.config.image_size, min(frames, model.config.max_frames)

    transfers = [transfer_case(kind, i, frames, size) for i in range(cases) for kind in ATTRIBUTE_KINDS]
    compositions = [transfer_case(kinds, i, frames, size) for i, kinds in enumerate(COMPOSITIONS)]
    with progress_bar(total=-(-len(transfers + compositions) // _BATCH) + 1, desc="sampling", unit="batch") as bar:
        results = _in_batches(model, transfers + compositions, bar, sampling)
        blended = two_hairstyles(frames, size)
        steps_between = sample(model, [blended] * len(ALPHAS), sampling, blend=[(1 - a, a) for a in ALPHAS])
        bar.update()

    transfer_results, composition_results = results[:len(transfers)], results[len(transfers):]
    scores = {kind: [score(case, result) for case, result in zip(transfers, transfer_results, strict=True)
                     if case.attributes[0][0] == kind] for kind in ATTRIBUTE_KINDS}
    summary = summarize(scores)

    reenacted: list[Result] = []
    if reenactment is not None:
        reenacted = reenact_people(reenactment, frames)

    with staged(out) as made:
        pages = _write_videos(made, transfers, transfer_results, compositions, composition_results, blended,
                              steps_between, Provenance(checkpoint, signer))
        if reenacted:
            pages.append(write_reenactments(made, reenacted, Provenance(str(reenactment), signer)))
        write_image(made / "sheet.png", demo_sheet(transfers, transfer_results, compositions, composition_results,
                                                  blended, steps_between, reenacted))
        report = {"seconds": time.perf_counter() - started, "summary": summary,
                  "settings": {"cases": cases, "frames": frames, "reenactment": None if reenactment is None
                               else str(reenactment), **sampling_settings(checkpoint, model, sampling)},
                  "provenance": Provenance(checkpoint, signer).report,
                  "versions": versions()}
        write_json(made / "report.json", report)
        write_text(made / "index.html", _page(pages, report))
    return report


def two_hairstyles(frames: int, size: int) -> TransferCase:
    """Return a case with the hairstyles of two people as attributes, to blend on a third person."""
    first, second = (transfer_case("hair", index, frames, size) for index in (100, 101))
    return replace(first, attributes=(*first.attributes, *second.attributes))


def _in_batches(model, cases: Sequence[TransferCase], bar: tqdm, sampling: Sampling) -> np.ndarray:
    """Sample all cases in batches of equal size, so that one compiled function serves all."""
    results = []
    for start in range(0, len(cases), _BATCH):
        group = list(cases[start:start + _BATCH])
        full = group + group[:1] * (_BATCH - len(group))
        results.append(sample(model, full, sampling, slots=_SLOTS)[:len(group)])
        bar.update()
    return np.concatenate(results)


def _attribute_picture(case: TransferCase) -> np.ndarray:
    return split_picture([photo.frames[0] for _, photo in case.attributes])


def _name(case: TransferCase) -> str:
    return " + ".join(kind for kind, _ in case.attributes)


def _write_videos(out: Path, transfers, transfer_results, compositions, composition_results, blended,
                  steps_between, provenance: Provenance) -> list[dict]:
    """Write every mp4 and return the page's sections."""
    def video(file: str, case: TransferCase, result: np.ndarray) -> dict:
        clips = (case.portrait.frames, _attribute_picture(case)[None], case.driving.frames, result,
                 case.truth.frames)
        # Forwards, then backwards, so that the loop has no jump.
        pages = there_and_back(side_by_side(list(zip(_COLUMNS, clips, strict=True))))
        write_video(out / file, pages, case.truth.fps / 2, provenance=provenance)
        region = score(case, result)["psnr_region"]
        return {"file": file, "title": _name(case), "note": f"{region:.1f} dB in the region"}

    sections = [
        {"title": "Transfer",
         "text": "An attribute of one person is transferred to a second person, who moves like a third.",
         "videos": [video(f"transfer_{_name(case)}_{i // len(ATTRIBUTE_KINDS)}.mp4", case, result)
                    for i, (case, result) in enumerate(zip(transfers, transfer_results, strict=True))]},
        {"title": "Composition", "text": "Attributes of two people are transferred in one pass, without retraining.",
         "videos": [video(f"compose_{_name(case).replace(' + ', '_')}.mp4", case, result)
                    for case, result in zip(compositions, composition_results, strict=True)]}]
    strip = side_by_side([(_share(a), clip) for a, clip in zip(ALPHAS, steps_between, strict=True)])
    write_video(out / "interpolate_hair.mp4", there_and_back(strip), blended.truth.fps / 2,
                provenance=provenance)
    sections.append({"title": "Interpolation",
                     "text": "One hairstyle changes into another: the outputs of two attentions are blended.",
                     "videos": [{"file": "interpolate_hair.mp4", "title": "hair", "note": ""}]})
    return sections


def _share(alpha: float) -> str:
    return {0.0: "first hairstyle", 1.0: "second hairstyle"}.get(alpha, f"{1 - alpha:.0%} + {alpha:.0%}")


def demo_sheet(transfers, transfer_results, compositions, composition_results, blended,
               steps_between, reenacted: Sequence[Result] = ()) -> np.ndarray:
    """Draw the contact sheet: one frame of every result."""
    def rows(cases, results):
        return [(_name(case).replace(" + ", "\n+ "),
                 (case.portrait.frames[0], _attribute_picture(case), *(
                     clip[int(_SHEET_FRAME * len(clip))]
                     for clip in (case.driving.frames, result, case.truth.frames))))
                for case, result in zip(cases, results, strict=True)]

    moment = [clip[int(_SHEET_FRAME * len(clip))] for clip in steps_between]
    for i, (_, photo) in zip((0, -1), blended.attributes, strict=True):
        moment[i] = with_inset(moment[i], photo.frames[0])
    sections = [
        Section("Transfer", _COLUMNS, rows(transfers, transfer_results)),
        Section("Composition", _COLUMNS, rows(compositions, composition_results)),
        Section("Interpolation", [_share(a) for a in ALPHAS], [("hair", moment)])]
    if reenacted:
        sections.append(Section("Reenactment", REENACTMENT_COLUMNS, reenactment_rows(reenacted, _SHEET_FRAME)))
    return draw_sheet("Durian-JAX", sections)


def _page(sections: list[dict], report: dict) -> str:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("durian_jax.evaluation"), autoescape=True,
                                     undefined=jinja2.StrictUndefined)
    return environment.get_template("demo.html").render(
        sections=sections, sheet="sheet.png", **report)
