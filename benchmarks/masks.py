"""Masks of hair, glasses, beard and hat beside masks that people drew, for each masker.

    python -m benchmarks.masks FOLDER --masker heuristic --masker 'default=segmentation:runs/masks/{fold}' \\
        --markdown docs/masks.md --json docs/masks.json --sheet sheet.png

FOLDER holds the photos and clips that tests/data/true_masks.json names. A masker sees a photo, or about 12 frames of
a clip, as in `durian prepare`. Its mask of the drawn picture is compared with the drawing in the crop of 256 px,
without the pixels that the drawing leaves open.

--masker is NAME or LABEL=NAME, with a name as for `durian prepare`. If the name contains {fold}, four maskers are
loaded, one per fold of people (`fold_of`). Each is tested only on the fold that it was not trained on
(`benchmarks.train_masks`). The networks that ship with the package were trained on all of these people, so --masker
default flatters them.
"""

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.sections import write_section
from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.regions import brow_height, face_frame, fill_polygon, oval
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import write_text
from durian_jax.prepare.annotate import annotate_image, annotate_video
from durian_jax.prepare.maskers import make_masker
from durian_jax.video import probe_video, read_image

TRUTH = Path(__file__).parents[1] / "tests" / "data" / "true_masks.json"
HEADING = "Measured"
SIZE = 256
FOLDS = 4
# A kind is missed if less than this share of its true pixels is found.
FOUND = 0.1
# A forehead is taken for hair from this share of the face on.
FOREHEAD = 0.02


class Case:
    """One picture, its clip and its true masks in the crop."""

    def __init__(self, row: dict[str, Any], clip: Clip, number: int, height: int, width: int, annotator: Annotator):
        self.row, self.fold, self.tags = row, fold_of(row["person"]), row["tags"]
        self.clip = clip
        self.frame, self.keypoints, self.masks = clip.frames[number], clip.keypoints[number], clip.masks[number]
        self.person = annotator.person(self.frame)
        x, y, side = clip.box[number]

        def filled(name: str) -> np.ndarray:
            mask = np.zeros((SIZE, SIZE), bool)
            for polygon in row["polygons"].get(name, ()):
                points = np.array(polygon) * [width, height] - [x - side / 2, y - side / 2]
                mask |= fill_polygon(points * SIZE / side, SIZE, SIZE)
            return mask
        self.true = {kind: filled(kind) for kind in ATTRIBUTE_KINDS}
        self.true["hair"] &= ~filled("hair_holes")
        self.open = {kind: filled("ignore") for kind in ATTRIBUTE_KINDS}
        for kind in ("beard", "glasses"):
            self.open[kind] |= filled(f"ignore_{kind}")

    def score(self, kind: str) -> dict[str, float | bool | None]:
        """IoU (None without the kind), and whether it is missed or falsely claimed."""
        seen = ~self.open[kind]
        found = ((self.masks >> ATTRIBUTE_KINDS.index(kind)) & 1 > 0) & seen
        true = self.true[kind] & seen
        if not true.any():
            unclear = kind == "beard" and self.tags["beard"] == "stubble"
            return {"iou": None, "missed": False, "false": bool(found.any()) and not unclear}
        return {"iou": float((found & true).sum() / (found | true).sum()), "missed":
                bool((found & true).sum() < FOUND * true.sum()), "false": False}

    def forehead(self) -> float:
        """Share of the face's oval that is skin of the forehead and is taken for hair."""
        face = face_frame(self.keypoints, SIZE, SIZE)
        inside = oval(face)
        skin = inside & (face.v > brow_height(face)) & ~self.true["hair"] & ~self.open["hair"] & ~self.true["hat"]
        return float((skin & (self.masks & 1 > 0)).sum() / inside.sum())

    def groups(self) -> Iterator[str]:
        """The groups of people that this one belongs to."""
        tags = self.tags
        yield "all"
        yield f"{tags['skin']} skin"
        if tags["hair"] != "none":
            yield f"{tags['hair']} hair"
        yield f"{tags['length']} hair"
        if tags.get("curly"):
            yield "curly hair"
        yield "photo" if "photo" in tags["look"] else "drawn"


@lru_cache
def _folds() -> dict[str, int]:
    people = {row["person"] for row in json.loads(TRUTH.read_text())}
    return {person: place % FOLDS for place, person in enumerate(sorted(people, key=lambda name: crc32(name.encode())))}


def fold_of(person: str) -> int:
    """Return the quarter of the people that a person belongs to."""
    return _folds()[person]


