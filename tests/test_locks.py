"""A folder has one writer at a time, which is named; a dead one loses its lock."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from durian_jax.errors import InputError
from durian_jax.locks import NAME, FolderLock

HERE = f"process {os.getpid()} on {socket.gethostname()}"


def lock(folder, **seconds):
    """Return a lock whose times are short."""
    return FolderLock(folder, "durian train", "wait for it", **{"beat": 0.05, "silence": 0.5, "settle": 0, **seconds})


HOLDER = """
import sys, time
from pathlib import Path
from durian_jax.locks import FolderLock
with FolderLock(Path(sys.argv[1]), "durian train", "wait", beat=0.05):
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.communicate()


def elsewhere(folder):
    """Make the lock that of a process on another machine."""
    held = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps({**held, "host": "far", "process": 7, "machine": "another"}))


def test_the_second_process_is_refused_with_host_and_process(tmp_path, holder):
    words = f"process {holder.pid} on {socket.gethostname()} uses this folder \\(durian train\\); wait for it"
    with pytest.raises(InputError, match=words), lock(tmp_path):
        pass
    assert json.loads((tmp_path / NAME).read_text())["process"] == holder.pid


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, holder, capsys):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock(tmp_path, silence=600):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
        with pytest.raises(InputError, match=HERE), lock(tmp_path):
            pass
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().err, "on the same machine there is no need to wait"


def test_another_process_with_the_same_number_is_no_holder(tmp_path):
    """After a restart of the machine, or of a container, numbers are used again."""
    with lock(tmp_path):
        held = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**held, "started": "1"}))
    with lock(tmp_path, silence=600):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "a"}', None])
def test_a_lock_that_tells_nothing_counts_as_dead_when_it_does_not_change(content, tmp_path, capsys):
    with lock(tmp_path):
        text = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(text if content is None else content)
    if content is None:
        elsewhere(tmp_path)
    with lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    name = "process 7 on far" if content is None else "another process"
    assert f"was used by {name}; waiting up to 0.5 s to see whether it still runs" in capsys.readouterr().err


def test_a_holder_on_another_machine_is_seen_by_its_changes(tmp_path):
    with lock(tmp_path):
        text = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(text)
    elsewhere(tmp_path)
    over = threading.Event()

    def live():
        beats = 0
        while not over.wait(0.02):
            beats += 1
            held = json.loads((tmp_path / NAME).read_text())
            (tmp_path / NAME).write_text(json.dumps({**held, "beat": f"{beats:012d}"}))
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(InputError, match="process 7 on far uses this folder"), lock(tmp_path, silence=60):
            pass
    finally:
        over.set()
        thread.join()


def test_a_holder_that_lost_its_lock_stops(tmp_path, holder):
    """It had been suspended, and another machine took the folder over."""
    elsewhere(tmp_path)
    held = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**held, "token": "another"}))
    _, errors = holder.communicate(timeout=60)
    assert holder.returncode == 1
    assert f"durian: error: {tmp_path}: process 7 on far has taken this folder over" in errors
    assert json.loads((tmp_path / NAME).read_text())["token"] == "another"


def test_beats_change_the_file_and_nothing_else(tmp_path):
    with lock(tmp_path):
        first = (tmp_path / NAME).read_text()
        deadline = time.monotonic() + 60
        while (tmp_path / NAME).read_text() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        last = (tmp_path / NAME).read_text()
    assert last != first and len(last) == len(first)
    assert {**json.loads(last), "beat": ""} == {**json.loads(first), "beat": ""}
    assert not list(tmp_path.iterdir())
