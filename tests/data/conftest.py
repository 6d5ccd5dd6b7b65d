"""Fixtures of the data tests: hand-made clips, and a small dataset with all cases of a page."""

import dataclasses

import numpy as np
import pytest

from durian_jax.data import dataset_sheet as sheet
from durian_jax.data.clip_record import QUALITIES, Provenance
from tests.helpers.data import FRAMES, HOSTILE, MARGIN, SIZE, write_dataset
from tests.helpers.faces import clip


@pytest.fixture(scope="module")
def clips():
    """Twelve clips with four combinations of attributes."""
    kinds = [("hair", "glasses"), ("hair", "beard", "hat"), ("hair",), ("hair", "glasses", "beard", "hat")]
    return [clip(i, kinds=kinds[i % 4]) for i in range(12)]


@pytest.fixture(scope="module")
def clips_with_margin():
    """Six clips with a margin; clip 3 wears nothing."""
    kinds = (("hair", "glasses"), ("hair", "beard", "hat"), ("hair",), ())
    return [dataclasses.replace(clip(i, FRAMES, SIZE, kinds[i % 4]), margin=MARGIN) for i in range(6)]


@pytest.fixture
def dataset(tmp_path, clips_with_margin):
    """Six clips: clip 1 has names that need escaping, clip 2 has no measured qualities, clip 4 is damaged."""
    origins = [Provenance(f"clip-{i}", f"videos/talk {i}.mp4", 100 * i, 2,
                          {name: (i + 1) / (j + 2) for j, name in enumerate(QUALITIES)}) for i in range(6)]
    origins[1] = dataclasses.replace(origins[1], name=HOSTILE, video=HOSTILE)
    origins[2] = dataclasses.replace(origins[2], quality={})
    return write_dataset(tmp_path / "set", clips_with_margin, origins, damage=[4])


@pytest.fixture
def no_keypoints(monkeypatch):
    """Pages without drawn keypoints, because drawing them takes most of the time."""
    monkeypatch.setattr(sheet, "keypoint_image", lambda points, h, w: np.zeros((len(points), h, w, 3)))
