"""`durian attribute`: save, show and list; one line for a mistake."""

import json

import numpy as np
import pytest

from durian_jax.prepare.attribute_file import read_attribute, write_attribute
from durian_jax.synthetic import render, sample_person, still
from durian_jax.video import read_image, write_image
from tests.commands.runner import durian
from tests.helpers.attributes import attribute


def test_a_photos_attribute_is_saved_shown_and_checked(annotator, tmp_path):
    photo, file, drawing = tmp_path / "friend.png", tmp_path / "shelf" / "curls.attr", tmp_path / "curls.png"
    write_image(photo, render(sample_person("validation", 4).without("hat"), still(), 384).frames[0])
    saved = durian("attribute", "save", photo, "--kind", "hair", "-o", file, "--masker", "heuristic")
    assert saved.exit_code == 0 and saved.stdout.startswith(f"{file}: hair, "), saved.stderr
    assert "friend.png, 384 x 384 px\n  face      largest, " in saved.stdout and "  masker    heuristic" in saved.stdout
    shown = durian("attribute", "show", file, "-o", drawing)
    assert (shown.exit_code, shown.stdout) == (0, saved.stdout) and read_image(drawing).shape == (512, 1024, 3)
    checked = durian("check", "-a", f"hair={file}", "--json", tmp_path / "report.json")
    assert checked.exit_code == 0 and "attribute file to take hair from, 384 x 384" in checked.stdout
    (entry,) = json.loads((tmp_path / "report.json").read_text())["files"]
    assert entry["kind"] == "attribute file" and entry["measures"]["evidence"] == read_attribute(file).origin.evidence
    wrong = durian("check", "-a", f"glasses={file}")
    assert wrong.exit_code == 1 and "error no-attribute: expected glasses, found an attribute file" in wrong.stdout


def test_a_list_goes_on_after_a_damaged_file(tmp_path):
    for kind in ("hat", "hair"):
        write_attribute(tmp_path / f"{kind}.attr", attribute(kind))
    assert durian("attribute", "list", tmp_path).exit_code == 0
    (tmp_path / "half.attr").write_bytes((tmp_path / "hat.attr").read_bytes()[:2000])
    result = durian("attribute", "list", tmp_path)
    assert result.exit_code == 1 and [line.split(":")[0] for line in result.stdout.splitlines()] == [
        f"{tmp_path}/hair.attr", f"{tmp_path}/hat.attr"]
    assert result.stderr.startswith(f"durian: error: {tmp_path}/half.attr: expected") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (("save", "{folder}/wall.png", "--kind", "wig", "-o", "{folder}/a.attr"), "unknown attribute kind 'wig'"),
    (("save", "{folder}/wall.png", "--kind", "hair", "-o", "{folder}/a.png"), "expected a name ending in .attr"),
    (("save", "{folder}/none.png", "--kind", "hair", "-o", "{folder}/a.attr"), "none.png: no such file"),
    (("save", "{folder}/hair.attr", "--kind", "hair", "-o", "{folder}/a.attr"), "expected a photo, found an attribute"),
    (("save", "{folder}/wall.png", "--kind", "hair", "-o", "{folder}/a.attr", "--face", "0"), "face: expected largest"),
    (("show", "{folder}/wall.png"), "expected an attribute file, found a damaged or another file"),
    (("show", "{folder}/hair.attr", "-o", "{folder}/a.txt"), "expected a name ending in .png"),
    (("list", "{folder}/none"), "none: cannot be read"),
    (("list", "{folder}/hair.attr"), "hair.attr: cannot be read"),
])
def test_mistakes_are_one_line(tmp_path, arguments, message):
    write_image(tmp_path / "wall.png", np.full((64, 64, 3), 90, np.uint8))
    write_attribute(tmp_path / "hair.attr", attribute())
    result = durian("attribute", *(text.format(folder=tmp_path) for text in arguments))
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hair.attr", "wall.png"]
