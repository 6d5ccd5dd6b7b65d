"""Single records: margin, mesh, provenance, generated masks and the view."""

import dataclasses

import numpy as np
import pytest

from durian_jax.data import clip_record as record
from durian_jax.faces.clip import Clip, view_keypoints


def test_margin_mesh_and_provenance_round_trip(tmp_path, clips):
    mesh = np.random.default_rng(0).random((len(clips[0]), 478, 3), np.float32)
    wide = dataclasses.replace(clips[0], margin=8, mesh=mesh)
    origin = record.Provenance("a#1", "videos/a.mp4", 12, 2, {"sharpness": 0.5})
    region = np.zeros((64, 64), np.uint8)
    region[10:20] = 1
    encoded = record.read_record(record.write_record(wide, "png", origin, {3: region}))
    back = encoded.clip()
    assert back.margin == 8 and np.array_equal(back.mesh, mesh) and np.array_equal(back[2:4].mesh, mesh[2:4])
    found = encoded.provenance
    assert dataclasses.replace(found, quality={}) == dataclasses.replace(origin, quality={})
    assert found.quality["sharpness"] == 0.5 and np.isnan(found.quality["occlusion"])
    assert list(encoded.generated()) == [3] and np.array_equal(encoded.generated()[3], region)
    masks = np.zeros_like(wide.masks)
    again = record.read_record(record.rewrite_record(encoded, masks=masks))
    assert not again.clip().masks.any() and np.array_equal(again.clip().frames, wide.frames)
    assert again.compressed("frames", 0) == encoded.compressed("frames", 0) and list(again.generated()) == [3]


def test_the_view_excludes_the_margin(clips):
    wide = dataclasses.replace(clips[1], margin=8)
    view = wide.view()
    assert view.frames.shape[1:3] == (48, 48) and view.margin == 0
    np.testing.assert_array_equal(view.frames, wide.frames[:, 8:-8, 8:-8])
    # In pixels, view coordinates are 8 smaller.
    np.testing.assert_allclose(view.keypoints[..., :2] * 48, wide.keypoints[..., :2] * 64 - 8, atol=1e-4)
    np.testing.assert_allclose(view_keypoints(view.keypoints, 64, 64, -8), wide.keypoints, atol=1e-6)
    np.testing.assert_allclose(record.outline(wide).areas, record.outline(view).areas)
    with pytest.raises(ValueError, match="margin"):
        Clip(wide.frames, wide.keypoints, wide.masks, margin=32)
