"""Data: records, sources, pseudo pairs, the loader."""

import dataclasses
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

from durian_jax import synthetic
from durian_jax.data import (
    ClipList,
    DataConfig,
    Mixture,
    RecordedClips,
    SyntheticClips,
    make_loader,
    synthesize,
)
from durian_jax.data import (
    clip_record as record,
)
from durian_jax.data import (
    recorded_clips as records,
)
from durian_jax.data.augment import change_colours, degrade, jitter_colour, jitter_mask, random_affine, random_colours
from durian_jax.data.pipeline import DamagedRecord
from durian_jax.data.samples import durian as pairs
from durian_jax.data.samples.durian import BLANK, sample_pair, target_frames
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, view_keypoints
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K
from durian_jax.images import model_inputs
from tests.helpers.faces import clip

CONFIG = DataConfig(image_size=64, frames=2, attributes=2, second_probability=0.5)
STILL = dict(attribute_shift=0.0, attribute_scale=0.0, attribute_rotation=0.0, attribute_brightness=0.0,
             portrait_shift=0.0, portrait_scale=0.0, portrait_rotation=0.0)


@pytest.fixture(scope="module")
def clips():
    kinds = [("hair", "glasses"), ("hair", "beard", "hat"), ("hair",), ("hair", "glasses", "beard", "hat")]
    return [clip(i, kinds=kinds[i % 4]) for i in range(12)]


def sample(source, index, seed, config=CONFIG):
    return sample_pair(source, index, np.random.default_rng(seed), config)


def same(a: dict, b: dict):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- records ------------------------------------------------------------------------------------------

def test_lossless_records_return_the_clips_exactly(tmp_path, clips):
    about = records.write_clips(tmp_path / "d", clips, shard_size=5)
    assert (about["clips"], about["shards"], about["people"]) == (12, 3, 12)
    assert about["clips_with"] == {"hair": 12, "glasses": 6, "beard": 6, "hat": 6}
    source = pickle.loads(pickle.dumps(RecordedClips(tmp_path / "d")))
    assert len(source) == 12
    for i, original in enumerate(clips):
        for name, value in dataclasses.asdict(original).items():
            np.testing.assert_array_equal(getattr(source[i], name), value)
        np.testing.assert_array_equal(source.outline(i).areas, record.outline(original).areas)
        np.testing.assert_array_equal(source.outline(i).areas[:, 0], original.mask("hair").mean((1, 2), dtype="f4"))
        np.testing.assert_array_equal(source.outline(i).poses, head_pose(original.keypoints))
        assert source.outline(i).identity == original.identity
    np.testing.assert_array_equal(source.read(7, [4, 1]).frames, clips[7].frames[[4, 1]])
    assert not list((tmp_path / "d").glob(".*"))


def test_a_folder_of_records_is_a_tfds_dataset(tmp_path, clips):
    """Read by TFDS alone, without TensorFlow and without our code."""
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


def test_margin_mesh_and_provenance_come_back(tmp_path, clips):
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


def test_the_view_leaves_the_margin_out(clips):
    wide = dataclasses.replace(clips[1], margin=8)
    view = wide.view()
    assert view.frames.shape[1:3] == (48, 48) and view.margin == 0
    np.testing.assert_array_equal(view.frames, wide.frames[:, 8:-8, 8:-8])
    # The same place in pixels: 8 less in the view.
    np.testing.assert_allclose(view.keypoints[..., :2] * 48, wide.keypoints[..., :2] * 64 - 8, atol=1e-4)
    np.testing.assert_allclose(view_keypoints(view.keypoints, 64, 64, -8), wide.keypoints, atol=1e-6)
    np.testing.assert_allclose(record.outline(wide).areas, record.outline(view).areas)
    with pytest.raises(ValueError, match="margin"):
        Clip(wide.frames, wide.keypoints, wide.masks, margin=32)


