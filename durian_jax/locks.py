"""A lock on a folder that one process may write at a time. It names its holder, and a dead holder loses it.

The lock is an ordinary file, because locks of the file system do not work on many shared folders and mounted buckets.
Its holder changes the file every few seconds (a beat). Another process on the same machine asks the system whether the
holder lives. A process on another machine watches the file: if it changes, the holder lives. Clocks are not compared.

Two processes that take over a dead lock at the same moment may both succeed on a file system that shows changes late.
Each of them reads the lock at every beat. The one that no longer finds its own token stops.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from durian_jax.errors import InputError, cut
from durian_jax.files import full_disk_explained, parse_json, remove_temporaries

NAME = "run.lock"

# Seconds between two beats.
_BEAT = 10.0
# After this many seconds without a beat the holder counts as dead. NFS shows changes up to 60 seconds late.
_SILENCE = 90.0
# Seconds to wait after taking a lock over, to see whether another process did so at the same moment.
_SETTLE = 1.0


class FolderLock:
    """Context that holds the lock of a folder.

    Args:
        folder: existing folder; the lock is its file `NAME`.
        user: what holds the lock, for messages, such as "durian train".
        advice: what to do if the lock is taken.
        beat, silence, settle: seconds, see `_BEAT`, `_SILENCE` and `_SETTLE`.

    Raises:
        InputError: a living process holds the lock; names its host and process.
    """

    def __init__(self, folder: Path, user: str, advice: str, *, beat: float = _BEAT, silence: float = _SILENCE,
                 settle: float = _SETTLE):
        self._folder, self._path, self._user, self._advice = folder, folder / NAME, user, advice
        self._beat, self._silence, self._settle = beat, silence, settle
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)

    def __enter__(self) -> "FolderLock":
        self._acquire()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()  # a late beat would write the lock again
        if (_read(self._path) or {}).get("token") == self._token:
            self._path.unlink(missing_ok=True)

    def _text(self, beats: int) -> str:
        """Return the content; all beats have the same length, so that overwriting needs no space on the disk."""
        return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "token": self._token,
                           "machine": _machine(), "started": _started(os.getpid()), "beat": f"{beats:012d}"})

    def _acquire(self) -> None:
        with full_disk_explained(self._path):
            try:
                with self._path.open("x") as file:
                    file.write(self._text(0))
                return
            except FileExistsError:
                pass
        holder = _read(self._path)
        alive = None if holder is None else _is_alive(holder)
        if alive is None:
            alive = self._changes(holder)
        if alive:
            raise self._taken(holder)
        self._path.write_text(self._text(0))
        time.sleep(self._settle)
        holder = _read(self._path)
        if (holder or {}).get("token") != self._token:
            raise self._taken(holder)

    def _taken(self, holder: dict | None) -> InputError:
        return InputError(f"{self._folder}: {_name(holder)} uses this folder ({self._user}); {self._advice}")

    def _changes(self, holder: dict | None) -> bool:
        """Return whether the lock changes within the time in which a living holder changes it."""
        print(f"durian: {self._folder} was used by {_name(holder)}; waiting up to {self._silence:g} s to see whether "
              "it still runs", file=sys.stderr, flush=True)
        before, end = _state(self._path), time.monotonic() + self._silence
        while time.monotonic() < end:
            time.sleep(self._beat / 10)
            now = _state(self._path)
            if now is None:  # the holder has finished
                return False
            if now != before:
                return True
        return False

    def _keep_alive(self) -> None:
        beats = 0
        while not self._over.wait(self._beat):
            beats += 1
            with suppress(OSError):  # a busy disk; the next beat tries again
                found = _read(self._path)
                if found is not None and found["token"] != self._token:
                    self._leave(found)
                    return
                with self._path.open("r+" if found else "w") as file:
                    file.write(self._text(beats))

    def _leave(self, other: dict) -> None:
        if self._over.is_set():
            return
        remove_temporaries()
        print(f"durian: error: {self._folder}: {_name(other)} has taken this folder over, because this process did not "
              "answer for some time; this process stops, so that they do not overwrite each other's files",
              file=sys.stderr, flush=True)
        os._exit(1)


def _read(path: Path) -> dict | None:
    """Return the lock's content; None if it does not exist or is not complete."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if {"host", "process", "token"} <= set(found) else None


def _state(path: Path) -> tuple[bytes, int] | None:
    """Return values that change with every beat; None without a lock."""
    try:
        return path.read_bytes(), path.stat().st_mtime_ns
    except OSError:
        return None


def _name(holder: dict | None) -> str:
    return ("another process" if holder is None else
            f"process {cut(str(holder['process']), 20)} on {cut(str(holder['host']), 80)}")


def _is_alive(holder: dict) -> bool | None:
    """Return whether the holder lives; None if this machine cannot tell."""
    if not holder.get("machine") or holder["machine"] != _machine():
        return None
    return holder.get("started") is not None and _started(holder["process"]) == holder["started"]


def _machine() -> str:
    """Return the machine since its last start, and the container: there, a number is of one process at a time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return socket.gethostname()


def _started(process: int) -> str | None:
    """Return when a process of this machine started, as the system counts; None if it does not live."""
    if not Path("/proc/self/stat").exists():
        found = subprocess.run(["ps", "-p", str(process), "-o", "lstart="], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started
