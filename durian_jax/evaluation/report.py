"""`durian evaluate`: scores of a benchmark or of suites as tables, a JSON file, a contact sheet and examples."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation import transfer
from durian_jax.evaluation.columns import SUITES, suite_names, tables_of, text_table
from durian_jax.evaluation.contact_sheet import Section, draw_sheet, split_picture
from durian_jax.evaluation.examples import write_examples
from durian_jax.evaluation.reconstruction import reconstruction_cases
from durian_jax.evaluation.reenactment_report import evaluate_reenactment
from durian_jax.evaluation.settings import sampling_settings
from durian_jax.evaluation.suites.run import BUILDERS, run_suite
from durian_jax.files import check_folder, together, writable_file, write_json
from durian_jax.inference.family import check_transfers
from durian_jax.inference.references import with_photos
from durian_jax.versions import versions
from durian_jax.video import write_image

_COLUMNS = ("portrait", "attribute", "driving", "pasted", "result", "exact truth")


BENCHMARKS = ("synthetic", "reconstruction", "reenactment")


# Cases per attribute kind of a benchmark, and per row of a suite.
_CASES, _SUITE_CASES = 64, 16


def evaluate_checkpoint(checkpoint: str | Path, *, benchmark: str = "synthetic", clips: str | Path | None = None,
                        suites: str | Sequence[str] = (), cases: int | None = None, frames: int = 8,
                        split: str = transfer.SPLIT, sampling: Sampling | Mapping[str, Any] | None = None,
                        json_path: str | Path | None = None, sheet_path: str | Path | None = None,
                        sheet_cases: int = 5, examples: str | Path | None = None, example_cases: int = 3,
                        robustness: bool = False) -> str:
    """Run a benchmark, or suites, write the requested files and return the tables of scores.

    Args:
        checkpoint: name of a shipped checkpoint, or a folder.
        benchmark: "synthetic", see `evaluation.transfer`; "reconstruction", see `evaluation.reconstruction`;
            "reenactment", see `evaluation.reenactment`.
        clips: for "reconstruction", a folder of records of people who are not in the training data.
        suites: names of suites to run instead of "synthetic", or one text of names separated by commas, or "all"; see
            `evaluation.columns.SUITES`.
        cases: number of transfers per attribute kind, per row of a suite, or of reenactments; "reconstruction" uses
            fewer if the records have fewer. None: 64, and 16 per row of a suite.
        frames: frames per case; the suite "long" takes 8 times as many.
        split: procedural people of "synthetic" and of suites: "benchmark", or "validation" to choose settings.
        sampling: steps, guidance and seed.
        json_path: file for `summary`, `settings`, `seconds`, `versions`, and the `scores` of every case. Suites have
            summary and scores of their own under `suites`.
        sheet_path: file for a contact sheet.
        sheet_cases: number of cases per kind on the sheet.
        examples: folder for pictures of the worst and the best cases, which `durian compare` shows; needs `json_path`.
        example_cases: number of the worst, and of the best, cases per row in `examples`.
        robustness: "reenactment" only: also measure subsets of regions, shifted and hidden ones, and other scales.

    Returns:
        The tables as text.

    Raises:
        InputError: the benchmark, a suite or the checkpoint is unknown, the settings do not fit each other, or an
            output is not writable.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(f"unknown benchmark {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    names = suite_names(suites) if suites else ()
    if names and benchmark != "synthetic":
        raise InputError(f"--suite: expected no --benchmark {benchmark}; suites take the place of a benchmark")
    if (benchmark == "reconstruction") != (clips is not None):
        raise InputError("the benchmark reconstruction needs a folder of records (--clips); other benchmarks take none")
    if json_path:
        writable_file(json_path, (".json",))
    if sheet_path:
        writable_file(sheet_path, (".png", ".jpg"))
    if examples:
        if not json_path or benchmark == "reenactment":
            raise InputError("--examples: expected also --json, which lists the pictures, and no --benchmark "
                             "reenactment; add --json FILE.json")
        check_folder(examples)
    if robustness and benchmark != "reenactment":
        raise InputError(f"--robustness: expected --benchmark reenactment, found {benchmark}")
    if split not in (transfer.SPLIT, "validation") or (split != transfer.SPLIT and benchmark != "synthetic"):
        raise InputError(f"--split {split}: expected benchmark, or validation with --benchmark synthetic")
    if cases is None:
        cases = _SUITE_CASES if names else _CASES
    if benchmark == "reenactment":
        return evaluate_reenactment(checkpoint, cases=cases, frames=frames, sampling=sampling,
                                    json_path=json_path, sheet_path=sheet_path, sheet_cases=sheet_cases,
                                    robustness=robustness)
    check_transfers(read_description(checkpoint).config, "this benchmark")
    model = load_checkpoint(checkpoint)
    sampling = model.description.sampling_for(sampling)
    size, longest = model.config.image_size, model.config.max_frames
    if frames > longest:
        raise InputError(f"--frames {frames}: expected at most {longest} frames, the limit of {checkpoint}")
    keep, extremes = sheet_cases if sheet_path else 0, example_cases if examples else 0
    started = time.perf_counter()
    if names:
        results = {name: run_suite(model, name, cases, frames, split, sampling, keep=keep, extremes=extremes)
                   for name in names}
    else:
        questions = (transfer.transfer_cases(cases, frames, size, split) if clips is None else
                     reconstruction_cases(clips, cases, frames, size))
        results = {benchmark: transfer.run(model, questions, sampling, keep=keep, extremes=extremes)}
    seconds = time.perf_counter() - started
    report: dict[str, Any] = {
        "settings": {"benchmark": "suites" if names else benchmark, **({"suites": names} if names else {}),
                     "cases": cases, "frames": frames, "split": split,
                     **({} if clips is None else {"clips": str(clips)}),
                     **sampling_settings(checkpoint, model, sampling)},
        "seconds": seconds, "versions": versions()}
    if names:
        report["suites"] = {name: {"same_people": BUILDERS[name].reference is not None, "summary": result.summary,
                                   "scores": result.scores} for name, result in results.items()}
    else:
        report = {"summary": results[benchmark].summary, **report, "scores": results[benchmark].scores}
    with together() as place_of:
        if examples and json_path:
            folder = Path(examples)
            pictures = place_of(folder / "any").parent  # moves to the folder with the other outputs
            report["examples"] = {
                "folder": os.path.relpath(folder, Path(json_path).parent),
                "cases": {name: write_examples(pictures, name, result.extremes) for name, result in results.items()}}
        if json_path:
            write_json(place_of(json_path), report)
        if sheet_path:
            write_image(place_of(sheet_path), benchmark_sheet(
                {row if not names else f"{name}: {row}": kept for name, result in results.items()
                 for row, kept in result.examples.items()}))
    if not names:
        return text_table(results[benchmark].summary)
    return "\n\n".join(f"{name}: {SUITES[name].about}\n" + text_table(
        result.summary, tables_of(name)) for name, result in results.items())


def _donors(case: transfer.TransferCase) -> np.ndarray:
    """The attribute photos in one picture; blank if the attributes are taken away."""
    photos = [photo.frames[0] for _, photo in with_photos(case.attributes)]
    return split_picture(photos) if photos else np.full_like(case.portrait.frames[0], 255)


def benchmark_sheet(examples: Mapping[str, list]) -> np.ndarray:
    """Draw a contact sheet with the first frame of each example."""
    sections = []
    for kind in examples:
        rows = [(f"{kind if len(kind) < 9 else 'case'} {i}", (
            case.portrait.frames[0], _donors(case), case.driving.frames[0], transfer.paste(case), result[0],
            case.truth.frames[0])) for i, (case, result) in enumerate(examples[kind])]
        sections.append(Section(kind, _COLUMNS, rows))
    return draw_sheet("Benchmark", sections)
