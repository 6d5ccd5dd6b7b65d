"""What is finished while a preparation runs, on disk, so that a killed one goes on.

    .durian-work/<key>.tmp-shard   the clips of one video
    .durian-work/<key>.json        the video's entry in the report, written when its clips are there
    .durian-work/<key>.rejected    why the video cannot be used; forgotten when a new run starts
    .durian-work/<key>.started     one byte for each time that work on the video began

The key is made of the video (its path, size, date and range), the masks that a user made for it, and the settings, so
that what has changed is worked on anew.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from durian_jax.errors import InputError
from durian_jax.files import write_json
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.inputs import VideoInput

FOLDER = ".durian-work"

# A video with which two processes died is what they died of.
_MOST_STARTS = 2

_OWN = re.compile(r"lock|beam\.log|[0-9a-f]{20}\.(tmp-shard|json|rejected|started)|shard-\d{5}\.safetensors"
                  r"|\.([0-9a-f]{20}|shard-\d{5})\..*")  # the last: temporary files of killed processes


class Work:
    """The state of one preparation, in `directory`/.durian-work. Any number of its processes may use it at once."""

    def __init__(self, directory: str | Path, settings: Settings):
        self.folder = Path(directory) / FOLDER
        self._settings = settings

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other preparations out of it; the system lets go where this process dies.

        Raises:
            InputError: another process is at work there.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"{self.folder.parent}: another `durian prepare` writes there; wait for it, or name "
                                 "another output") from error
            yield

    def key(self, video: VideoInput) -> str:
        """Name of a video's files."""
        files = sorted(video.path.glob(video.pictures)) if video.path.is_dir() else [video.path]
        if self._settings.masks:
            files += sorted(path for path in (Path(self._settings.masks) / video.name).rglob("*") if path.is_file())
        try:
            state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        except OSError:
            state = []
        said = json.dumps([asdict(video) | {"path": str(video.path)}, state, asdict(self._settings)], sort_keys=True)
        return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:20]

    def shard(self, key: str) -> Path:
        """Where the clips of a video go."""
        return self.folder / f"{key}.tmp-shard"

    def start(self, key: str) -> bool:
        """Notes that work on a video begins; False where it has begun so often without an end that it is at fault."""
        with (self.folder / f"{key}.started").open("ab") as file:
            file.write(b".")
            return file.tell() <= _MOST_STARTS

    def accept(self, key: str, entry: dict) -> None:
        """A video's clips are in its shard."""
        write_json(self.folder / f"{key}.json", entry)

    def reject(self, key: str, reason: str) -> None:
        """A video cannot be used."""
        write_json(self.folder / f"{key}.rejected", {"reason": reason})

    def outcome(self, key: str) -> tuple[dict | None, str | None]:
        """The video's entry or the reason why it was rejected; neither while nothing is known."""
        try:
            return json.loads((self.folder / f"{key}.json").read_text()), None
        except FileNotFoundError:
            pass
        try:
            return None, json.loads((self.folder / f"{key}.rejected").read_text())["reason"]
        except FileNotFoundError:
            return None, None

    def finished(self, keys: Collection[str]) -> tuple[int, int]:
        """How many of these videos have been accepted, and how many rejected."""
        names = [path for path in self.folder.iterdir() if path.stem in keys]
        return tuple(sum(path.suffix == suffix for path in names) for suffix in (".json", ".rejected"))

    def forget_rejected(self) -> None:
        """Videos that were rejected before are looked at again: what was wrong may have been mended."""
        for path in self.folder.glob("*.rejected"):
            path.with_suffix(".started").unlink(missing_ok=True)
            path.unlink()

    def remove(self) -> None:
        """Takes the work away; the dataset holds all now. Files that are not its own stay."""
        for path in self.folder.iterdir():
            if _OWN.fullmatch(path.name):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
