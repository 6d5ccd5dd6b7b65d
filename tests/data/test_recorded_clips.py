"""Folders of records: round trips, TFDS, donors, replaced records, refused folders."""

import dataclasses
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

from durian_jax import synthetic
from durian_jax.data import RecordedClips, clip_outline
from durian_jax.data import clip_record as record
from durian_jax.data import dataset_writer as records
from durian_jax.errors import InputError
from durian_jax.faces.pose import head_pose
from tests.helpers.faces import clip


def test_lossless_records_return_the_clips_exactly(tmp_path, clips):
    about = records.write_clips(tmp_path / "d", clips, shard_size=5)
    assert (about["clips"], about["shards"], about["people"]) == (12, 3, 12)
    assert about["clips_with"] == {"hair": 12, "glasses": 6, "beard": 6, "hat": 6}
    source = pickle.loads(pickle.dumps(RecordedClips(tmp_path / "d")))
    assert len(source) == 12
    for i, original in enumerate(clips):
        for name, value in dataclasses.asdict(original).items():
            np.testing.assert_array_equal(getattr(source[i], name), value)
        np.testing.assert_array_equal(source.outline(i).areas, clip_outline.outline(original).areas)
        np.testing.assert_array_equal(source.outline(i).areas[:, 0], original.mask("hair").mean((1, 2), dtype="f4"))
        np.testing.assert_array_equal(source.outline(i).poses, head_pose(original.keypoints))
        assert source.outline(i).identity == original.identity
    np.testing.assert_array_equal(source.read(7, [4, 1]).frames, clips[7].frames[[4, 1]])
    assert not list((tmp_path / "d").glob(".*"))


READ = """
import sys
from durian_jax.data import RecordedClips
clips = RecordedClips(sys.argv[1])
before = set(sys.modules)
clips[0]
print(sorted(name for name in set(sys.modules) - before if not name.startswith("encodings.")))
"""


def test_reading_a_record_imports_nothing(tmp_path, clips):
    """Several threads read. With Python 3.11, two that import TFDS at the same time wait for each other forever."""
    records.write_clips(tmp_path, clips)
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_of_records_is_a_tfds_dataset(tmp_path, clips):
    """TFDS alone reads it, without TensorFlow and without durian_jax."""
    records.write_clips(tmp_path, clips, shard_size=5)
    code = ("import sys, tensorflow_datasets as tfds; "
            "source = tfds.builder_from_directory(sys.argv[1]).as_data_source('train'); "
            "clip = source[7]; assert 'tensorflow' not in sys.modules and 'durian_jax' not in sys.modules; "
            "print(len(source), clip['identity'].decode(), clip['keypoints'].shape, len(clip['frames']), "
            "clip['frames'][0][:4])")
    printed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, text=True, capture_output=True,
                             cwd=tmp_path).stdout
    assert printed.split("\n")[0] == (f"12 {clips[7].identity} {clips[7].keypoints.shape} {len(clips[7])} "
                                      "b'\\x89PNG'")


def test_replacing_a_record_rewrites_only_its_shard(tmp_path, clips):
    records.write_clips(tmp_path, clips, shard_size=5, about={"note": "kept"})
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("portrait_clips-*")}
    source = RecordedClips(tmp_path)
    bare = record.rewrite_record(source.open(7), masks=np.zeros_like(clips[7].masks))
    about = records.replace_records(tmp_path, {7: bare}, {"changed": 1})
    assert (about["note"], about["changed"], about["clips_with"]["hair"]) == ("kept", 1, 11)
    after = {path.name: path.stat().st_ino for path in tmp_path.glob("portrait_clips-*")}
    assert [before[name] != after[name] for name in sorted(before)] == [False, True, False]
    source = RecordedClips(tmp_path)
    for i, original in enumerate(clips):
        np.testing.assert_array_equal(source[i].frames, original.frames)
        np.testing.assert_array_equal(source[i].masks, original.masks * (i != 7))
    assert not source.outline(7).areas.any() and source.outline(6).areas.any()


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "webp-lossless"])
def test_lossy_and_lossless_encodings(tmp_path, clips, encoding):
    records.write_clips(tmp_path, clips[:1], encoding=encoding)
    back = RecordedClips(tmp_path)[0]
    error = np.abs(back.frames.astype(int) - clips[0].frames).mean()
    assert (error == 0) if encoding == "webp-lossless" else (0 < error < 12)  # coloured noise is the worst case
    np.testing.assert_array_equal(back.masks, clips[0].masks)


def test_donors_are_frames_with_different_poses(tmp_path):
    motion = synthetic.sample_motion("train", 3, 24, 6.0)
    drawn = [synthetic.render(synthetic.sample_person("train", i), motion, 128) for i in (3, 4)]
    records.write_clips(tmp_path, drawn)
    source = pickle.loads(pickle.dumps(RecordedClips(tmp_path)))
    for index, own in enumerate(drawn):
        frames = source.donor_frames(index)
        poses = source.outline(index).poses[:, :2]
        assert len(set(frames.tolist())) == clip_outline.DONORS
        apart = np.linalg.norm(poses[frames][:, None] - poses[frames], axis=-1)[np.triu_indices(clip_outline.DONORS, 1)]
        everywhere = np.linalg.norm(poses[:, None] - poses, axis=-1)[np.triu_indices(24, 1)]
        assert apart.min() > np.median(everywhere) / 2
        for number, frame in enumerate(frames):
            mask, keypoints = source.donor(index, number)
            np.testing.assert_array_equal(keypoints, own.keypoints[frame])
            share = cv2.resize((own.masks[frame] & 1).astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
            assert (((mask & 1) > 0) == (share > 0.5)).mean() > 0.95


def test_incomplete_and_inconsistent_datasets_are_refused(tmp_path, clips):
    with pytest.raises(InputError, match="found a folder without dataset.json"):
        RecordedClips(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        RecordedClips(tmp_path / "none")
    with pytest.raises(InputError, match="one size"):
        records.write_clips(tmp_path, [clips[0], clip(0, size=32)])
    assert not list(tmp_path.iterdir())  # no partial shard, no index
    with pytest.raises(InputError, match="at least one"):
        records.write_clips(tmp_path, [])
    records.write_clips(tmp_path, clips, shard_size=5)
    (tmp_path / records.shard_name(1, 3)).unlink()
    with pytest.raises(InputError, match="array_record-00001-of-00003: expected 3 shards, this one is missing"):
        RecordedClips(tmp_path)
