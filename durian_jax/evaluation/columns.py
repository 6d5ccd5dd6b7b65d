"""Columns of evaluations and names of suites: headings, digits, which values are better, what they mean.

Imports no JAX: the comparison of two evaluations needs none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durian_jax.errors import InputError
from durian_jax.evaluation.metrics import mean_text


@dataclass(frozen=True)
class Column:
    """A column of a table of scores.

    Attributes:
        key: of the score.
        heading: at most 14 characters.
        words: what it means, with its unit.
        digits: shown decimals.
        better: 1: larger values are better; -1: smaller ones; 0: neither, a baseline, or a fact about the case.
    """

    key: str
    heading: str
    words: str
    digits: int = 2
    better: int = 0


# The main table, in the three parts that fit a terminal.
TABLES: tuple[tuple[Column, ...], ...] = (
    (Column("psnr", "PSNR dB", "PSNR of the whole frame in dB", better=1),
     Column("unchanged_psnr", "unchanged", "PSNR of the portrait photo, unchanged"),
     Column("paste_psnr", "pasted", "PSNR of the photo with the attribute pasted by keypoints"),
     Column("paste_moving_psnr", "moving paste", "PSNR of photo and attribute, both warped to every frame"),
     Column("l1", "L1", "mean absolute error, 0 to 1", 3, -1),
     Column("ssim", "SSIM", "structural similarity of the whole frame", 3, 1),
     Column("sharpness", "sharpness", "mean gradient of the result over the truth's; 1 is as sharp", 3),
     Column("edge_gradient", "edge gradient", "gradient at the truth's edges over the truth's; 1 is as steep", 3, 1)),
    (Column("psnr_region", "region dB", "PSNR where the truth shows the attribute, in dB", better=1),
     Column("unchanged_psnr_region", "unchanged", "PSNR of the unchanged photo in the region"),
     Column("paste_psnr_region", "pasted", "PSNR of the pasted attribute in the region"),
     Column("paste_moving_psnr_region", "moving paste", "PSNR of the moving paste in the region"),
     Column("ssim_region", "region SSIM", "structural similarity in the region", 3, 1),
     Column("psnr_removed", "removed dB", "PSNR where the old attribute was and the new one is not, in dB", better=1)),
    (Column("still", "still", "change per frame where the truth stands still, in grey levels", better=-1),
     Column("still_far", "still, far", "the same, more than 6 px (at 128 px) away from motion", better=-1),
     Column("tde", "tde", "difference between the changes of result and truth, in grey levels", better=-1)))


@dataclass(frozen=True)
class SuiteTable:
    """What a suite asks, and its own columns.

    Attributes:
        about: the question, part of a sentence.
        tables: tables of own columns, beside those of `TABLES`.
    """

    about: str
    tables: tuple[tuple[Column, ...], ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All own columns."""
        return tuple(column for table in self.tables for column in table)


_DROP = "PSNR in the region that is lost against the row {}, in dB, over the same cases"


def _composed(words: str, count: int) -> SuiteTable:
    """The table of compositions of `count` attributes."""
    numbers = range(1, count + 1)
    drops = [Column(f"drop_{n}", f"{n}: drop", f"the same of attribute {n}", better=-1) for n in numbers]
    values = [column for n in numbers for column in (
        Column(f"together_{n}", f"{n}: together", f"PSNR of attribute {n} in the composition, in dB, where both truths "
               "show it", better=1),
        Column(f"alone_{n}", f"{n}: alone", "the same in its single transfer", better=1))]
    return SuiteTable(words, (
        (Column("drop", "drop", "PSNR that the regions lose against the single transfers, in dB, mean over the "
                "attributes", better=-1), *drops), tuple(values)))


