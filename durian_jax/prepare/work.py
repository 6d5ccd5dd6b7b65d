"""State of a preparation on disk, so that a killed run can be continued.

    .durian-work/<key>.tmp-shard   clips of one video
    .durian-work/<key>.json        the video's entry in the report, written after its clips
    .durian-work/<key>.rejected    reason why the video cannot be used; deleted when a new run starts
    .durian-work/<key>.started     one byte per start of work on the video

The key depends on the video (its path, size, date and range), its user-made masks and the settings. If any of them
changes, the video is prepared again.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from durian_jax.errors import InputError
from durian_jax.files import read_json, write_json
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.inputs import VideoInput

FOLDER = ".durian-work"

# A video is at fault if this many processes died while they worked on it.
_MOST_STARTS = 2

_OWN = re.compile(r"lock|beam\.log|[0-9a-f]{20}\.(tmp-shard|json|rejected|started)|shard-\d{5}\.safetensors"
                  r"|\.([0-9a-f]{20}|shard-\d{5})\..*")  # the last line: temporary files of killed processes


class Work:
    """State of one preparation in `directory`/.durian-work. Any number of its processes may use it at once."""

    def __init__(self, directory: str | Path, settings: Settings):
        self.folder = Path(directory) / FOLDER
        self._settings = settings

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder and lock it against other preparations. The lock is released if this process dies.

        Raises:
            InputError: another process holds the lock.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"{self.folder.parent}: another `durian prepare` writes to this folder; wait for it, "
                                 "or name another output") from error
            yield

    def key(self, video: VideoInput) -> str:
        """Return the key of a video, which names its files."""
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
        """Return the path for the clips of a video."""
        return self.folder / f"{key}.tmp-shard"

    def start(self, key: str) -> bool:
        """Record that work on a video begins; return False if it has begun too often without an end."""
        with (self.folder / f"{key}.started").open("ab") as file:
            file.write(b".")
            return file.tell() <= _MOST_STARTS

    def accept(self, key: str, entry: dict) -> None:
        """Record that a video's clips are in its shard."""
        write_json(self.folder / f"{key}.json", entry)

    def reject(self, key: str, reason: str) -> None:
        """Record that a video cannot be used."""
        write_json(self.folder / f"{key}.rejected", {"reason": reason})

    def outcome(self, key: str) -> tuple[dict | None, str | None]:
        """Return the video's entry and the reason of its rejection; both are None for an unfinished video.

        A damaged file counts as none: the video is prepared again.
        """
        for suffix in ("json", "rejected"):
            path = self.folder / f"{key}.{suffix}"
            with suppress(InputError):
                found = read_json(path) if os.path.isfile(path) else {}
                if suffix == "json" and isinstance(found.get("clips"), list):
                    return found, None
                if suffix == "rejected" and isinstance(found.get("reason"), str):
                    return None, found["reason"]
        return None, None

    def finished(self, keys: Collection[str]) -> tuple[int, int]:
        """Return the number of accepted and of rejected videos among these keys."""
        names = [path for path in self.folder.iterdir() if path.stem in keys]
        return tuple(sum(path.suffix == suffix for path in names) for suffix in (".json", ".rejected"))

    def forget_rejected(self) -> None:
        """Forget all rejections, because the files may have been repaired."""
        for path in self.folder.glob("*.rejected"):
            path.with_suffix(".started").unlink(missing_ok=True)
            path.unlink()

    def remove(self) -> None:
        """Delete this class's files once the dataset is complete; keep all other files."""
        for path in self.folder.iterdir():
            if _OWN.fullmatch(path.name):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
