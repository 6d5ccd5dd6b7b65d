"""A process that prepares videos, so that a crash of a decoder or a model ends it and not the run.

Its parent sees how it ends, and knows the video: a video is at fault only if the process dies by itself, and not if
the run is stopped. The two exchange pickles through a socket that only they have.
"""

import os
import signal
import subprocess
import sys
import threading
import traceback
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import cloudpickle

from durian_jax.errors import DiskFull, InputError, cut
from durian_jax.files import is_disk_full, remove_temporaries
from durian_jax.interruption import ignore_interrupts
from durian_jax.prepare.clips import Identify, Settings, Tools, prepare_video
from durian_jax.prepare.inputs import VideoInput


class WorkerDied(Exception):
    """The process exited while it prepared a video."""


class RunStopped(InputError):
    """An error that no video is to blame for: the run stops, and can be continued."""


class Worker:
    """A process that prepares one video after the other.

    Args:
        settings: how videos become clips.
        identify: see `clips.Identify`.
    """

    def __init__(self, settings: Settings, identify: Identify | None = None):
        self._connection, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            # Standard input tells the process that its parent has exited, however that happened.
            self._process = subprocess.Popen([sys.executable, "-m", __name__, str(theirs.fileno())],
                                             stdin=subprocess.PIPE, pass_fds=(theirs.fileno(),), env=environment)
        self._connection.send_bytes(cloudpickle.dumps((settings, identify)))

    def prepare(self, video: VideoInput, shard: Path) -> dict:
        """Write the clips of a video into a shard of its own, and return the video's entry in the report.

        Raises:
            InputError: the video cannot be used.
            RunStopped: no video can be prepared now: the disk is full, or the annotator cannot be loaded.
            WorkerDied: the process died. Its `Worker` cannot be used any more.
        """
        try:
            self._connection.send((video, shard))
            result = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise WorkerDied(f"status {self._process.wait()}") from error
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Stop the process."""
        self._process.stdin.close()
        self._connection.close()
        self._process.wait()


class Preparer:
    """What the process does, without the process.

    Args:
        settings, identify: see `Worker`.
    """

    def __init__(self, settings: Settings, identify: Identify | None = None):
        self._settings, self._identify, self._tools = settings, identify, Tools(settings)

    def prepare(self, video: VideoInput, shard: Path) -> dict:
        """See `Worker.prepare`."""
        try:
            _ = self._tools.annotator  # loads it
        except InputError as error:
            raise RunStopped(str(error)) from error
        try:
            return prepare_video(video, self._settings, self._tools, shard, self._identify)
        except DiskFull as error:
            raise RunStopped(str(error)) from error
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{video.path}: expected a video that fits into the memory of this machine; use a larger "
                             "machine, or cut the video into parts") from error
        except Exception as error:  # noqa: BLE001 (one odd file must not stop a long run)
            if is_disk_full(error):
                raise RunStopped("a file could not be written: the disk is full, or a quota is used up "
                                 f"({cut(str(error))}); free some space") from error
            if isinstance(error, OSError):
                raise RunStopped(f"{video.path}: {error}") from error
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise InputError(f"unexpected {type(error).__name__}: {error} (in {where.name}, line {where.lineno} of "
                             f"{Path(where.filename).name}); please report it") from error


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    _leave(1)


def _leave(status: int, *_) -> None:
    remove_temporaries()
    os._exit(status)


def _serve(connection: Connection) -> None:
    """Answer requests until the parent closes the connection."""
    preparer = Preparer(*cloudpickle.loads(connection.recv_bytes()))
    while True:
        try:
            video, shard = connection.recv()
        except EOFError:
            break
        try:
            result = preparer.prepare(video, shard)
        except InputError as error:
            result = type(error)(str(error)) if type(error) in (InputError, RunStopped) else InputError(str(error))
        connection.send(result)


if __name__ == "__main__":
    ignore_interrupts()
    signal.signal(signal.SIGTERM, lambda *_: _leave(128 + signal.SIGTERM))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # Under its own name, so that its exceptions are those that the parent catches.
    from durian_jax.prepare import worker

    worker._serve(Connection(int(sys.argv[1])))
