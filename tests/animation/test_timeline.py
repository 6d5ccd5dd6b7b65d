"""Timelines: weights over time, and files that are refused."""

import json

import numpy as np
import pytest

from durian_jax.animation.timeline import describe, read_timeline
from durian_jax.errors import InputError
from durian_jax.video import write_image
from tests.commands.runner import durian

GOOD = {"attribute": "hair", "photos": ["a.png", "b.png", "c.png"],
        "keys": [{"seconds": 1, "weights": [1, 0, 0]}, {"seconds": 2, "weights": [0, 1, 0]},
                 {"seconds": 4, "weights": [0, 0.5, 0.5]}]}


@pytest.fixture
def write(tmp_path):
    """Write a timeline, with changes, into a file."""
    def make(**changes):
        (tmp_path / "t.json").write_text(json.dumps({**GOOD, **changes}))
        return tmp_path / "t.json"
    return make


def test_weights_change_linearly_between_keys_and_stay_outside(write, tmp_path):
    found = read_timeline(write())
    assert found.attribute == "hair" and found.photos == tuple(str(tmp_path / name) for name in GOOD["photos"])
    weights = found.at(np.array([0, 1, 1.25, 2, 3, 4, 9]))
    np.testing.assert_allclose(weights, [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0.75, 0.25],
                                         [0, 0.5, 0.5], [0, 0.5, 0.5]])
    np.testing.assert_allclose(weights.sum(1), 1)
    lines = describe(found, 1).splitlines()
    assert lines[0] == "hair: 1 a.png, 2 b.png, 3 c.png" and len(lines) == 2 + 5
    assert lines[4].split() == ["2.00", "0.00", "1.00", "0.00"]
    assert len(describe(found, 1e-9).splitlines()) == 1002


@pytest.mark.parametrize(("changes", "message"), [
    ({"attribute": "wig"}, "attribute: expected a text that is one of hair, glasses, beard, hat, found 'wig'"),
    ({"photos": ["a.png"]}, "photos: expected .*2 to 16"), ({"photos": "ab"}, "photos: expected"),
    ({"keys": []}, "keys: expected at least one, found none"), ({"keys": 3}, "keys: expected"),
    ({"keys": [{"seconds": 0, "weights": [1, 0]}]}, r"keys\[0\].weights: expected one for each of 3 photos, found 2"),
    ({"keys": [{"seconds": 0, "weights": [1, 1, 0]}]}, r"keys\[0\].weights: expected numbers that sum to 1, found 2"),
    ({"keys": [{"seconds": 0, "weights": [1.5, -0.5, 0]}]}, r"keys\[0\].weights"),
    ({"keys": [{"seconds": -1, "weights": [1, 0, 0]}]}, r"keys\[0\].seconds: expected .* found -1"),
    ({"keys": [{"second": 0, "weights": [1, 0, 0]}]}, "unknown fields 'second'; did you mean seconds?"),
    ({"keys": [GOOD["keys"][0]] * 2}, "keys: expected rising times, found 1, 1"),
    ({"photo": "a.png"}, "unknown fields 'photo'; did you mean photos?"),
])
def test_mistakes_are_named(write, changes, message):
    with pytest.raises(InputError, match=f"t.json: .*{message}.* docs/animate.md shows a timeline"):
        read_timeline(write(**changes))


def test_the_command_prints_the_weights_and_checks_the_photos(write, tmp_path):
    file = write()
    for name in GOOD["photos"][:2]:
        write_image(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    missing = durian("timeline", "check", str(file))
    assert missing.exit_code == 2 and "c.png" in missing.output
    write_image(tmp_path / "c.png", np.zeros((8, 8, 3), np.uint8))
    done = durian("timeline", "check", str(file), "--every", "1")
    assert done.exit_code == 0 and "   2.00   0.00   1.00   0.00" in done.output
    (tmp_path / "x.json").write_text("{")
    assert "write it as docs/animate.md shows" in durian("timeline", "check", str(tmp_path / "x.json")).output