# Name of each suite -> its table. A suite keeps its place here, which says who its people are: append new ones.
SUITES: dict[str, SuiteTable] = {
    "extent": SuiteTable("the new attribute is much larger or much smaller than the portrait's own", ((
        Column("extent", "size ratio", "area of the box around the new attribute over that around the old one"),),)),
    "pose": SuiteTable("portrait, attribute photo and driver have different head poses; rows are bins of the largest "
                       "difference", ((
        Column("pose", "pose degrees", "largest distance of yaw, pitch and roll between two of the three, in degrees"),
    ),)),
    "light": SuiteTable("the attribute photo is lit or coloured differently; the truth is not", ((
        Column("drop", "drop", _DROP.format("as it is"), better=-1),
        Column("psnr_region_lit", "as lit dB", "PSNR in the region, if the truth had the photo's light, in dB")),)),
    "masks": SuiteTable("masks of the attribute or of the portrait's own attribute lose or gain 15 % of their area", ((
        Column("drop", "drop", _DROP.format("exact"), better=-1),),)),
    "pairs": _composed("two attributes of two people at once", 2),
    "triples": _composed("three attributes of three people at once", 3),
    "long": SuiteTable("a video of 8 times as many frames, in the windows or segments of the animator", ((
        Column("seam", "seam", "change per frame beyond the truth's, where windows join minus elsewhere, in grey "
               "levels", 3, -1),
        Column("drift", "drift dB", "PSNR of the last window minus that of the first, in dB", better=1)),)),
    "removal": SuiteTable("the portrait's own attribute is taken away; the region is where it was", ((
        Column("left", "left over", "share of the region's pixels nearer to the old attribute than to the truth", 3,
               -1),),)),
}


# The benchmark of reenactments, `evaluation.reenactment`.
REENACTMENT: tuple[Column, ...] = (
    Column("psnr", "PSNR dB", "PSNR of the whole frame in dB", better=1),
    Column("psnr_eyes", "eyes", "PSNR of the eyes in dB", better=1),
    Column("psnr_mouth", "mouth", "PSNR of the mouth in dB", better=1),
    Column("gaze_x", "gaze x", "error of the gaze to the side, of 2 from side to side", 3, -1),
    Column("gaze_y", "gaze y", "error of the gaze upwards, of 2 from bottom to top", 3, -1),
    Column("blink", "blink", "error of the closing of the eyes, 0 to 1", 3, -1),
    Column("mouth", "mouth", "error of the opening of the mouth, 0 to 1", 3, -1),
    Column("leak_colour", "colour %", "how far the result has gone to the driver's colours", 1, -1),
    Column("leak_shape", "shape %", "how far the result has gone to the driver's shapes", 1, -1),
    Column("leak_glasses", "glasses %", "how far the result has gone to the driver's glasses", 1, -1),
    Column("seam", "seam", "change at joins of segments over the change elsewhere; 1 is seamless"),
    Column("drift_brightness", "drift %", "largest change of brightness over a long video", 2, -1),
    Column("drift_psnr", "drift dB", "PSNR of the end of a long video minus that of its beginning", better=1),
    Column("flicker", "flicker", "change per frame where the truth stands still, in grey levels", better=-1))


def tables_of(section: str) -> tuple[tuple[Column, ...], ...]:
    """Return the tables of a benchmark or suite."""
    if section == "reenactment":
        return (REENACTMENT[:7], REENACTMENT[7:])
    return (*TABLES, *SUITES[section].tables) if section in SUITES else TABLES


def suite_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return the suites that a user names, in the order of `SUITES`.

    Args:
        text: names, or one text of names separated by commas; "all" names all.

    Raises:
        InputError: an unknown name, or none.
    """
    names = [name.strip() for name in text.split(",")] if isinstance(text, str) else [*text]
    unknown = [name for name in names if name not in SUITES and name != "all"]
    if unknown or not names:
        raise InputError(f"--suite {', '.join(unknown) or '(nothing)'}: expected all, or some of "
                         f"{', '.join(SUITES)}, separated by commas")
    return tuple(name for name in SUITES if name in names or "all" in names)


def shown_rows(summary: Mapping[str, Any]) -> list[str]:
    """Return the rows of a summary that a table shows: without "mean" if it repeats the only other row."""
    return [row for row in summary if row != "mean" or len(summary) != 2]


def text_table(summary: Mapping[str, Mapping], tables: Sequence[Sequence[Column]] = TABLES) -> str:
    """Format a summary as text tables; each mean is shown with half of its 95 % interval."""
    rows = shown_rows(summary)
    width = max(8, *(len(row) + 1 for row in rows))
    lines = []
    for columns in tables:
        lines += ["", f"{'':{width}}{'cases':>6}" + "".join(f"{column.heading:>15}" for column in columns)]
        for name, row in ((name, summary[name]) for name in rows):
            cells = [mean_text(row, column.key, column.digits) for column in columns]
            lines.append(f"{name:{width}}{row['cases']:6}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines[1:])
