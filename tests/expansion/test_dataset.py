"""`expand`: regions of a dataset, shard by shard, and `durian expand`."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.checkpoints.description import Description
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.commands.main import main
from durian_jax.data import RecordedClips
from durian_jax.data import dataset_writer as records
from durian_jax.data.clip_record import DecodeError, rewrite_record
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.expansion import dataset as module
from durian_jax.expansion.dataset import expand, stored_region
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.pose import spread_poses
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.models.durian.config import DurianConfig
from durian_jax.synthetic import render
from tests.helpers import toy
from tests.helpers.expansion import Echo, exact, generated, motion, overlap, person, same_regions

# --- with the shipped checkpoint ----------------------------------------------------------------------

def test_regions_fit_records_of_another_size_with_a_margin(tmp_path):
    """Records have 160 px with a margin of 20: their view of 120 px is resampled to the model's 128."""
    hats = [1, 3, 5, 7]
    records.write_clips(tmp_path, (replace(render(person(i), motion(i), 160), margin=20) for i in hats))
    done = expand(tmp_path, kinds=("hat",), frames=1)
    assert (done["clips"], done["regions"]["hat"], done["shards"]) == (4, 4, 1)
    clips = RecordedClips(tmp_path)
    overlaps = []
    for index, number in enumerate(hats):
        ((frame, field),) = clips.open(index).generated().items()
        assert field.shape == (160, 160) and set(np.unique(field)) <= {0, attribute_bit("hat")}
        # The donor is not recorded: compare with the most similar answer of the other people.
        donors = [clips.read(other, [0]) for other in range(4) if other != index]
        view = (slice(20, -20),) * 2
        overlaps.append(max(overlap(field[view] > 0, exact(number, frame, "hat", donor, 160)[view])
                            for donor in donors))
    assert np.mean(overlaps) > 0.65, overlaps


@pytest.mark.slow
def test_regions_depend_on_the_seed_and_not_on_the_batch_size(people, tmp_path):
    first, second, third = (shutil.copytree(people, tmp_path / name) for name in "abc")
    done = expand(first, kinds=("hair",), frames=1)
    assert done["clips"] == 12 and done["regions"] == {"hair": 12, "glasses": 0, "beard": 0, "hat": 0}
    assert RecordedClips(first).about["expanded"] == json.loads(json.dumps(done))
    expand(second, kinds=("hair",), frames=1, batch=3)
    expand(third, kinds=("hair",), frames=1, seed=1)
    assert same_regions(first, second) and not same_regions(first, third)
    before, after = RecordedClips(people), RecordedClips(first)
    for index in range(12):
        np.testing.assert_array_equal(before[index].frames, after[index].frames)
        np.testing.assert_array_equal(before[index].masks, after[index].masks)


# --- with a stand-in generator ------------------------------------------------------------------------

def test_regions_are_stored_by_frame_and_kind(dataset):
    done = expand(dataset, Echo(), frames=3, kinds=("hat", "hair"))
    assert done["regions"] == {"hair": 12, "glasses": 0, "beard": 0, "hat": 3} and done["clips"] == 4
    clips = RecordedClips(dataset)
    assert clips.about["note"] == "kept" and clips.about["expanded"]["shards"] == 3
    for index, worn in enumerate((["hair"], ["hair"], ["hair", "hat"], [], ["hair"])):
        opened = clips.open(index)
        assert len(opened.generated_frames) == (3 if worn else 0)
        for frame, field in opened.generated().items():
            stored = opened.mask(frame)
            assert field.shape == (64, 64)
            for kind in ATTRIBUTE_KINDS:
                found, shown = (field & attribute_bit(kind)) > 0, (stored & attribute_bit(kind)) > 0
                if kind in worn:
                    np.testing.assert_array_equal(found[4:-4, 4:-4], shown[4:-4, 4:-4])
                    # A region that touches the view's edge continues in the margin.
                    np.testing.assert_array_equal(found[:4], np.broadcast_to(found[4], (4, 64)))
                else:
                    assert not found.any()


