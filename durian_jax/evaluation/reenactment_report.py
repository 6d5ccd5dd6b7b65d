"""`durian evaluate --benchmark reenactment`: scores of a model and of baselines as a table, a JSON file and a sheet."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation import metrics, reenactment
from durian_jax.evaluation.columns import REENACTMENT
from durian_jax.evaluation.contact_sheet import Section, draw_sheet
from durian_jax.evaluation.settings import sampling_settings
from durian_jax.files import together, write_json
from durian_jax.inference.animator import Animator
from durian_jax.inference.family import check_driven_by
from durian_jax.versions import versions
from durian_jax.video import write_image

# The shipped model that is driven by keypoints, for the baselines.
_BASELINE = "tiny"
_LONG_SHARE = 5  # number of short cases per long case


def evaluate_reenactment(checkpoint: str | Path, *, cases: int, frames: int,
                         sampling: Sampling | Mapping[str, Any] | None = None, json_path: str | Path | None = None,
                         sheet_path: str | Path | None = None, sheet_cases: int = 5, robustness: bool = False) -> str:
    """Run the benchmark of `evaluation.reenactment` on a model and on baselines; return the table.

    The baselines are the unchanged portrait, and the shipped model that is driven by keypoints: by the driver's motion
    relative to its first frame, and by the keypoints of the answer (an oracle).

    Args:
        checkpoint: name of a shipped checkpoint, or a folder.
        cases: number of short cases; a fifth as many long ones are added.
        frames: of a short case.
        sampling: steps, guidance and seed.
        json_path, sheet_path, sheet_cases: see `evaluation.report.evaluate_checkpoint`.
        robustness: also measure `reenactment.robustness_systems`, on the short cases.

    Raises:
        InputError: a model of another picture size than the baselines', more frames than a segment has, or
            `robustness` of a model that is not driven by pixels.
    """
    config, size = read_description(checkpoint).config, read_description(_BASELINE).config.image_size
    if config.image_size != size:
        raise InputError(f"{checkpoint}: this benchmark compares with {_BASELINE} at {size} px, found a model of "
                         f"{config.image_size} px; name a checkpoint of {size} px")
    if frames > config.max_frames:
        raise InputError(f"--frames {frames}: expected at most {config.max_frames}, one segment of {checkpoint}")
    if robustness:
        check_driven_by(config, "pixels", "--robustness")
    model, baseline = load_checkpoint(checkpoint), load_checkpoint(_BASELINE)
    settings = model.description.sampling_for(sampling)
    started = time.perf_counter()
    short = [reenactment.reenactment_case(index, frames, size) for index in range(cases)]
    long = [reenactment.reenactment_case(cases + index, reenactment.LONG_FRAMES, size)
            for index in range(max(1, cases // _LONG_SHARE))]
    animator, other = Animator(model), Animator(baseline)
    main = reenactment.measure(reenactment.by_driver(animator, settings), short, long, model.config.max_frames,
                               name=str(checkpoint), keep=sheet_cases if sheet_path else 0)
    window = baseline.config.max_frames
    baselines = {
        "unchanged": reenactment.measure(reenactment.unchanged, short, long, name="unchanged portrait"),
        "keypoints": reenactment.measure(reenactment.by_driver(other), short, long, window, name="keypoints, relative"),
        "oracle": reenactment.measure(reenactment.by_oracle(other), short, long, window, name="keypoints, oracle"),
    }
    changed = {} if not robustness else {
        name: reenactment.measure(system, short, name=name)
        for name, system in reenactment.robustness_systems(animator, settings).items()}
    with together() as place_of:
        if json_path:
            write_json(place_of(json_path), {
                "summary": main.summary, "baselines": {name: found.summary for name, found in baselines.items()},
                **({"robustness": {name: found.summary for name, found in changed.items()}} if robustness else {}),
                "settings": {"benchmark": "reenactment", "cases": cases, "frames": frames, "long_cases": len(long),
                             "long_frames": reenactment.LONG_FRAMES, **sampling_settings(checkpoint, model, settings)},
                "seconds": time.perf_counter() - started, "versions": versions(), "scores": main.scores})
        if sheet_path:
            write_image(place_of(sheet_path), sheet(main.examples))
    rows = {str(checkpoint): main, **baselines, **changed}
    return table({name: found.summary for name, found in rows.items()})


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Format summaries as a text table; each mean is shown with half of its 95 % interval."""
    width = max(map(len, rows)) + 2
    lines = [" " * width + "".join(f"{column.heading:>14}" for column in REENACTMENT)]
    for name, row in rows.items():
        lines.append(f"{name:{width}}" + "".join(
            f"{metrics.mean_text(row, column.key, column.digits):>14}" for column in REENACTMENT))
    return "\n".join(lines)


def sheet(examples: list) -> np.ndarray:
    """Draw the first and the last frame of each example."""
    rows = [(f"{number}", (case.source.frames[0], case.driver.frames[0], result[0], case.truth.frames[0],
                           case.driver.frames[-1], result[-1], case.truth.frames[-1]))
            for number, (case, result) in enumerate(examples)]
    columns = ("source", "first: driver", "result", "truth", "last: driver", "result", "truth")
    return draw_sheet("Reenactment", [Section("unseen people and motions", columns, rows)])
