"""`durian evaluate`: benchmark scores as a table, a JSON file and a contact sheet."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation import transfer
from durian_jax.evaluation.contact_sheet import Section, draw_sheet
from durian_jax.evaluation.metrics import mean_text
from durian_jax.evaluation.reconstruction import reconstruction_cases
from durian_jax.evaluation.reenactment_report import evaluate_reenactment
from durian_jax.evaluation.settings import sampling_settings
from durian_jax.files import together, writable_file, write_json
from durian_jax.inference.family import check_transfers
from durian_jax.versions import versions
from durian_jax.video import write_image

_COLUMNS = ("portrait", "attribute", "driving", "pasted", "result", "exact truth")


BENCHMARKS = ("synthetic", "reconstruction", "reenactment")


def evaluate_checkpoint(checkpoint: str | Path, *, benchmark: str = "synthetic", clips: str | Path | None = None,
                        cases: int = 64, frames: int = 8, split: str = transfer.SPLIT,
                        sampling: Sampling | Mapping[str, Any] | None = None, json_path: str | Path | None = None,
                        sheet_path: str | Path | None = None, sheet_cases: int = 5, robustness: bool = False) -> str:
    """Run a benchmark, write the requested files and return the table of scores.

    Args:
        checkpoint: name of a shipped checkpoint, or a folder.
        benchmark: "synthetic", see `evaluation.transfer`; "reconstruction", see `evaluation.reconstruction`;
            "reenactment", see `evaluation.reenactment`.
        clips: for "reconstruction", a folder of records of people who are not in the training data.
        cases: number of transfers per attribute kind, or of reenactments; "reconstruction" uses fewer if the records
            have fewer.
        frames: frames per case.
        split: procedural people of "synthetic": "benchmark", or "validation" to choose settings.
        sampling: steps, guidance and seed.
        json_path: file for `summary`, `settings`, `seconds`, `versions`, and the `scores` of every case.
        sheet_path: file for a contact sheet.
        sheet_cases: number of cases per kind on the sheet.
        robustness: "reenactment" only: also measure subsets of regions, shifted and hidden ones, and other scales.

    Returns:
        The table as text.

    Raises:
        InputError: the benchmark or checkpoint is unknown, the settings do not fit each other, or an output
            is not writable.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(f"unknown benchmark {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    if (benchmark == "reconstruction") != (clips is not None):
        raise InputError("the benchmark reconstruction needs a folder of records (--clips); other benchmarks take none")
    if json_path:
        writable_file(json_path, (".json",))
    if sheet_path:
        writable_file(sheet_path, (".png", ".jpg"))
    if robustness and benchmark != "reenactment":
        raise InputError(f"--robustness: expected --benchmark reenactment, found {benchmark}")
    if split not in (transfer.SPLIT, "validation") or (split != transfer.SPLIT and benchmark != "synthetic"):
        raise InputError(f"--split {split}: expected benchmark, or validation with --benchmark synthetic")
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
    questions = (transfer.transfer_cases(cases, frames, size, split) if clips is None else
                 reconstruction_cases(clips, cases, frames, size))
    started = time.perf_counter()
    result = transfer.run(model, questions, sampling, keep=sheet_cases if sheet_path else 0)
    seconds = time.perf_counter() - started
    with together() as place_of:
        if json_path:
            write_json(place_of(json_path), {
                "summary": result.summary,
                "settings": {"benchmark": benchmark, "cases": cases, "frames": frames, "split": split,
                             **({} if clips is None else {"clips": str(clips)}),
                             **sampling_settings(checkpoint, model, sampling)},
                "seconds": seconds, "versions": versions(), "scores": result.scores})
        if sheet_path:
            write_image(place_of(sheet_path), benchmark_sheet(result.examples))
    return table(result.summary)


def table(summary: dict[str, dict]) -> str:
    """Format the summary as three text tables; each mean is shown with half of its 95 % interval."""
    tables = ((("PSNR dB", "psnr"), ("unchanged", "unchanged_psnr"), ("pasted", "paste_psnr"),
               ("moving paste", "paste_moving_psnr"), ("L1", "l1"), ("SSIM", "ssim"), ("sharpness", "sharpness"),
               ("edge gradient", "edge_gradient")),
              (("region dB", "psnr_region"), ("unchanged", "unchanged_psnr_region"), ("pasted", "paste_psnr_region"),
               ("moving paste", "paste_moving_psnr_region"), ("region SSIM", "ssim_region"),
               ("removed dB", "psnr_removed")),
              (("still", "still"), ("still, far", "still_far"), ("tde", "tde")))
    lines = []
    for columns in tables:
        lines += ["", f"{'':8}{'cases':>6}" + "".join(f"{heading:>15}" for heading, _ in columns)]
        for kind, row in summary.items():
            cells = [mean_text(row, key, 2 if _two_digits(key) else 3) for _, key in columns]
            lines.append(f"{kind:8}{row['cases']:6}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines[1:])


def _two_digits(key: str) -> bool:
    return "psnr" in key or key in ("still", "still_far", "tde")


def benchmark_sheet(examples: dict[str, list]) -> np.ndarray:
    """Draw a contact sheet with the first frame of each example."""
    sections = []
    for kind in examples:
        rows = [(f"{kind} {i}", (case.portrait.frames[0], case.attributes[0][1].frames[0],
                                 case.driving.frames[0], transfer.paste(case), result[0],
                                 case.truth.frames[0]))
                for i, (case, result) in enumerate(examples[kind])]
        sections.append(Section(kind, _COLUMNS, rows))
    return draw_sheet("Benchmark", sections)
