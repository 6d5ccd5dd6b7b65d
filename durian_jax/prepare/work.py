"""What is finished while a preparation runs, on disk, so that a killed one goes on.

    work/<key>.tmp-shard     the clips of one video
    work/<key>.json          what became of the video, written last: {"entry": ...} or {"reason": ...}

The key is made of the video (its path, size, date and range) and of the settings, so that a changed video or
setting is worked on anew.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from durian_jax.files import write_json
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.inputs import VideoInput

FOLDER = "work"


class Work:
    """The state of one preparation, in `directory`/work. Any number of processes may use it at once."""

    def __init__(self, directory: str | Path, settings: Settings):
        self.folder = Path(directory) / FOLDER
        self._settings = json.dumps(asdict(settings), sort_keys=True)

    def key(self, video: VideoInput) -> str:
        """Name of a video's files."""
        files = sorted(video.path.glob(video.pictures)) if video.path.is_dir() else [video.path]
        try:
            state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        except OSError:
            state = []
        said = json.dumps([asdict(video) | {"path": str(video.path)}, state, self._settings], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:20]

    def shard(self, key: str) -> Path:
        """Where the clips of a video go."""
        return self.folder / f"{key}.tmp-shard"

    def accept(self, key: str, entry: dict) -> None:
        """A video's clips are in its shard."""
        write_json(self.folder / f"{key}.json", {"entry": entry})

    def reject(self, key: str, reason: str) -> None:
        """A video cannot be used."""
        write_json(self.folder / f"{key}.rejected", {"reason": reason})

    def outcome(self, key: str) -> dict | None:
        """What `accept` or `reject` wrote, None while nothing is known."""
        for path in (self.folder / f"{key}.json", self.folder / f"{key}.rejected"):
            try:
                return json.loads(path.read_text())
            except FileNotFoundError:
                continue
        return None

    def rejected_among(self, keys: set[str]) -> int:
        """How many of these videos have been rejected."""
        return sum(path.stem in keys for path in self.folder.glob("*.rejected"))

    def remove(self) -> None:
        """Takes the folder away; the dataset holds all now."""
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()
