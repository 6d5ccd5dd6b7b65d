"""`durian expand --pairs`: drivers made by a checkpoint."""

import json
import shutil
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.checkpoints.description import Description
from durian_jax.commands.main import main
from durian_jax.data import RecordedClips
from durian_jax.data import dataset_writer as records
from durian_jax.data.clip_record import DecodeError, rewrite_record
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.expansion import pairs as module
from durian_jax.expansion.pairs import add_drivers
from durian_jax.faces.clip import Clip, Driver
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.family import ModelConfig
from tests.helpers import svdp
from tests.helpers.faces import clip

SIZE = 32  # of the stand-in model


@dataclass
class Painter:
    """An animator that paints every frame in the mean colour of the portrait, and records its calls.

    Attributes:
        config: of the model.
        dies_at: number of the call that raises KeyboardInterrupt, from 1; None: no call.
        refuses: identities whose motion is refused.
        calls: portrait, motion and options of every call.
    """

    config: ModelConfig = DurianConfig(image_size=SIZE, max_frames=8)
    dies_at: int | None = None
    refuses: tuple[str, ...] = ()
    calls: list[tuple[Clip, Clip | np.ndarray, dict]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return SIZE

    @property
    def backend(self) -> SimpleNamespace:
        return SimpleNamespace(config=self.config, sampling=Sampling(steps=7))

    def animate(self, portrait, attributes, driving, *, sampling, progress, **options):
        assert attributes == [] and not progress and portrait.frames.shape == (1, SIZE, SIZE, 3)
        self.calls.append((portrait, driving, {"sampling": sampling, **options}))
        if len(self.calls) == self.dies_at:
            raise KeyboardInterrupt
        if getattr(driving, "identity", "") in self.refuses:
            raise InputError("no eyes")
        colour = portrait.frames.mean((0, 1, 2)).astype(np.uint8)
        return np.broadcast_to(colour, (len(driving), SIZE, SIZE, 3))


@pytest.fixture
def use(monkeypatch):
    """Make `add_drivers` use an animator."""
    def use(painter: Painter) -> Painter:
        monkeypatch.setattr(module, "read_description", lambda _: Description(painter.config, Objective()))
        monkeypatch.setattr(module, "load_checkpoint", lambda _: None)
        monkeypatch.setattr(module, "Animator", lambda _: painter)
        return painter
    return use


def drivers(folder) -> list[Driver | None]:
    clips = RecordedClips(folder)
    return [clips[index].driver for index in range(len(clips))]


def test_every_clip_gets_another_person_of_the_dataset(dataset, use):
    painter = use(Painter())
    done = add_drivers(dataset, seed=5, steps=3)
    assert done == {"checkpoint": "tiny", "seed": 5, "steps": 3, "overwrite": False, "shards": 3, "clips": 5,
                    "left_out": {"refused": 0, "damaged": 0}}
    about = RecordedClips(dataset).about
    assert about["paired"] == done and about["note"] == "kept"
    for index, (driver, (portrait, _, options)) in enumerate(zip(drivers(dataset), painter.calls, strict=True)):
        assert driver.identity == portrait.identity != f"person-{index}" and driver.frames.shape == (6, 64, 64, 3)
        assert abs(driver.frames.astype(int) - portrait.frames.mean((0, 1, 2))).max() < 6  # JPEG
        assert options["sampling"] == Sampling(steps=3, seed=5)


def test_records_keep_everything_else(dataset, use):
    before = RecordedClips(dataset)[1]
    use(Painter())
    add_drivers(dataset)
    after = RecordedClips(dataset)[1]
    for name in ("frames", "masks", "keypoints"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_a_model_driven_by_keypoints_gets_the_motion_in_the_other_shape(dataset, use):
    painter = use(Painter())
    add_drivers(dataset)
    clips = RecordedClips(dataset)
    for index, (_, driving, options) in enumerate(painter.calls):
        own, driver = clips[index].view(), clips[index].view().driver
        np.testing.assert_allclose(driver.keypoints, driving, atol=1e-5)
        assert np.abs(own.keypoints - driver.keypoints).max() > 1e-4 and "absolute" not in options


def test_a_model_driven_by_pixels_gets_the_clip_in_its_place(dataset, use):
    painter = use(Painter(replace(svdp.tiny(), image_size=SIZE)))
    add_drivers(dataset)
    clips = RecordedClips(dataset)
    for index, (_, driving, options) in enumerate(painter.calls):
        np.testing.assert_array_equal(driving.frames, clips[index].view().frames)
        assert options["absolute"] is True


def test_shorter_clips_are_filled_up_so_that_one_compiled_function_serves_all(tmp_path, use):
    records.write_clips(tmp_path, [clip(0, 6), clip(1, 3), clip(2, 12)])
    painter = use(Painter())
    add_drivers(tmp_path)
    assert [len(driving) for _, driving, _ in painter.calls] == [8, 8, 12]
    np.testing.assert_array_equal(painter.calls[1][1][2:], painter.calls[1][1][2:3].repeat(6, 0))
    assert [len(driver.frames) for driver in drivers(tmp_path)] == [6, 3, 12]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_run_continues_with_the_next_shard(dataset, tmp_path, use, overwrite):
    whole = shutil.copytree(dataset, tmp_path / "whole")
    use(Painter())
    add_drivers(whole)
    if overwrite:
        add_drivers(dataset, seed=1)
    use(Painter(dies_at=4))
    with pytest.raises(KeyboardInterrupt):
        add_drivers(dataset, overwrite=overwrite)  # two calls for each shard
    assert RecordedClips(dataset).about["paired"]["shards"] == 1
    rest = use(Painter())
    done = add_drivers(dataset)
    assert len(rest.calls) == 3 and done["clips"] == 5
    for one, other in zip(drivers(dataset), drivers(whole), strict=True):
        assert one.identity == other.identity
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.keypoints, other.keypoints)
    finished = use(Painter())
    assert add_drivers(dataset) == done and not finished.calls


def test_existing_drivers_are_kept(dataset, use):
    clips = RecordedClips(dataset)
    mine = Driver(np.zeros_like(clips[1].frames), clips[1].keypoints, "mine")
    records.replace_records(dataset, {1: rewrite_record(clips.open(1), driver=mine)})
    painter = use(Painter())
    assert add_drivers(dataset)["clips"] == 5 and len(painter.calls) == 4
    assert drivers(dataset)[1].identity == "mine"
    add_drivers(dataset, overwrite=True)
    assert drivers(dataset)[1].identity != "mine"


def test_other_settings_are_refused(dataset, use):
    use(Painter())
    add_drivers(dataset)
    with pytest.raises(InputError, match=r"was paired with other settings \(seed 0, not 7\).*--overwrite"):
        add_drivers(dataset, seed=7)


def test_damaged_and_refused_clips_are_left_out(dataset, use):
    clips = RecordedClips(dataset)
    records.replace_records(dataset, {1: clips.record(1).replace(b"\xff\xd8\xff", b"\0\0\0")})  # its frames
    use(Painter(replace(svdp.tiny(), image_size=SIZE), refuses=("person-2",)))
    with pytest.warns(UserWarning, match="person-2: no eyes"):
        done = add_drivers(dataset)
    assert done["left_out"] == {"refused": 1, "damaged": 1} and done["clips"] == 3
    clips = RecordedClips(dataset)
    assert [clips.open(index).driver_identity != "" for index in range(5)] == [True, False, False, True, True]


def test_a_shard_that_cannot_be_copied_stays_as_it_is(dataset, use, monkeypatch):
    def unreadable(self, index, _read=RecordedClips.record):
        if index == 1:
            raise DecodeError("a hole in the disk")
        return _read(self, index)
    monkeypatch.setattr(RecordedClips, "record", unreadable)
    use(Painter())
    with pytest.warns(UserWarning, match="a hole in the disk; shard 0 stays as it is"):
        done = add_drivers(dataset)
    assert done["shards"] == 3 and done["left_out"]["damaged"] == 2 and done["clips"] == 3


def test_mistakes_change_nothing(dataset, tmp_path, use):
    before = {path.name: path.read_bytes() for path in dataset.iterdir()}
    use(Painter(replace(svdp.tiny(), image_size=SIZE, fps=60.0)))
    with pytest.raises(InputError, match="about 60 frames per second, as in training, found 25"):
        add_drivers(dataset)
    for wrong in ({"steps": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="expand: expected steps"):
            add_drivers(dataset, **wrong)
    assert {path.name: path.read_bytes() for path in dataset.iterdir()} == before
    records.write_clips(tmp_path / "one", [clip(0), replace(clip(1), identity="person-0")])
    with pytest.raises(InputError, match="at least two people"):
        add_drivers(tmp_path / "one")
    with pytest.raises(InputError, match="expected a dataset, found no such folder"):
        add_drivers(tmp_path / "nothing")


def test_the_command_says_what_it_did(dataset, use):
    use(Painter())
    result = CliRunner().invoke(main, ["expand", str(dataset), "--pairs", "--seed", "2"])
    assert result.exit_code == 0, result.output
    assert f"{dataset}: 5 clips with drivers, 0 left out\n" in result.output
    assert json.loads((dataset / "dataset.json").read_text())["paired"]["seed"] == 2
    result = CliRunner().invoke(main, ["expand", str(dataset), "--pairs", "--kinds", "hair"])
    assert result.exit_code == 2 and "--kinds: expected no --pairs" in result.output


@pytest.mark.slow
def test_the_shipped_checkpoint_lets_another_person_make_the_motion(people, tmp_path):
    """At the motion's place, the result is nearer to the other person than to the clip's own person."""
    from durian_jax.faces.regions import driven_region
    from durian_jax.synthetic import render
    from tests.helpers.expansion import SIZE, motion, person

    folder = shutil.copytree(people, tmp_path / "set")
    add_drivers(folder)
    errors = []
    for index, driver in enumerate(drivers(folder)):
        answer = render(person(int(driver.identity.split("-")[1])), motion(index), SIZE)
        own = RecordedClips(folder)[index]
        for frame in range(3):
            mask = driven_region(answer.keypoints[frame], SIZE, SIZE)
            errors.append([np.abs(driver.frames[frame].astype(float) - x.frames[frame])[mask].mean()
                           for x in (answer, own)])
        # Points are those of the other person's face up to its size and place.
        assert np.abs(driver.keypoints - answer.keypoints)[..., :2].mean() < 0.02
    to_answer, to_own = np.mean(errors, 0)
    assert to_answer < 0.6 * to_own, errors
