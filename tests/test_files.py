"""Writing files: complete or not at all."""

import json
import subprocess
import sys

import numpy as np
import pytest

from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.files import check_name, read_json, writable_file, writable_folder, write_json


def test_writing_json_needs_no_video_library():
    code = "import sys, durian_jax.files; assert not {'av', 'cv2', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json_has_no_nan_and_appears_complete(tmp_path):
    path = writable_file(tmp_path / "new" / "x.json", (".json",))
    write_json(path, {"a": float("nan"), "b": np.float32(0.5), "c": (1, np.int64(2)), "d": path})
    assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "c": [1, 2], "d": str(path)}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 3000, "a\0b"])
def test_names_that_no_file_system_has_are_refused_in_a_short_line(tmp_path, name):
    for use in (writable_folder, lambda path: writable_file(path / "a"), read_json, lambda path: write_json(path, {}),
                lambda path: check_name(path) if "\0" not in name else writable_folder(path)):
        with pytest.raises(InputError) as error:
            use(tmp_path / name)
        assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("content", "message"), [
    (b"", "Expecting value"), (b"[1]", r"expected an object of fields, found \[1\]"), (b"\xff", "can't decode byte"),
    (b"[" * 200_000, "nested too deeply"), (b'{"a":' * 200_000, "nested too deeply"),
    (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", "nested more than 50 levels deep"),
    (b'{"a": ' + b"9" * 9999 + b"}", "Exceeds the limit")])
def test_damaged_json_is_refused_in_a_short_line(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"a.json is damaged: .*{message}.*; write it again$") as error:
        read_json(tmp_path / "a.json", "write it again")
    assert len(str(error.value)) < 400


def test_json_is_read_as_it_was_written(tmp_path):
    value = {"a": [1, 2.5, None, {"b": "ü"}], "c": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(InputError, match="a.json: expected at most 0 MB, found 0 MB"):
        read_json(tmp_path / "a.json", most=10)
    with pytest.raises(InputError, match="nothing.json is damaged: No such file"):
        read_json(tmp_path / "nothing.json")


def test_parts_of_messages_are_short_and_printable():
    assert listed(["a", "b"]) == "a, b" and listed("abcdefg", 2) == "a, b, ... (7 in all)"
    assert cut("a\n b\x1b[31m\ud800") == r"a b\x1b[31m\ud800" and len(cut("x" * 999, 50)) <= 50
    assert shown({"a": [[[[1]]]]}) == "{'a': [[...]]}" and len(shown("x" * 999)) <= 80 and shown(None) == "None"
