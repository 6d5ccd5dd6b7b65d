"""Writing files: complete or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.files import (
    atomic_file,
    check_folder,
    is_disk_full,
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