def test_every_clip_is_counted(dataset):
    done = expand(dataset, Echo(), frames=2)
    # Two frames of four clips with hair, of one with glasses, of one with a beard and of one with a hat.
    assert done["regions"] == {"hair": 8, "glasses": 2, "beard": 2, "hat": 2}
    assert done["clips"] == 4 and done["left_out"] == {"bare": 1, "without_region": 0, "damaged": 0}
    nothing = expand(dataset, lambda wanted: [None] * len(wanted), frames=2, overwrite=True)
    assert nothing["clips"] == 0 and nothing["left_out"] == {"bare": 1, "without_region": 4, "damaged": 0}
    assert not any(generated(dataset)), "old regions are removed, even if there are no new ones"


@pytest.mark.parametrize("again", ["the same", "overwriting"])
def test_a_killed_run_continues_with_the_next_shard(dataset, tmp_path, again):
    whole = shutil.copytree(dataset, tmp_path / "whole")
    overwrite = again == "overwriting"
    if overwrite:  # the old regions are those of other frames
        expand(dataset, Echo(), frames=6)
    expand(whole, Echo(), batch=2)
    with pytest.raises(KeyboardInterrupt):
        expand(dataset, Echo(dies_at=5), batch=2, overwrite=overwrite)  # four calls for the first shard
    clips = RecordedClips(dataset)
    assert clips.about["expanded"]["shards"] == 1
    assert [len(fields) for fields in generated(dataset)] == ([2, 2, 6, 0, 6] if overwrite else [2, 2, 0, 0, 0])
    rest = Echo()
    done = expand(dataset, rest, batch=2)
    assert {each.photo.identity for each in rest.wanted} == {"person-2", "person-4"}
    assert same_regions(dataset, whole) and done["clips"] == 4
    assert expand(dataset, Echo(dies_at=1), batch=2) == done, "a finished run does not call the generator"


def test_existing_regions_are_kept(dataset):
    clips = RecordedClips(dataset)
    mine = {4: np.full((64, 64), attribute_bit("beard"), np.uint8)}
    records.replace_records(dataset, {1: rewrite_record(clips.open(1), generated=mine)})
    done = expand(dataset, Echo(), kinds=("hair",))
    np.testing.assert_array_equal(generated(dataset)[1][4], mine[4])
    assert done["clips"] == 4 and done["regions"] == {"hair": 6, "glasses": 0, "beard": 1, "hat": 0}
    done = expand(dataset, Echo(), kinds=("hair",), overwrite=True)
    assert done["regions"]["beard"] == 0 and len(generated(dataset)[1]) == 2


def test_other_settings_are_refused(dataset):
    expand(dataset, Echo(), frames=1)
    with pytest.raises(InputError, match=r"other settings \(frames 1, not 3; seed 0, not 7\).*--overwrite"):
        expand(dataset, Echo(), frames=3, seed=7)


def test_damaged_clips_are_skipped(dataset, monkeypatch):
    clips = RecordedClips(dataset)
    records.replace_records(dataset, {1: clips.record(1).replace(b"\xff\xd8\xff", b"\0\0\0")})  # its frames
    done = expand(dataset, Echo())
    assert done["left_out"] == {"bare": 1, "without_region": 0, "damaged": 1} and done["clips"] == 3
    assert [bool(fields) for fields in generated(dataset)] == [True, False, True, False, True]

    def unreadable(self, index, _read=RecordedClips.record):
        if index == 1:
            raise DecodeError("a hole in the disk")
        return _read(self, index)
    monkeypatch.setattr(RecordedClips, "record", unreadable)
    with pytest.warns(UserWarning, match="a hole in the disk; shard 0 stays as it is"):
        done = expand(dataset, Echo(), overwrite=True, frames=1)
    monkeypatch.undo()
    assert done["shards"] == 3 and done["left_out"]["damaged"] == 2 and done["clips"] == 2
    assert [len(fields) for fields in generated(dataset)] == [2, 0, 1, 0, 1]


def test_frames_are_spread_over_the_poses():
    poses = np.zeros((9, 3))
    poses[:, 0] = [0, 1, 2, 30, 2, 1, -30, 0, 1]
    for seed in range(9):
        chosen = spread_poses(poses, 3, first=seed)
        assert chosen[0] == seed and {3, 6} <= set(chosen) and len(set(chosen)) == 3
    assert sorted(spread_poses(np.zeros((3, 3)), 5, first=1)) == [0, 1, 2]


