"""Single records: margin, mesh, provenance, generated masks and the view."""

import dataclasses

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from durian_jax.data import clip_record as record
from durian_jax.data.clip_outline import outline
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, Driver, view_keypoints


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
    np.testing.assert_allclose(outline(wide).areas, outline(view).areas)
    with pytest.raises(ValueError, match="margin"):
        Clip(wide.frames, wide.keypoints, wide.masks, margin=32)


# --- drivers ------------------------------------------------------------------------------------------

@pytest.fixture
def driver(clips):
    """Another clip as the driver of the first one."""
    return Driver(clips[1].frames, clips[1].keypoints, clips[1].identity)


def test_a_driver_round_trips(clips, driver):
    encoded = record.read_record(record.write_record(dataclasses.replace(clips[0], driver=driver)))
    back = encoded.clip([4, 1])
    assert encoded.driver_identity == back.driver.identity == driver.identity
    np.testing.assert_array_equal(back.driver.frames, driver.frames[[4, 1]])
    np.testing.assert_array_equal(back.driver.keypoints, driver.keypoints[[4, 1]])
    again = record.read_record(record.rewrite_record(encoded, identity="renamed"))
    assert again.compressed("driver_frames", 2) == encoded.compressed("driver_frames", 2)
    np.testing.assert_array_equal(again.driver_keypoints, driver.keypoints)


def test_a_record_gets_a_driver_or_another_one(clips, driver):
    bare = record.read_record(record.write_record(clips[0], "jpeg"))
    assert bare.driver_keypoints is None and bare.driver_identity == "" and bare.clip().driver is None
    driven = record.read_record(record.rewrite_record(bare, driver=driver))
    assert driven.compressed("frames", 0) == bare.compressed("frames", 0)
    np.testing.assert_array_equal(driven.clip().driver.frames, driver.frames)
    other = Driver(clips[2].frames, clips[2].keypoints, clips[2].identity)
    replaced = record.read_record(record.rewrite_record(driven, driver=other, encoding="jpeg"))
    assert replaced.driver_identity == clips[2].identity
    assert abs(replaced.driver_frame(0).astype(int) - clips[2].frames[0]).mean() < 12
    with pytest.raises(ValueError, match="expected a driver's frames of shape"):
        record.rewrite_record(bare, driver=dataclasses.replace(driver, frames=driver.frames[:2]))
    with pytest.raises(InputError, match="unknown frame encoding 'bmp'"):
        record.rewrite_record(bare, driver=driver, encoding="bmp")


def test_records_of_version_0_1_have_no_drivers(clips):
    """They lack the fields."""
    example = tf_example_pb2.Example.FromString(record.write_record(clips[0]))
    for key in [key for key in example.features.feature if key.startswith("driver_")]:
        del example.features.feature[key]
    old = record.read_record(example.SerializeToString())
    assert old.driver_keypoints is None and old.clip().driver is None
    np.testing.assert_array_equal(old.clip().frames, clips[0].frames)
    np.testing.assert_array_equal(record.read_record(record.rewrite_record(old)).clip().frames, clips[0].frames)


def test_a_driver_without_all_its_frames_is_damaged(clips, driver):
    example = tf_example_pb2.Example.FromString(record.write_record(dataclasses.replace(clips[0], driver=driver)))
    del example.features.feature["driver_frames"].bytes_list.value[3:]
    with pytest.raises(record.DecodeError, match="expected 6 driver_frames, one per frame of keypoints, found 3"):
        record.read_record(example.SerializeToString())
