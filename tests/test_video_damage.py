"""Damaged videos are refused: 200 copies with flipped bits, cut short, emptied or renamed."""

import os
from pathlib import Path

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import iterate_video, write_video

PORTRAITS = Path(os.environ.get("DURIAN_PORTRAITS") or Path(__file__).parents[2] / "shared" / "portraits")
COPIES = 200


def damaged(data: bytes, seed: int) -> bytes:
    """A copy with one of the ways in which files go bad."""
    rng = np.random.default_rng(seed)
    match seed % 4:
        case 0:
            return data[:int(rng.uniform(0.02, 0.97) * len(data))]
        case 1:
            return b"" if seed % 8 == 1 else rng.bytes(len(data))
        case 2:
            start = int(rng.uniform(0.1, 0.8) * len(data))
            return data[:start] + bytes(min(2000, len(data) - start)) + data[start + 2000:]
    flipped = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(0, len(data), int(rng.choice([1, 3, 10, 100]))):
        flipped[place] ^= np.uint8(1 << rng.integers(8))
    return flipped.tobytes()


def differs(path: Path, whole: list[np.ndarray]) -> float | None:
    """None where the video is refused, else how far its frames are from the whole one's (mean of the worst one)."""
    try:
        found = list(iterate_video(path))
    except InputError as error:
        assert str(path) in str(error)
        return None
    if len(found) != len(whole) or found[0].shape != whole[0].shape:
        return 255.0
    return max(float(np.abs(a.astype(np.int16) - b).mean()) for a, b in zip(found, whole, strict=True))


@pytest.fixture(scope="module", params=["drawn", "lp_d0", "lp_s13"])
def video(request, tmp_path_factory):
    if request.param == "drawn":
        clip = render(sample_person("validation", 1), sample_motion("validation", 1, 24), 128)
        path = tmp_path_factory.mktemp("video") / "drawn.mp4"
        write_video(path, clip.frames, 25)
        return path
    path = PORTRAITS / "clips" / f"{request.param}.mp4"
    if not path.exists():
        pytest.skip(f"no real portraits in {PORTRAITS}; name their folder in DURIAN_PORTRAITS")
    return path


def test_no_damaged_copy_passes_for_the_whole_video(video, tmp_path):
    """H.264 has no checksums: a flip may decode without a word. Then the pictures must be as good as the same.

    Flat drawn frames make so few bits that a flip among them often is a valid other picture: only real clips
    are tried with flips.
    """
    whole, data = list(iterate_video(video)), video.read_bytes()
    seeds = range(COPIES // 4) if video.stem != "drawn" else [seed for seed in range(COPIES) if seed % 4 != 3]
    refused = 0
    for seed in seeds:
        path = tmp_path / f"{seed}{'.mp4' if seed % 5 else '.txt'}"
        path.write_bytes(damaged(data, seed))
        found = differs(path, whole)
        refused += found is None
        assert found is None or found < 0.5, (seed, found)
        path.unlink()
    assert refused > 0.75 * len(seeds)
