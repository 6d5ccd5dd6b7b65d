"""Write the figures of `durian evaluate --benchmark reenactment --json` into a model card.

    durian evaluate --benchmark reenactment --checkpoint svdp-tiny --cases 20 --robustness --json FOLDER/figures.json
    python -m benchmarks.model_card FOLDER

Replaces the section "Figures" of FOLDER/README.md by tables of FOLDER/figures.json, and says which targets are met.
--robustness adds a table of regions and scales.
"""

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from durian_jax.evaluation.metrics import mean_text
from durian_jax.files import write_text

# Heading, key and digits of the columns of each table, and what is said below it.
TABLES = (
    ((("PSNR", "psnr", 2), ("eyes", "psnr_eyes", 2), ("mouth", "psnr_mouth", 2), ("gaze x", "gaze_x", 2),
      ("gaze y", "gaze_y", 2), ("blink", "blink", 2), ("mouth", "mouth", 2)),
     "PSNR is in dB. Gaze, blink and mouth are absolute errors. They are read off by drawing the answer over a grid of "
     "values from -1 or 0 to 1."),
    ((("without glasses: gaze x", "gaze_x_bare", 2), ("gaze y", "gaze_y_bare", 2), ("blink", "blink_bare", 2)),
     "More than half of the people wear glasses, many of them tinted. These hide most of what an eye does."),
    ((("leak: colour", "leak_colour", 0), ("of a stranger", "leak_colour_stranger", 0),
      ("leak: shape", "leak_shape", 0), ("of a stranger", "leak_shape_stranger", 0),
      ("leak: glasses", "leak_glasses", 0), ("of a stranger", "leak_glasses_stranger", 0)),
     "A leak is how far the result has moved from the truth towards the driver's colours, shapes or glasses, in "
     "percent; all cases are pooled. A blurred result moves towards everybody: the second number of each pair is the "
     "same measure for a person whom no input shows. Only what exceeds it comes from the driver."),
    ((("seam", "seam", 2), ("drift of brightness, %", "drift_brightness", 2), ("last - first, dB", "drift_psnr", 2),
      ("flicker", "flicker", 2)),
     "These are of the long videos. Flicker, in grey levels, is the change from frame to frame where the truth stands "
     "still."))
# The same for regions and scales.
ROBUSTNESS = (("PSNR", "psnr", 2), ("eyes", "psnr_eyes", 2), ("mouth", "psnr_mouth", 2), ("gaze x", "gaze_x", 2),
              ("gaze y", "gaze_y", 2), ("blink", "blink", 2), ("mouth", "mouth", 2))
ROWS = {"unchanged": "the unchanged portrait", "keypoints": "`tiny`, driven by the same video",
        "oracle": "`tiny`, driven by the answer's keypoints"}
# Key -> name, target, and whether more is better.
TARGETS = {
    "psnr": ("PSNR", 24, True), "psnr_eyes": ("eyes", 19.5, True), "psnr_mouth": ("mouth", 23, True),
    "gaze_x": ("gaze x", 0.10, False), "gaze_y": ("gaze y", 0.25, False), "blink": ("blink", 0.10, False),
    "mouth": ("error of the mouth", 0.04, False), "leak_colour": ("leak of colour", 5, False),
    "leak_shape": ("leak of shape", 10, False), "leak_glasses": ("leak of glasses", 5, False),
    "seam": ("seam", 1.1, False), "drift_brightness": ("drift of brightness", 1, False),
    "drift_psnr": ("last - first", -0.3, True), "flicker": ("flicker", 1.2, False)}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    figures = json.loads((folder / "figures.json").read_text())
    write_text(folder / "README.md", with_figures((folder / "README.md").read_text(), figures))


def with_figures(card: str, figures: Mapping[str, Any]) -> str:
    """Return the model card with the figures in its section "Figures"."""
    before, _, rest = card.partition("## Figures\n")
    after = rest[rest.index("\n## "):]
    return f"{before}## Figures\n\n{section(figures)}\n{after}"


def section(figures: Mapping[str, Any]) -> str:
    """The text of the section: how it was measured, tables, and targets."""
    name, settings = figures["settings"]["checkpoint"], figures["settings"]
    rows = {name: figures["summary"], **{ROWS[row]: figures["baselines"][row] for row in ROWS}}
    parts = [f"`durian evaluate --benchmark reenactment --checkpoint {name} --cases {settings['cases']}` "
             f"(steps: {settings['steps']}, guidance: {settings['guidance_scale']:g}; {settings['cases']} unseen "
             f"people in the motion of other unseen people, {settings['frames']} frames each, and "
             f"{settings['long_cases']} videos of {settings['long_frames']} frames; ± is half of a 95 % interval):"]
    for columns, explanation in TABLES:
        parts += [table(columns, rows), explanation]
    parts.append(targets(figures["summary"]))
    if "robustness" in figures:
        parts += ["Parts of the driver's regions, regions in the wrong place or hidden, and guidance (`--robustness`, "
                  "the same people). A hidden region shows stripes; its keypoints still move irises and lips:",
                  table(ROBUSTNESS, figures["robustness"])]
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, 120, break_on_hyphens=False)
                       for part in parts)


def table(columns: Sequence[tuple[str, str, int]], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a row per summary. Columns are headings, keys and digits."""
    lines = [f"| | {' | '.join(heading for heading, *_ in columns)} |", "|" + "---|" * (len(columns) + 1)]
    lines += [f"| {row} | {' | '.join(mean_text(summary, key, digits) for _, key, digits in columns)} |"
              for row, summary in rows.items()]
    return "\n".join(lines)


def targets(summary: Mapping[str, Any]) -> str:
    """Say which targets are met, missed, or undecided: within the interval, and the mean is on their good side."""
    met, missed, undecided = [], [], []
    for key, (name, target, more) in TARGETS.items():
        good = summary[key] >= target if more else summary[key] <= target
        low, high = summary[f"{key}_ci95"]
        sure = low is not None and (low >= target if more else high <= target)
        (met if good and sure else undecided if good else missed).append(f"{name} ({target:g})")
    return (f"Of the project's targets these are met: {', '.join(met) or 'none'}. These are met in the mean, but the "
            f"interval contains the target: {', '.join(undecided) or 'none'}. These are missed: "
            f"{', '.join(missed) or 'none'}.")


if __name__ == "__main__":
    main()