def test_replacing_a_record_rewrites_its_shard_only(tmp_path, clips):
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
def test_other_encodings(tmp_path, clips, encoding):
    records.write_clips(tmp_path, clips[:1], encoding=encoding)
    back = RecordedClips(tmp_path)[0]
    error = np.abs(back.frames.astype(int) - clips[0].frames).mean()
    assert (error == 0) if encoding == "webp-lossless" else (0 < error < 12)  # coloured noise: the worst case
    np.testing.assert_array_equal(back.masks, clips[0].masks)


def test_donors_are_frames_of_different_poses_kept_beside_the_records(tmp_path):
    motion = synthetic.sample_motion("train", 3, 24, 6.0)
    drawn = [synthetic.render(synthetic.sample_person("train", i), motion, 128) for i in (3, 4)]
    records.write_clips(tmp_path, drawn)
    source = pickle.loads(pickle.dumps(RecordedClips(tmp_path)))
    for index, own in enumerate(drawn):
        frames = source.donor_frames(index)
        poses = source.outline(index).poses[:, :2]
        assert len(set(frames.tolist())) == record.DONORS
        apart = np.linalg.norm(poses[frames][:, None] - poses[frames], axis=-1)[np.triu_indices(record.DONORS, 1)]
        everywhere = np.linalg.norm(poses[:, None] - poses, axis=-1)[np.triu_indices(24, 1)]
        assert apart.min() > np.median(everywhere) / 2
        for number, frame in enumerate(frames):
            mask, keypoints = source.donor(index, number)
            np.testing.assert_array_equal(keypoints, own.keypoints[frame])
            share = cv2.resize((own.masks[frame] & 1).astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
            assert (((mask & 1) > 0) == (share > 0.5)).mean() > 0.95


def test_an_unfinished_or_foreign_folder_is_refused(tmp_path, clips):
    with pytest.raises(InputError, match="found a folder without dataset.json"):
        RecordedClips(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        RecordedClips(tmp_path / "none")
    with pytest.raises(InputError, match="one size"):
        records.write_clips(tmp_path, [clips[0], clip(0, size=32)])
    assert not list(tmp_path.iterdir())  # neither half a shard nor an index
    with pytest.raises(InputError, match="at least one"):
        records.write_clips(tmp_path, [])
    records.write_clips(tmp_path, clips, shard_size=5)
    (tmp_path / records.shard_name(1, 3)).unlink()
    with pytest.raises(InputError, match="array_record-00001-of-00003: missing"):
        RecordedClips(tmp_path)


# --- samples ------------------------------------------------------------------------------------------

def test_fields_shapes_and_ranges(clips):
    values = sample(ClipList(clips), 1, 0)
    assert {name: value.shape for name, value in values.items()} == {
        "frames": (2, 64, 64, 3), "frame_masks": (2, 64, 64, 1), "keypoints": (2, K, 3),
        "portrait": (64, 64, 3), "portrait_mask": (64, 64, 1),
        "attributes": (2, 64, 64, 3), "attribute_masks": (2, 64, 64, 1), "attribute_valid": (2,)}
    floats = {"keypoints", "attribute_valid"}
    assert all(value.dtype == (np.float32 if name in floats else np.uint8) for name, value in values.items())
    assert all(values[name].max() == 1 for name in ("portrait_mask", "attribute_masks", "frame_masks"))


def test_models_get_floats_that_are_grey_where_nothing_may_be_seen(clips):
    values = sample(ClipList(clips), 1, 0)
    inputs = model_inputs(values)
    assert all(value.dtype == np.float32 for value in inputs.values()) and inputs.keys() == values.keys()
    assert inputs["frames"].min() >= -1 and inputs["frames"].max() <= 1
    np.testing.assert_allclose(inputs["frames"], values["frames"] / 127.5 - 1, atol=1e-6)
    hidden, region = values["portrait_mask"][..., 0] == 1, values["attribute_masks"][..., 0] == 0
    # What is left of the grey, half a level, is blanked by the model.
    assert abs(inputs["portrait"][hidden]).max() < 0.005 and abs(inputs["attributes"][region]).max() < 0.005
    assert (values["portrait"][hidden] == BLANK).all() and (values["attributes"][region] == BLANK).all()


def test_references_are_complementary(clips):
    """No attribute pixel is left in the portrait, no portrait pixel comes into the attribute image."""
    source = ClipList(clips)
    colours = np.array([10 + 60 * bit for bit in range(4)])
    seen = np.zeros(4, int)
    for seed in range(60):
        config = dataclasses.replace(CONFIG, **STILL) if seed % 2 else CONFIG
        values = sample(source, seed % 12, seed, config)
        assert (values["portrait"][values["portrait_mask"][..., 0] == 1] == BLANK).all()
        assert (values["attributes"][values["attribute_masks"][..., 0] == 0] == BLANK).all()
        if not seed % 2:
            continue
        for slot in np.flatnonzero(values["attribute_valid"]):
            pixels = values["attributes"][slot][values["attribute_masks"][slot, ..., 0] == 1]
            bit = int(np.argmin(abs(colours - pixels[0, 0])))
            seen[bit] += 1
            np.testing.assert_array_equal(pixels, colours[bit])  # the kind's own colour, nothing else
            assert (values["portrait"] != colours[bit]).any(-1).all()  # gone from the portrait
    assert (seen > 0).all(), dict(zip(ATTRIBUTE_KINDS, seen, strict=True))


def test_the_moved_portrait_shows_no_trace_of_the_attribute():
    """Blended edges and repeated borders included: the kind's colour is far from all others."""
    white = clip(0, kinds=("hair",))
    white.frames[white.masks > 0] = 255
    white.frames[white.masks == 0] = 0
    config = dataclasses.replace(CONFIG, absent_probability=0.0, portrait_shift=0.3, expand_probability=0.0)
    for seed in range(20):
        values = sample(ClipList([white]), 0, seed, config)
        assert set(np.unique(values["portrait"])) <= {0, BLANK}  # black face and grey blank, no white


def test_degraded_references_show_no_trace_either():
    """Two clips that differ in the attribute's colour only have the same blanked portraits, blurred or not."""
    config = dataclasses.replace(CONFIG, absent_probability=0.0, blur_probability=0.7, jpeg_probability=0.7, blur=3.0,
                                 clip_colour=0.1, mask_jitter=0.5, attributes=1, second_probability=0.0)
    light = clip(0, kinds=("hair",))
    dark = dataclasses.replace(light, frames=light.frames.copy())
    dark.frames[dark.masks > 0], light.frames[light.masks > 0] = 0, 255
    skin = dataclasses.replace(light, frames=light.frames.copy())
    skin.frames[skin.masks == 0] = 255 - skin.frames[skin.masks == 0]
    for seed in range(30):
        a, b, c = (sample(ClipList([own]), 0, seed, config) for own in (light, dark, skin))
        np.testing.assert_array_equal(a["portrait"], b["portrait"])
        assert (a["portrait"] != c["portrait"]).any() and (a["attributes"] != b["attributes"]).any()


def test_expansion_adds_a_donors_mask():
    short, long = clip(0, kinds=("hair",)), clip(1, kinds=("hair",))
    long.masks[:] |= np.roll(long.masks, 8, axis=1)  # 8 of 64 pixels further down
    source = ClipList([short] + [long] * 3)
    plain = dataclasses.replace(CONFIG, expand_probability=0.0, absent_probability=0.0, margin=(2, 2))
    for seed in range(10):
        own = sample(source, 0, seed, plain)["portrait_mask"]
        grown = sample(source, 0, seed, dataclasses.replace(plain, expand_probability=1.0))["portrait_mask"]
        assert (grown >= own).all() and grown.sum() > 1.15 * own.sum()


def test_a_margin_is_what_a_moved_reference_brings_in():
    """The same face with and without its margin: equal views, but a moved portrait shows the real surroundings."""
    wide = dataclasses.replace(clip(0, size=96, kinds=("hair",)), margin=16)
    still = dataclasses.replace(CONFIG, **STILL, expand_probability=0.0)
    for seed in range(4):
        same(sample(ClipList([wide]), 0, seed, still), sample(ClipList([wide.view()]), 0, seed, still))
    wide.frames[:] = 0
    wide.frames[:, :, :16] = wide.frames[:, :, -16:] = 255  # white margins left and right
    wide.masks[:] = 0
    moving = dataclasses.replace(CONFIG, augment_probability=1.0, portrait_shift=0.2, portrait_rotation=0.0)
    brought = [(sample(ClipList([wide]), 0, seed, moving)["portrait"] == 255).any() for seed in range(8)]
    bare = [(sample(ClipList([wide.view()]), 0, seed, moving)["portrait"] == 255).any() for seed in range(8)]
    assert sum(brought) >= 4 and not any(bare)


def test_larger_records_give_the_same_view():
    """Frames, masks and keypoints of a clip stored at twice the size, margin included, fall on the same pixels."""
    small = dataclasses.replace(clip(3, size=80, kinds=("hair", "glasses")), margin=8)
    large = dataclasses.replace(small, frames=small.frames.repeat(2, 1).repeat(2, 2),
                                masks=small.masks.repeat(2, 1).repeat(2, 2), margin=16)
    config = dataclasses.replace(CONFIG, **STILL, expand_probability=0.0)
    a, b = (sample(ClipList([c]), 0, 5, config) for c in (small, large))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_the_donor_is_the_one_with_the_most_similar_pose(clips):
    """Of people turned to all sides, the mask comes from the one who looks where the portrait looks."""
    def turned(index, yaw):
        own = clip(index, frames=1, kinds=("hair",))
        own.keypoints[..., 2] += np.tan(np.radians(yaw)) * (own.keypoints[..., 0] - 0.5)
        return own

    people = [turned(i, yaw) for i, yaw in enumerate((-40, 40, 0, 24, -18))]
    source = ClipList(people)
    poses = np.stack([source.outline(i).poses[0] for i in range(5)])
    assert np.argsort(poses[:, 0]).tolist() == [0, 4, 2, 3, 1] or np.argsort(-poses[:, 0]).tolist() == [0, 4, 2, 3, 1]
    config = dataclasses.replace(CONFIG, closest_probability=1.0, donor_candidates=16, donor_tries=64)
    for index in range(5):
        donor, frame = pairs._donor(source, index, "hair", poses[index], np.random.default_rng(0), config)
        donor = source[donor]
        away = np.linalg.norm(poses[:, :2] - poses[index, :2], axis=1)
        best = np.argsort(away)[1]
        assert donor.identity == people[best].identity and frame == 0
    alone = ClipList([people[0], dataclasses.replace(people[1], identity=people[0].identity)])
    assert pairs._donor(alone, 0, "hair", np.zeros(3), np.random.default_rng(0), config) is None


def test_generated_masks_take_the_place_of_a_donors():
    short = clip(0, kinds=("hair",))
    region = np.zeros((64, 64), np.uint8)
    region[:60] = 1
    encoded = record.read_record(record.write_record(short, generated={2: region}))

    class Generated(ClipList):
        def open(self, index):
            return encoded if index == 0 else super().open(index)

    source = Generated([short] + [clip(1, kinds=("hair",))] * 3)
    config = dataclasses.replace(CONFIG, **STILL, absent_probability=0.0, expand_probability=1.0,
                                 generated_probability=1.0)
    for seed in range(5):
        mask = sample(source, 0, seed, config)["portrait_mask"][..., 0]
        assert mask[12:40, 14:50].all() and not mask[63].all()
        assert sample(source, 0, seed, dataclasses.replace(config, generated_probability=0.0)
                      )["portrait_mask"].mean() < 0.6


def test_an_absent_kind_gives_an_empty_reference_and_a_region_to_fill(clips):
    config = dataclasses.replace(CONFIG, absent_probability=1.0)
    values = sample(ClipList(clips), 2, 0, config)  # wears hair only
    assert not values["attribute_valid"].any() and not values["attribute_masks"].any()
    assert 0 < values["portrait_mask"].mean() < 0.5


def test_dropout_withholds_the_reference_but_blanks_the_region(clips):
    config = dataclasses.replace(CONFIG, attribute_dropout=1.0, absent_probability=0.0)
    values = sample(ClipList(clips), 3, 0, config)
    assert not values["attribute_valid"].any() and not values["attribute_masks"].any()
    assert values["portrait_mask"].any()


def test_two_attributes_share_a_sample(clips):
    config = dataclasses.replace(CONFIG, second_probability=1.0, absent_probability=0.0)
    assert sample(ClipList(clips), 3, 0, config)["attribute_valid"].sum() == 2
    assert sample(ClipList(clips), 2, 0, config)["attribute_valid"].tolist() == [1, 0]  # wears hair only


def test_the_three_frames_differ(clips):
    """With nothing moved, noise tells the target's frame from the portrait's."""
    config = dataclasses.replace(CONFIG, frames=1, **STILL)
    for seed in range(20):
        values = sample(ClipList(clips), 2, seed, config)
        visible = values["portrait_mask"][..., 0] == 0
        assert (values["frames"][0][visible] != values["portrait"][visible]).any()


def test_target_frames():
    rng = np.random.default_rng(0)
    drawn = [target_frames(12, 4, 3, rng) for _ in range(200)]
    assert {int(f[1] - f[0]) for f in drawn} == {1, 2, 3}
    assert min(f[0] for f in drawn) == 0 and max(f[-1] for f in drawn) == 11
    assert all(len(set(np.diff(f))) == 1 for f in drawn)
    assert target_frames(3, 7, 3, rng).tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert target_frames(1, 3, 3, rng).tolist() == [0, 0, 0]


def test_a_photo_is_a_clip():
    values = sample(ClipList([clip(0, frames=1), clip(1, frames=1)]), 0, 0)
    np.testing.assert_array_equal(values["frames"][0], values["frames"][1])


def test_other_sizes_are_resampled(clips):
    values = sample(ClipList(clips), 0, 0, dataclasses.replace(CONFIG, image_size=32))
    assert values["frames"].shape == (2, 32, 32, 3) and values["portrait_mask"].shape == (32, 32, 1)


def test_augmentation_stays_within_its_bounds():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(random_affine(rng, 64, 0, 0, 0), [[1, 0, 0], [0, 1, 0]])
    for _ in range(50):
        matrix = random_affine(rng, 64, 0.1, 0.2, 10.0)
        assert 1 / 1.2 - 1e-9 <= np.sqrt(np.linalg.det(matrix[:, :2])) <= 1.2 + 1e-9
        assert (abs(matrix @ [32, 32, 1] - 32) <= 6.4 + 1e-9).all()
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert all(94 <= jitter_colour(rng, grey, 0.06)[0, 0, 0] <= 106 for _ in range(20))


def test_degraded_references_lose_detail():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(degrade(rng, noise, 0, 2, 0), noise)
    blurred = [degrade(np.random.default_rng(seed), noise, 1, 2, 0).std() for seed in range(20)]
    assert min(blurred) < 0.5 * noise.std() and max(blurred) > 0.9 * noise.std()
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    packed = degrade(rng, smooth, 0, 2, 1)
    # Red stays red: the colours come back in their own channels.
    assert 0 < abs(packed.astype(int) - smooth).mean() < 6


def test_masks_are_eroded_grown_and_get_holes():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    jittered = [jitter_mask(np.random.default_rng(seed), mask, 2) for seed in range(40)]
    grown = [j for j in jittered if (j >= mask).all() and j.sum() > mask.sum()]
    smaller = [j for j in jittered if (j <= mask).all() and j.sum() < mask.sum()]
    holes = [j for j in smaller if j[16].any() and not j[18:46, 18:46].all()]
    assert len(grown) + len(smaller) == 40 and min(len(grown), len(smaller) - len(holes), len(holes)) >= 5
    assert not jitter_mask(np.random.default_rng(1), np.zeros((8, 8), bool), 2).any()
    values = sample(ClipList([clip(0)]), 0, 0, dataclasses.replace(CONFIG, mask_jitter=1.0))
    assert (values["attributes"][values["attribute_masks"][..., 0] == 0] == BLANK).all()


def test_one_change_of_colours_for_all_pictures_of_a_sample(clips):
    assert random_colours(np.random.default_rng(0), 0) is None
    grey = np.full((2, 2, 3), 90, np.uint8)
    changed = [change_colours(grey, random_colours(np.random.default_rng(seed), 0.2)) for seed in range(30)]
    assert all((c == c[0, 0]).all() for c in changed), "grey stays grey"
    assert np.ptp([int(c[0, 0, 0]) for c in changed]) > 20
    config = dataclasses.replace(CONFIG, **STILL, frames=1)
    for seed in range(6):
        plain = sample(ClipList(clips), 2, seed, config)
        vivid = sample(ClipList(clips), 2, seed, dataclasses.replace(config, clip_colour=0.1))
        known, seen = plain["frames"].reshape(-1, 3), plain["portrait_mask"][..., 0] == 0
        known = np.concatenate([known, np.ones((len(known), 1))], 1)
        colours = np.linalg.lstsq(known, vivid["frames"].reshape(-1, 3), rcond=None)[0]
        expected = plain["portrait"][seen] @ colours[:3] + colours[3]
        assert np.abs(expected - vivid["portrait"][seen]).mean() < 1
        assert np.abs(expected - plain["portrait"][seen]).mean() > 1


def test_mixture_keeps_its_shares(clips):
    mixture = Mixture([ClipList(clips[:3]), ClipList(clips[3:12])], [1, 1])
    names = [mixture.outline(i).identity for i in range(len(mixture))]
    assert len(mixture) == 18 and sum(name in {c.identity for c in clips[:3]} for name in names) == 9
    assert {c.identity for c in clips} <= set(names), "every clip of the longer source has its place"
    assert mixture[12].identity == names[12] == mixture.open(12).identity
    with pytest.raises(InputError, match="empty ones"):
        Mixture([ClipList([])])


def test_synthetic_clips_are_the_same_drawn_or_recorded(tmp_path):
    drawn = pickle.loads(pickle.dumps(SyntheticClips("validation", 3, frames=2, size=32, offset=5)))
    about = synthesize(tmp_path, "validation", clips=3, frames=2, size=32, first=5, workers=0, shard_size=2)
    recorded = RecordedClips(tmp_path)
    assert about["first"] == 5 and len(recorded) == len(drawn) == 3
    for i in range(3):
        np.testing.assert_array_equal(recorded[i].frames, drawn[i].frames)
        np.testing.assert_array_equal(recorded[i].masks, drawn[i].masks)
        np.testing.assert_array_equal(recorded[i].keypoints, drawn[i].keypoints)
    config = dataclasses.replace(CONFIG, image_size=32)
    same(sample(recorded, 0, 1, config), sample(drawn, 0, 1, config))


# --- the loader ---------------------------------------------------------------------------------------

def test_a_resumed_loader_goes_on_bit_for_bit(clips):
    source = ClipList(clips)
    run = iter(make_loader(source, CONFIG, seed=3, batch_size=2))
    for _ in range(4):
        next(run)
    state = run.get_state()
    expected = [next(run) for _ in range(4)]  # crosses the end of the first epoch
    again = iter(make_loader(source, CONFIG, seed=3, batch_size=2, threads=1))
    again.set_state(state)
    for batch in expected:
        same(next(again), batch)


def test_seeds_and_epochs_differ(clips):
    batches = list(make_loader(ClipList(clips), CONFIG, seed=0, batch_size=12, num_epochs=2))
    other = next(iter(make_loader(ClipList(clips), CONFIG, seed=1, batch_size=12)))
    assert len(batches) == 2
    assert (batches[0]["frames"] != batches[1]["frames"]).any()
    assert (batches[0]["frames"] != other["frames"]).any()


def test_hosts_share_the_batches_of_one(clips):
    source = ClipList(clips)
    whole = iter(make_loader(source, CONFIG, seed=5, batch_size=6))
    hosts = [iter(make_loader(source, CONFIG, seed=5, batch_size=3, shard_index=h, shard_count=2))
             for h in (0, 1)]
    for _ in range(3):
        parts, batch = [next(host) for host in hosts], next(whole)
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([part[name] for part in parts]), err_msg=name)


@pytest.mark.parametrize("worker_count", [0, 1])
def test_a_host_makes_parts_that_do_not_lie_side_by_side(clips, worker_count):
    """On a torus of chips its devices do not; and its stream goes on where its state was taken."""
    source = ClipList(clips)
    whole = iter(make_loader(source, CONFIG, seed=5, batch_size=8))
    loader = make_loader(source, CONFIG, seed=5, batch_size=4, shard_index=(0, 2), shard_count=4,
                         worker_count=worker_count)
    host, rows = iter(loader), [0, 1, 4, 5]
    for _ in range(2):
        found, batch = next(host), next(whole)
        for name in batch:
            np.testing.assert_array_equal(found[name], batch[name][rows], err_msg=name)
    again = iter(loader)
    again.set_state(host.get_state())
    np.testing.assert_array_equal(next(again)["frames"], next(whole)["frames"][rows])


@pytest.mark.parametrize("hosts", [2, 3, 4, 5])
def test_hosts_share_an_epoch_without_overlap(clips, hosts):
    """What all hosts see is what one sees, no sample twice, none missing; no host has a batch more."""
    def seen(index, count):
        batches = list(make_loader(ClipList(clips), CONFIG, seed=2, batch_size=1, num_epochs=1, shard_index=index,
                                   shard_count=count))
        return [batch["portrait"].tobytes() + batch["keypoints"].tobytes() for batch in batches]

    whole, parts = seen(0, 1), [seen(index, hosts) for index in range(hosts)]
    assert len(set(whole)) == 12 and len({len(part) for part in parts}) == 1
    together = [sample for part in parts for sample in part]
    assert len(set(together)) == len(together) == 12 // hosts * hosts
    assert set(together) == set(whole[:len(together)])


def test_worker_processes_make_the_same_batches(tmp_path, clips):
    records.write_clips(tmp_path, clips)
    plain = make_loader(RecordedClips(tmp_path), CONFIG, seed=5, batch_size=3, num_epochs=1)
    spread = iter(make_loader(RecordedClips(tmp_path), CONFIG, seed=5, batch_size=3, num_epochs=1, worker_count=2))
    for batch in plain:
        same(batch, next(spread))


def test_damaged_records_are_replaced_up_to_a_limit(tmp_path, clips):
    records.write_clips(tmp_path, clips, shard_size=12)

    class Damaged(RecordedClips):
        def record(self, index):
            record = super().record(index)
            return record.replace(b"\x89PNG", b"\x00\x00\x00\x00") if index < 3 else record

    with pytest.warns(DamagedRecord, match=r"the 1\. one: .*record [012]\b") as said:
        batches = list(make_loader(Damaged(tmp_path), CONFIG, seed=0, batch_size=4, num_epochs=3))
    assert len(batches) == 9 and len(said) == 3, "a record is named once, however often it is met"
    strict = dataclasses.replace(CONFIG, max_failures=2)
    with pytest.raises(InputError, match="cannot be decoded"), pytest.warns(DamagedRecord):
        list(make_loader(Damaged(tmp_path), strict, seed=0, batch_size=4, num_epochs=3))
    with pytest.raises(record.DecodeError, match="frames 0: expected a picture"):
        Damaged(tmp_path).read(1)
    with pytest.raises(record.DecodeError, match="not a clip record"):
        record.read_record(b"nonsense")


@pytest.mark.parametrize("change", [{"frames": 0}, {"expand_probability": 1.5}, {"kind_weights": (1.0,)},
                                    {"margin": (3, 1)}])
def test_contradictory_numbers_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        DataConfig(**change)


def test_a_loader_without_a_batch_is_refused(clips):
    with pytest.raises(InputError, match="batch_size"):
        make_loader(ClipList(clips), CONFIG, seed=0, batch_size=20, num_epochs=1)
