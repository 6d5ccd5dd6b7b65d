"""The drawn masks are well formed, and the benchmark of maskers measures what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import masks as benchmark
from benchmarks.masks import FOLDS, SIZE, Case, fold_of, rows_of, table
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import brow_height, face_frame, oval
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic import render, sample_motion, sample_person

ROWS = json.loads(benchmark.TRUTH.read_text())


def test_every_row_is_complete():
    assert len(ROWS) >= 32 and len({(row["file"], row.get("picture"), row.get("face")) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert {"file", "person", "tags", "polygons"} <= set(row)
        assert set(row["polygons"]) <= {*ATTRIBUTE_KINDS, "hair_holes", "ignore", "ignore_beard",
                                        "ignore_glasses"}, row["file"]
        assert ("fps" in row) == ("picture" in row)
        for polygons in row["polygons"].values():
            assert polygons and all(len(polygon) > 2 for polygon in polygons)
            assert all(-0.6 < x < 1.6 and -0.6 < y < 1.6 for polygon in polygons for x, y in polygon)


def test_all_kinds_of_people_are_drawn():
    tags = [row["tags"] for row in ROWS]
    seen = {key: {str(tag[key]) for tag in tags} for key in ("skin", "hair", "length", "glasses", "hat", "beard")}
    assert seen["skin"] == {"light", "medium", "dark"} and {"light", "dark", "red", "grey"} <= seen["hair"]
    assert {"short", "long", "tied", "covered"} <= seen["length"] and {"none", "rims"} <= seen["glasses"]
    assert len(seen["hat"]) >= 4 and {"none", "stubble", "moustache"} <= seen["beard"]


def test_pictures_of_one_person_are_in_one_fold():
    folds = {row["person"]: fold_of(row["person"]) for row in ROWS}
    counts = np.bincount(list(folds.values()), minlength=FOLDS)
    assert counts.max() - counts.min() <= 1 and len(folds) > 30


class Nobody:
    """An annotator that sees a person everywhere."""

    def person(self, frame):
        return np.full(frame.shape[:2], 255, np.uint8)


@pytest.fixture
def case():
    """A procedural person with hair whose true mask is its outline, in a picture of twice the crop's size."""
    clip = render(sample_person("validation", 2, require=("hair",)).without("hat", "glasses", "beard"),
                  sample_motion("validation", 2, 1), SIZE)
    import cv2

    outlines, _ = cv2.findContours(clip.mask("hair")[0].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # The crop covers the middle half of the picture.
    polygons = [((outline[:, 0] + SIZE / 2) / (2 * SIZE)).tolist() for outline in outlines if len(outline) > 2]
    row = {"file": "a.png", "person": ROWS[0]["person"], "polygons": {"hair": polygons},
           "tags": {"skin": "light", "hair": "dark", "length": "short", "look": "drawn", "beard": "none"}}
    box = np.array([[SIZE, SIZE, SIZE]], np.float32)
    return Case(row, replace(clip, box=box), 0, 2 * SIZE, 2 * SIZE, Nobody())


def test_the_true_mask_scores_one(case):
    score = case.score("hair")
    assert score["iou"] > 0.95 and not score["missed"] and case.forehead() < 0.01
    assert case.score("hat") == {"iou": None, "missed": False, "false": False}


def test_mistakes_are_counted(case):
    face = face_frame(case.keypoints, SIZE, SIZE)
    forehead = oval(face) & (face.v > brow_height(face))
    case.masks = case.masks | forehead * np.uint8(attribute_bit("hair"))
    assert case.forehead() > benchmark.FOREHEAD
    case.masks = forehead * np.uint8(attribute_bit("hat"))
    assert case.score("hair")["missed"] and case.score("hair")["iou"] == 0 and case.score("hat")["false"]
    rows = rows_of([case], "x")
    one = next(row for row in rows if (row["kind"], row["group"]) == ("hair", "dark hair"))
    assert one == {"masker": "x", "kind": "hair", "group": "dark hair", "cases": 1, "iou": 0.0, "missed": 1,
                   "false_claims": 0}
    assert any(line.startswith("| all | 1 | 0.00, 1, 0 |") for line in table(rows, {"x": 1}))


def test_open_pixels_do_not_count(case):
    case.masks = np.zeros_like(case.masks)
    case.open["hair"] = case.true["hair"]
    assert case.score("hair") == {"iou": None, "missed": False, "false": False}
