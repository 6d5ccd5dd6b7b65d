"""The annotator beside MediaPipe 0.10.21, whose models it runs: points, verdicts, jitter, persons and speed.

    python3.12 -m venv peer && peer/bin/pip install mediapipe==0.10.21
    python -m benchmarks.annotator FILES_OR_FOLDERS --peer peer/bin/python --markdown docs/annotator.md

Both see the same decoded pictures. Distances are in percent of the distance between the outer corners of the eyes. In
videos both follow the face. Pictures in which either finds no face are counted, and do not enter the distances.
--markdown replaces what follows the heading "Measured" in that file.
"""

import argparse
import os
import struct
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.sections import write_section
from durian_jax.annotator import Annotator
from durian_jax.faces.quality import eye_openness, mouth_openness
from durian_jax.faces.topology import GROUPS, MEDIAPIPE_INDICES
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, iterate_video, read_image

HEADING = "Measured"
CORNERS = (33, 263)
LIPS = MEDIAPIPE_INDICES[np.r_[GROUPS["outer_lips"], GROUPS["inner_lips"]]]
LIDS = MEDIAPIPE_INDICES[np.r_[GROUPS["right_eye"], GROUPS["left_eye"]]]
PARTS = {"all points": np.arange(478), "lips": LIPS, "lids": LIDS, "irises": np.arange(468, 478)}
# Openness above which a mouth or an eye counts as open, in widths.
MOUTH_OPEN, EYE_OPEN = 0.05, 0.15


class Peer:
    """MediaPipe in a process of its own."""

    def __init__(self, python: str):
        script = Path(__file__).with_name("mediapipe_peer.py")
        self._process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL)

    def ask(self, op: bytes, image: np.ndarray) -> tuple[bytes, float]:
        """Return the result of a request and its seconds."""
        self._process.stdin.write(struct.pack("<cII", op, *image.shape[:2]) + image.tobytes())
        self._process.stdin.flush()
        size = struct.unpack("<I", self._process.stdout.read(4))[0]
        payload = self._process.stdout.read(size)
        return payload[8:], struct.unpack("<d", payload[:8])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="photos and videos, or folders of them")
    parser.add_argument("--peer", required=True, help="a Python with mediapipe==0.10.21")
    parser.add_argument("--frames", type=int, default=100, help="read at most this number of frames of a video")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    options = parser.parse_args()
    files = [file for given in options.files for file in (sorted(given.rglob("*")) if given.is_dir() else [given])
             if file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES]
    annotator, peer = Annotator(), Peer(options.peer)
    pairs, seconds, persons, missing = [], [[], []], [], [0, 0]
    for file in tqdm(files, unit="file"):
        video = file.suffix.lower() in VIDEO_SUFFIXES
        pictures = iterate_video(file, options.frames) if video else [read_image(file)]
        annotator.reset()
        peer.ask(b"R", np.empty((0, 0, 3), np.uint8))
        track = []
        for number, picture in enumerate(pictures):
            start = time.perf_counter()
            faces = annotator.follow(picture) if video else annotator.faces(picture)
            seconds[0].append(time.perf_counter() - start if video else np.nan)
            mine = max(faces, key=lambda points: np.ptp(points[:, 1]), default=None)
            answer, taken = peer.ask(b"T" if video else b"M", picture)
            seconds[1].append(taken if video else np.nan)
            theirs = np.frombuffer(answer, "<f4").reshape(478, 3) if answer else None
            missing[0] += mine is None
            missing[1] += theirs is None
            if mine is not None and theirs is not None:
                track.append((mine, theirs))
            if number == 0:
                answer, _ = peer.ask(b"P", picture)
                other = np.frombuffer(answer, np.uint8).reshape(picture.shape[:2]) > 127
                own = annotator.person(picture) > 127
                persons.append((own & other).sum() / max((own | other).sum(), 1))
        if track:
            pairs.append(np.stack([np.stack(pair) for pair in track]))
    lines = table(pairs, seconds, persons, missing)
    print("\n".join(lines))
    if options.markdown:
        about = (f"`python -m benchmarks.annotator`, ai-edge-litert {version('ai-edge-litert')}, {date.today()}, "
                 f"{os.cpu_count()} cores: {len(files)} files, {sum(map(len, pairs)):,} pictures in which both find a "
                 "face.")
        write_section(options.markdown, HEADING, [about, "", *lines])


def table(pairs: list[np.ndarray], seconds: list[list[float]], persons: list[float], missing: list[int]) -> list[str]:
    """The lines of a Markdown table.

    Args:
        pairs: for each file (T, 2, 478, 3), the points of ours and of the peer.
        seconds: of each frame of the videos, for both; persons: intersection over union of the persons, for each file.
        missing: frames without a face, for both.
    """
    every = np.concatenate(pairs)
    unit = np.linalg.norm(every[:, 1, CORNERS[0], :2] - every[:, 1, CORNERS[1], :2], axis=-1)
    away = np.linalg.norm((every[:, 0] - every[:, 1])[..., :2], axis=-1) / unit[:, None] * 100
    rows = [(f"distance, {name}, %: mean, 95th percentile",
             f"{away[:, part].mean():.2f}, {np.percentile(away[:, part], 95):.2f}") for name, part in PARTS.items()]
    points = every[:, :, MEDIAPIPE_INDICES]
    for name, measure, limit in (("mouth open or closed", mouth_openness, MOUTH_OPEN),
                                 ("eyes open or closed", lambda x: eye_openness(x).mean(-1), EYE_OPEN)):
        own, other = (measure(points[:, side]) for side in (0, 1))
        rows.append((f"{name}: same verdict, %", f"{((own > limit) == (other > limit)).mean() * 100:.1f}; correlation "
                     f"of the opening {np.corrcoef(own, other)[0, 1]:.3f}"))
    jitter = [np.concatenate([np.linalg.norm(np.diff(pair[:, side, :, :2], 2, axis=0), axis=-1).mean(-1)
                              for pair in pairs if len(pair) > 2]).mean() for side in (0, 1)]
    rows.append(("jitter (second difference), px: ours, MediaPipe", f"{jitter[0]:.3f}, {jitter[1]:.3f}"))
    rows.append(("persons, intersection over union", f"{np.mean(persons):.4f}"))
    rows.append(("pictures without a face: ours, MediaPipe", f"{missing[0]}, {missing[1]}"))
    speed = [float(np.nanmedian(one)) * 1000 for one in seconds]
    rows.append(("a frame of a video, ms: ours, MediaPipe", f"{speed[0]:.1f}, {speed[1]:.1f}"))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


if __name__ == "__main__":
    sys.exit(main())
