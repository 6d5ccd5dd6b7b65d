"""Measure the margins of the region to fill (M_port) per kind, on people of the validation split.

    python -m benchmarks.margins --checkpoint tiny --markdown docs/masks.md

Each margin is tried on transfers to people who wear the kind and to people who do not. A wider region helps where the
attribute ends, and costs pixels of the portrait. The best margin has the largest sum of the PSNR in the attribute's
region and twice the PSNR of the whole frame: lost pixels of a face are worse than a wrong outline of hair.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.sections import write_section
from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.evaluation.transfer import TransferCase, run, transfer_case
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.inference import references

HEADING = "Margins"
PIXELS = (1, 2, 3, 4, 6)
_WEIGHTS = (1, 2)  # of the region and of the frame
_CHOSEN = ", ".join(f"{kind} {pixels}" for kind, pixels in references.MARGINS.items())
_ABOUT = ("The best sum of the first and twice the second number is bold. Where the rows of a kind differ by little, "
          f"one margin serves both: {_CHOSEN} px. Portraits that receive a hat wear none.")


def worn(case: TransferCase) -> bool:
    """Whether the portrait wears the kind that it receives."""
    return bool(case.portrait.mask(case.attributes[0][0]).any())


def scores(checkpoint: str, count: int, pixels: Sequence[int]) -> dict[tuple[str, bool], np.ndarray]:
    """Return (P, 2) per kind and whether the portrait wears it: the mean PSNR of region and frame at P margins."""
    model, split = load_checkpoint(checkpoint), "validation"
    cases = {kind: [transfer_case(kind, index, size=model.config.image_size, split=split) for index in range(count)]
             for kind in ATTRIBUTE_KINDS}
    makers = {kind: [lambda case=case: case for case in of_kind] for kind, of_kind in cases.items()}
    table: dict[tuple[str, bool], list[list[float]]] = {}
    for margin in pixels:
        with patch.object(references, "MARGINS", dict.fromkeys(ATTRIBUTE_KINDS, margin)):
            found = run(model, makers).scores
        for kind, of_kind in cases.items():
            for wears in (True, False):
                chosen = [score for score, case in zip(found[kind], of_kind, strict=True) if worn(case) == wears]
                if chosen:
                    table.setdefault((kind, wears), []).append(
                        [float(np.mean([score[name] for score in chosen])) for name in ("psnr_region", "psnr")])
    return {key: np.array(rows) for key, rows in table.items()}


def table(found: dict[tuple[str, bool], np.ndarray], pixels: Sequence[int]) -> list[str]:
    """Return the scores as a Markdown table; the best margin of a row is bold."""
    lines = ["| kind | portrait | " + " | ".join(f"{margin} px" for margin in pixels) + " |",
             "|---|---|" + "---|" * len(pixels)]
    for (kind, wears), rows in found.items():
        best = (rows @ _WEIGHTS).argmax()
        cells = [f"{region:.2f} / {frame:.2f}" for region, frame in rows]
        cells[best] = f"**{cells[best]}**"
        lines.append(f"| {kind} | {'wears it' if wears else 'does not'} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--cases", type=int, default=48, help="per kind")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    options = parser.parse_args()
    lines = table(scores(options.checkpoint, options.cases, PIXELS), PIXELS)
    print("\n".join(lines))
    if options.markdown:
        about = f"`python -m benchmarks.margins {' '.join(sys.argv[1:])}`, {date.today()}: PSNR in dB of the "
        write_section(options.markdown, HEADING, [about + "attribute region / the whole frame, per margin in pixels at "
                                                "128 px.", "", _ABOUT, "", *lines])


if __name__ == "__main__":
    main()
