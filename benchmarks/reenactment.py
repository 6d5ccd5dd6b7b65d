"""Variants of svdp:tiny, trained alike for a short time: quality and speed in one table.

    durian synthesize --out data/people --clips 2000 --frames 12 --fps 6 --drivers
    durian synthesize --out data/videos --clips 500 --frames 20 --first 20000 --drivers
    python -m benchmarks.reenactment --clips data/people data/videos --out runs/variants        2 hours on two cores
    python -m benchmarks.reenactment --clips data/people data/videos --out runs/variants --markdown docs/svdp.md

Each variant runs stage `image`, then stage `video`, with the same steps, seeds and samples. `factorised` shares stage
`image` with `one_way`. Runs that were stopped continue. All variants answer the same cases of
`durian evaluate --benchmark reenactment`. Their sampling is timed in turns, in one process: a video of two segments.
--markdown replaces what follows the heading "Measured variants" in that file.
"""

import argparse
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from durian_jax import runtime
from durian_jax.files import write_json, write_text

# Variant -> the ablation of stage "image" and of stage "video".
VARIANTS = {"one_way": ("one_way", "one_way"), "joint": ("joint", "joint"), "canvas": ("canvas", "canvas"),
            "unaligned": ("unaligned", "unaligned"), "factorised": ("one_way", "factorised")}
COLUMNS = (("PSNR dB", "psnr", 2), ("eyes", "psnr_eyes", 2), ("mouth", "psnr_mouth", 2), ("gaze x", "gaze_x", 2),
           ("gaze y", "gaze_y", 2), ("blink", "blink", 2), ("mouth", "mouth", 3), ("flicker", "flicker", 2))
# Numbers of sampling steps whose speed is measured.
STEPS = (1, 8)
HEADING = "## Measured variants"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", required=True, nargs=2, metavar=("IMAGE", "VIDEO"),
                        help="folders of `durian synthesize --drivers`, for each stage")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs, and of results.json")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--steps", nargs=2, type=int, default=(600, 150), metavar=("IMAGE", "VIDEO"))
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5, help="timed videos of each variant")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    options = parser.parse_args()
    runtime.configure()
    folders = {name: train(name, options) for name in options.variants}
    rows = quality(folders, options.cases)
    for steps in STEPS:
        for name, seconds in speed(folders, options.rounds, steps).items():
            rows[name][f"seconds_per_frame_{steps}"] = seconds
    versions = f"jax {version('jax')}, {date.today()}"
    write_json(options.out / "results.json", {"versions": versions, "steps": options.steps, "rows": rows})
    lines = table(rows)
    print("\n".join(lines))
    if options.markdown:
        command = f"`python -m benchmarks.reenactment --clips data/people data/videos --out runs/variants`, {versions}"
        text = (f"{HEADING}\n\n{command}: {options.steps[0]:,} steps of stage `image`, {options.steps[1]:,} of stage "
                f"`video`, {options.cases} unseen people.\n\n" + "\n".join(lines) + "\n")
        head = options.markdown.read_text().partition(HEADING)[0] if options.markdown.exists() else ""
        write_text(options.markdown, head + text)


def train(name: str, options: argparse.Namespace) -> Path:
    """Run both stages of a variant, or what is left of them; return the folder of the second."""
    image, video = VARIANTS[name]
    first, second = options.out / f"image-{image}", options.out / f"video-{video}"
    durian_train(first, f"svdp:tiny,stage=image,ablation={image}", options.clips[0], options.steps[0], "tiny",
                 "codec/")
    durian_train(second, f"svdp:tiny,stage=video,ablation={video}", options.clips[1], options.steps[1], str(first))
    return second


def durian_train(folder: Path, config: str, clips: str, steps: int, start: str, only: str | None = None) -> None:
    fields = {"source.clips": clips, "init_from": start, "total_steps": steps, "decay_steps": steps // 2,
              "sample_every": steps, "checkpoint_every": 100, "average_decay": 0.98}
    if only:
        fields["init_only"] = only
    command = [sys.executable, "-m", "durian_jax", "train", f"--config={config}", f"--workdir={folder}",
               *(f"--config.{field}={value}" for field, value in fields.items())]
    print(" ".join(command[1:]), flush=True)
    subprocess.run(command, check=True)


def animators(folders: dict[str, Path]) -> dict:
    from durian_jax.inference.animator import Animator

    return {name: Animator(folder / "export") for name, folder in folders.items()}


def quality(folders: dict[str, Path], count: int) -> dict[str, dict]:
    """The summary of `evaluation.reenactment.measure` of each variant."""
    from durian_jax.evaluation import reenactment

    cases = [reenactment.reenactment_case(index) for index in range(count)]
    long = [reenactment.reenactment_case(count, 48)]
    return {name: reenactment.measure(reenactment.by_driver(animator), cases, long, name=name).summary
            for name, animator in animators(folders).items()}


def speed(folders: dict[str, Path], rounds: int, steps: int) -> dict[str, float]:
    """Median seconds per frame of each variant with this number of sampling steps, in turns, after a first round."""
    from durian_jax.diffusion import Sampling
    from durian_jax.evaluation import reenactment

    systems = {name: (animator, reenactment.by_driver(animator, Sampling(steps=steps)))
               for name, animator in animators(folders).items()}
    found: dict[str, list[float]] = {name: [] for name in systems}
    case = None
    for _ in range(rounds + 1):
        for name, (animator, system) in systems.items():
            frames = 2 * animator.backend.config.max_frames - animator.backend.config.history
            case = case or reenactment.reenactment_case(0, frames)
            start = time.perf_counter()
            system(case)
            found[name].append((time.perf_counter() - start) / frames)
    return {name: float(np.median(seconds[1:])) for name, seconds in found.items()}


def table(rows: dict[str, dict]) -> list[str]:
    """The lines of a Markdown table; a mean is shown with half of its 95 % interval."""
    from durian_jax.evaluation.metrics import mean_text

    heads = ["variant", *(head for head, *_ in COLUMNS), *(f"s per frame, steps: {steps}" for steps in STEPS)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        cells = [mean_text(row, key, digits) for _, key, digits in COLUMNS]
        seconds = [f"{row[f'seconds_per_frame_{steps}']:.3f}" for steps in STEPS]
        lines.append(f"| {' | '.join([name, *cells, *seconds])} |")
    return lines


if __name__ == "__main__":
    main()