def test_regions_of_any_size_fit_the_stored_picture():
    region = np.zeros((40, 40), bool)
    region[:20, 10:30] = True
    stored = stored_region(region, 100, 100, 10)
    assert stored.shape == (100, 100) and overlap(stored[10:-10, 10:-10], region.repeat(2, 0).repeat(2, 1)) > 0.95
    assert stored[:10, 30:70].all() and not stored[60:].any()
    np.testing.assert_array_equal(stored_region(stored, 50, 50, 0), stored.reshape(50, 2, 50, 2).mean((1, 3)) > 0.5)


def test_the_sampling_is_that_of_the_checkpoint(dataset, monkeypatch):
    given = []
    checkpoint = Checkpoint(DurianConfig(), Objective(), {}, sampling=Sampling(steps=4, guidance_scale=2.0))

    def make(clips, model, sampling, batch):
        given.append((model, sampling, batch))
        return Echo()
    monkeypatch.setattr(module, "load_checkpoint", {"mine": checkpoint}.get)
    monkeypatch.setattr(module, "read_description", {"mine": checkpoint.description}.get)
    monkeypatch.setattr(module, "TransferGenerator", make)
    expand(dataset, checkpoint="mine", seed=3, batch=5)
    expand(dataset, checkpoint="mine", steps=9, overwrite=True)
    assert given == [(checkpoint, replace(checkpoint.sampling, seed=3), 5),
                     (checkpoint, replace(checkpoint.sampling, steps=9), 8)]


# --- mistakes -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "message"), [
    (("--kinds", "moustache"), "unknown attribute kind 'moustache'"),
    (("--generator", "magic"), "unknown generator 'magic'; expected own, diffusers:FOLDER"),
    (("--generator", "diffusers:sdxl"), "expected a ControlNet that follows drawn keypoints, found none"),
    (("--controlnet", "mine"), "controlnet mine: expected a generator diffusers:FOLDER beside it, found own"),
    (("--checkpoint", "huge"), "no checkpoint 'huge'"),
    (("--generator", "diffusers:sdxl", "--controlnet", "c", "--masker", "guess"), "unknown masker 'guess'"),
])
def test_mistakes_are_one_line_and_change_nothing(dataset, options, message):
    before = (dataset / "dataset.json").read_bytes()
    result = CliRunner().invoke(main, ["expand", str(dataset), *options])
    assert result.exit_code == 2 and message in result.output and result.output.startswith("durian: error:")
    assert (dataset / "dataset.json").read_bytes() == before


def test_a_model_that_transfers_no_attributes_is_refused_before_any_work(dataset, monkeypatch):
    before = {path.name: path.read_bytes() for path in dataset.iterdir()}
    toy.register()
    monkeypatch.setattr(module, "read_description", lambda _: Description(toy.ToyConfig(), Objective()))
    result = CliRunner().invoke(main, ["expand", str(dataset)])
    assert result.exit_code == 2 and result.output == (
        "durian: error: generator own: expected a model that transfers attributes, found one of the family toy; name "
        "another checkpoint\n")
    assert {path.name: path.read_bytes() for path in dataset.iterdir()} == before


def test_numbers_and_folders_are_checked(dataset, tmp_path):
    for wrong in ({"frames": 0}, {"batch": 0}, {"steps": 0}, {"seed": -1}, {"kinds": ()}):
        with pytest.raises(InputError, match="expand: expected"):
            expand(dataset, Echo(), **wrong)
    with pytest.raises(InputError, match="expected a dataset, found no such folder"):
        expand(tmp_path / "nothing", Echo())


def test_the_command_says_what_it_did(dataset, monkeypatch):
    monkeypatch.setattr("durian_jax.expansion.dataset._make_generator", lambda *_: Echo())
    result = CliRunner().invoke(main, ["expand", str(dataset), "--kinds", "hair, hat", "--frames", "1"])
    assert result.exit_code == 0, result.output
    assert (f"{dataset}: 4 clips with generated regions (hair 4, glasses 0, beard 0, hat 1), 1 left out\n"
            in result.output)
    assert RecordedClips(dataset).about["expanded"]["generator"] == "own"
