"""State of a preparation on disk, so that a killed run can be continued.

    .durian-work/<key>.tmp-shard   clips of one video
    .durian-work/<key>.json        the video's entry in the report, written after its clips
    .durian-work/<key>.rejected    reason why the video cannot be used; deleted when a new run starts
    .durian-work/stopped           reason why the run cannot go on
    .durian-work/assembled         the dataset is complete

The key depends on the video (its path, size, date and range), its user-made and corrected masks, and the settings. If
any of them changes, the video is prepared again.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from durian_jax.data.corrections import Corrections
from durian_jax.errors import InputError
from durian_jax.files import created_folder, read_json, write_json, write_text
from durian_jax.locks import NAME as LOCK
from durian_jax.locks import FolderLock
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.inputs import VideoInput

FOLDER = ".durian-work"

_REPORTS = ("report.json", "rejected.jsonl")

# The last line: temporary files of killed processes. Version 0.1 wrote lock and *.started.
_OWN = re.compile(rf"lock|{LOCK}|beam\.log|stopped|assembled|{'|'.join(_REPORTS)}"
                  r"|[0-9a-f]{20}\.(tmp-shard|json|rejected|started)|shard-\d{5}\.safetensors"
                  r"|\.([0-9a-f]{20}|shard-\d{5}|stopped|report|rejected)\..*")


class Work:
    """State of one preparation in `directory`/.durian-work. Any number of its processes may use it at once."""

    def __init__(self, directory: str | Path, settings: Settings):
        self.folder = Path(directory) / FOLDER
        self._settings, self._settings_text = settings, json.dumps(asdict(settings), sort_keys=True)
        self._corrections = Corrections(settings.corrections)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder and lock it against other preparations.

        Raises:
            InputError: another process holds the lock.
        """
        lock = FolderLock(self.folder, "durian prepare", "wait for it, stop it, or name another output")
        with created_folder(self.folder), lock:
            for name in ("stopped", "assembled"):
                (self.folder / name).unlink(missing_ok=True)
            yield

    def key(self, video: VideoInput) -> str:
        """Return the key of a video, which names its files."""
        try:
            found = os.stat(video.place)
            if stat.S_ISDIR(found.st_mode):
                state = [_state(file) for file in sorted(video.path.glob(video.pictures))]
            else:
                state = [(video.place.rpartition("/")[2], found.st_size, found.st_mtime_ns)]
            if self._settings.masks:
                masks = Path(self._settings.masks) / video.name
                state += [_state(path) for path in sorted(masks.rglob("*")) if path.is_file()]
            state += [_state(path) for path in self._corrections.files(video.name)]
        except OSError:
            state = []
        fields = video._asdict()
        text = json.dumps([{"path": fields.pop("place"), **fields}, state], sort_keys=True)
        return hashlib.sha256(f"{text}{self._settings_text}".encode(errors="surrogateescape")).hexdigest()[:20]

    def shard(self, key: str) -> Path:
        """Return the path for the clips of a video."""
        return self.folder / f"{key}.tmp-shard"

    def accept(self, key: str, entry: dict) -> None:
        """Record that a video's clips are in its shard."""
        write_json(self.folder / f"{key}.json", entry)

    def reject(self, key: str, reason: str) -> None:
        """Record that a video cannot be used."""
        write_json(self.folder / f"{key}.rejected", {"reason": reason})

    def outcome(self, key: str) -> tuple[dict | None, str | None]:
        """Return the video's entry and the reason of its rejection; both are None for an unfinished video.

        A damaged file is ignored: the video is prepared again.
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
            path.unlink()

    def stop(self, reason: str) -> None:
        """Record why the run cannot go on. On a full disk only the exception says so."""
        with suppress(OSError, InputError):
            write_text(self.folder / "stopped", reason)

    @property
    def stopped(self) -> str:
        """Why the run cannot go on; "" if nothing is recorded."""
        try:
            return (self.folder / "stopped").read_text()
        except OSError:
            return ""

    def mark_assembled(self) -> None:
        """Record that the dataset is complete."""
        (self.folder / "assembled").touch()

    @property
    def assembled(self) -> bool:
        """Whether the dataset is complete."""
        return (self.folder / "assembled").exists()

    def remove(self) -> None:
        """Delete this class's files once the dataset is complete; keep all other files."""
        for path in self.folder.iterdir():
            if _OWN.fullmatch(path.name):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _state(file: Path) -> tuple[str, int, int]:
    """Return values that change if the file is replaced."""
    found = file.stat()
    return file.name, found.st_size, found.st_mtime_ns