def read_cases(folder: Path, masker: str, annotator: Annotator, progress: Callable = tqdm) -> Iterator[Case]:
    """Annotate every picture of the drawn masks by a masker."""
    maskers = [make_masker(masker.replace("{fold}", str(fold))) for fold in range(FOLDS if "{fold}" in masker else 1)]
    for row in progress(json.loads(TRUTH.read_text()), unit="picture", desc=masker):
        path, find = folder / row["file"], maskers[fold_of(row["person"]) % len(maskers)]
        if "fps" not in row:
            face = row.get("face", "largest")
            clip, number = annotate_image(path, SIZE, annotator=annotator, masker=find, face=face), 0
            height, width = read_image(path).shape[:2]
        else:
            clip, missing = annotate_video(path, SIZE, annotator=annotator, fps=row["fps"], masker=find)
            if any(first <= row["picture"] < last for first, last in missing):
                raise InputError(f"{path}: no face found in frame {row['picture']}, which is drawn")
            number = row["picture"] - sum(min(last, row["picture"]) - first for first, last in missing
                                          if first < row["picture"])
            info = probe_video(path)
            height, width = info.height, info.width
        yield Case(row, clip, number, height, width, annotator)


def rows_of(cases: list[Case], masker: str) -> list[dict[str, Any]]:
    """Return a masker's scores per kind and group."""
    rows = []
    for kind in ATTRIBUTE_KINDS:
        by_group: dict[str, list[dict]] = {}
        for case in cases:
            score = case.score(kind)
            for group in case.groups():
                by_group.setdefault(group, []).append(score)
        for group, scores in by_group.items():
            ious = [score["iou"] for score in scores if score["iou"] is not None]
            rows.append({"masker": masker, "kind": kind, "group": group, "cases": len(ious),
                         "iou": round(float(np.mean(ious)), 4) if ious else None,
                         "missed": sum(score["missed"] for score in scores),
                         "false_claims": sum(score["false"] for score in scores)})
    return rows


def sheet(cases: list[Case]) -> np.ndarray:
    """Pictures with the found masks (colours) and the outline of the true ones (white), worst hair first."""
    colours = {"hair": (160, 60, 220), "glasses": (0, 200, 220), "beard": (60, 190, 60), "hat": (220, 50, 50)}
    tiles = []
    for case in sorted(cases, key=lambda case: _or(case.score("hair")["iou"], 1.0)):
        tile = case.frame.copy()
        for index, kind in enumerate(ATTRIBUTE_KINDS):
            found = (case.masks >> index) & 1 > 0
            tile[found] = (0.5 * tile[found] + 0.5 * np.array(colours[kind])).astype(np.uint8)
            outlines, _ = cv2.findContours(case.true[kind].astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, outlines, -1, (255, 255, 255), 1)
        iou = case.score("hair")["iou"]
        words = f"{Path(case.row['file']).name} {_two_digits(iou)} {100 * case.forehead():.1f}%"
        cv2.putText(tile, words, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
    return np.vstack([np.hstack(tiles[i:i + 8]) for i in range(0, len(tiles), 8)])


def table(rows: list[dict[str, Any]], foreheads: dict[str, int]) -> list[str]:
    """Return the tables as Markdown lines."""
    maskers = list(dict.fromkeys(row["masker"] for row in rows))
    heads, lines = " | ".join(f"{name}: IoU, missed, false" for name in maskers), []
    for kind in ATTRIBUTE_KINDS:
        lines += [f"**{kind}**", "", f"| group | pictures | {heads} |", "|---|---|" + "---|" * len(maskers)]
        for group in dict.fromkeys(row["group"] for row in rows
                                   if row["kind"] == kind and (row["cases"] or row["false_claims"])):
            mine = {row["masker"]: row for row in rows if (row["kind"], row["group"]) == (kind, group)}
            cells = [f"{_two_digits(row['iou'])}, {row['missed']}, {row['false_claims']}" for row in mine.values()]
            lines.append(f"| {group} | {next(iter(mine.values()))['cases']} | " + " | ".join(cells) + " |")
        lines.append("")
    return [*lines, f"Foreheads taken for hair (more than {FOREHEAD:.0%} of the face): "
            + ", ".join(f"{name} {count}" for name, count in foreheads.items()) + "."]


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--masker", action="append", help="[LABEL=]NAME; repeat it to compare")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    parser.add_argument("--json", type=Path, help="write the rows into this file")
    parser.add_argument("--sheet", type=Path, help="write the pictures of the last masker, worst first")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    annotator, rows, foreheads, cases = Annotator(), [], {}, []
    for given in options.masker or ["default"]:
        name, _, masker = given.rpartition("=")
        cases, name = list(read_cases(options.folder, masker, annotator)), name or masker
        rows += rows_of(cases, name)
        foreheads[name] = sum(case.forehead() > FOREHEAD for case in cases)
    lines, people = table(rows, foreheads), len({case.row["person"] for case in cases})
    print("\n".join(lines))
    if options.json:
        write_text(options.json, json.dumps({"rows": rows, "foreheads": foreheads, "date": str(date.today())}, indent=1)
                   + "\n")
    if options.markdown:
        words = shlex.join("FOLDER" if word == str(options.folder) else word for word in sys.argv[1:])
        about = f"`python -m benchmarks.masks {words}`, {date.today()}, {len(cases)} pictures of {people} people."
        write_section(options.markdown, HEADING, [about, "", *lines])
    if options.sheet:
        cv2.imwrite(str(options.sheet), sheet(cases)[..., ::-1])


if __name__ == "__main__":
    main()
