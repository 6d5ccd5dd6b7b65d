"""Writing files: complete or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.files import (
    atomic_file,
    check_folder,
    check_name,
    is_disk_full,
    read_json,
    staged,
    together,
    writable_file,
    writable_folder,
    write_json,
    write_text,
)


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


def names(folder: Path) -> list[str]:
    """Return the relative names of all files and folders, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_checks_create_nothing(tmp_path):
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert writable_file(tmp_path / "a" / "x.json", (".json",)) == tmp_path / "a" / "x.json"
    (tmp_path / "file").touch()
    for check in (check_folder, writable_folder, lambda path: writable_file(path / "x.json")):
        with pytest.raises(InputError, match="cannot write into the folder .*: Not a directory; choose another output"):
            check(tmp_path / "file" / "b")
    with pytest.raises(InputError, match="gs://bucket/run: expected a folder on this machine, found an address; mount"):
        check_folder("gs://bucket/run")
    assert names(tmp_path) == ["file"]


def test_an_error_leaves_earlier_files_and_no_new_folder(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    for path in (tmp_path / "a.txt", tmp_path / "new" / "er" / "b.txt"):
        with pytest.raises(RuntimeError), atomic_file(path) as temporary:
            Path(temporary).write_text("half")
            raise RuntimeError
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_files_of_a_command_appear_together(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), staged(tmp_path) as made:
        write_text(made / "a.txt", "new")
        raise RuntimeError
    with pytest.raises(RuntimeError), together() as place_of:
        write_text(place_of(tmp_path / "a.txt"), "new")
        write_text(place_of(tmp_path / "other" / "b.txt"), "new")
        raise RuntimeError
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"
    with together() as place_of:
        write_text(place_of(tmp_path / "a.txt"), "new")
        write_text(place_of(tmp_path / "other" / "b.txt"), "new")
        assert (tmp_path / "a.txt").read_text() == "old" and not list((tmp_path / "other").glob("*.txt"))
    assert names(tmp_path) == ["a.txt", "other", "other/b.txt"] and (tmp_path / "a.txt").read_text() == "new"
    with staged(tmp_path / "c") as made:
        write_text(made / "d" / "e.txt", "deep")
    assert (tmp_path / "c" / "d" / "e.txt").read_text() == "deep" and names(tmp_path / "c") == ["d", "d/e.txt"]


FULL = """
import os, resource, sys
from pathlib import Path
from durian_jax.errors import DiskFull
from durian_jax.files import staged, write_text
from durian_jax.data.shards import shard_writer
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
folder = Path(sys.argv[1])

def text():
    write_text(folder / "a.txt", "x" * 200_000)

def files():
    with staged(folder) as made:
        write_text(made / "a.txt", "new")
        write_text(made / "b.txt", "x" * 200_000)

def records():
    with shard_writer(folder / "c.shard") as write:
        for _ in range(20):
            write(os.urandom(20_000))

for work in (text, files, records):
    try:
        work()
    except DiskFull as error:
        print(error)
print(sorted(path.name for path in folder.iterdir()), (folder / "a.txt").read_text())
"""


def test_a_full_disk_is_named_whatever_library_writes(tmp_path):
    """A limit on the size of files stands for the full disk. Python's own files, several at once, and ArrayRecord."""
    (tmp_path / "a.txt").write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True, capture_output=True, text=True)
    *messages, last = done.stdout.splitlines()
    for message, what in zip(messages, (tmp_path / "a.txt", tmp_path / "b.txt", tmp_path), strict=True):
        assert message == (f"{what} could not be written: the disk is full, or a quota is used up. What was there "
                           "before is unchanged; free some space and repeat the command")
    assert last == "['a.txt'] old"


def test_causes_tell_that_the_disk_is_full():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = ValueError("cannot save")
    wrapped.__cause__ = full
    assert is_disk_full(full) and is_disk_full(wrapped)
    assert is_disk_full(RuntimeError("write() failed: No space left on device; writing x"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied")) and not is_disk_full(ValueError("full"))
