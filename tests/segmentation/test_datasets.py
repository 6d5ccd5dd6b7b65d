"""Networks are trained on datasets, by the command line too."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.commands.masks import train_network
from durian_jax.data.dataset_writer import write_clips
from durian_jax.errors import InputError
from durian_jax.faces.clip import layer_bit
from durian_jax.prepare.maskers import make_masker
from durian_jax.segmentation import datasets as module
from durian_jax.segmentation.datasets import examples_of_datasets
from durian_jax.segmentation.examples import READ
from durian_jax.segmentation.training import TrainingSettings
from durian_jax.synthetic import render, sample_motion, sample_person
from tests.commands.runner import durian
from tests.helpers.faces import face


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Twelve clips with the person's outline."""
    clips = [render(sample_person("train", number), sample_motion("train", number, 4), 32) for number in range(12)]
    folder = tmp_path_factory.mktemp("records") / "clips"
    write_clips(folder, [replace(clip, masks=clip.masks | np.uint8(layer_bit("person"))) for clip in clips])
    return folder


def test_examples_are_frames_of_the_clips(records):
    examples, people = examples_of_datasets([records])
    assert sum(map(len, people)) == 12 * 4 and {one.worn for eyes in people for one in eyes} == {True, False}
    assert len(examples) == 12 * 4 and examples[0].frame.shape == (READ, READ, 3)
    assert any(example.masks[..., 0].any() for example in examples) and examples[0].person.max() == 255


def test_clips_without_the_persons_outline_are_refused(tmp_path):
    write_clips(tmp_path / "clips", [render(sample_person("train", 0), sample_motion("train", 0, 2), 32)])
    with pytest.raises(InputError, match="expected clips with the person's outline, found none among 1"):
        examples_of_datasets([tmp_path / "clips"])


def test_damaged_clips_are_left_out_and_counted(records, monkeypatch, capsys):
    class Clips(module.RecordedClips):
        def read(self, index, frames=None):
            if index in damaged:
                raise module.DecodeError("damaged record")
            return super().read(index, frames)
    monkeypatch.setattr(module, "RecordedClips", Clips)
    damaged = {3}
    assert len(examples_of_datasets([records])[0]) == 11 * 4
    assert "1 of 12 clips cannot be read and are left out" in capsys.readouterr().err
    damaged = {3, 4}
    with pytest.raises(InputError, match="more than a tenth of the clips cannot be read; the last reason: damaged"):
        examples_of_datasets([records])


def test_the_command_trains_a_masker(records, tmp_path, monkeypatch):
    from durian_jax.segmentation import training

    monkeypatch.setattr(training.TrainingSettings, "__init__", _small(training.TrainingSettings.__init__))
    result = durian("masks", "train", records, "--out", tmp_path / "net", "--steps", 2, "--eye-steps", 2,
                    "--real", 0.5)
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path}/net: 2 steps, loss " in result.stdout
    logits = make_masker(f"segmentation:{tmp_path / 'net'}").logits(*one_head())
    assert logits["hair"].shape == (1, 48, 40) and set(logits) == {"hair", "glasses", "beard", "hat"}
    result = durian("masks", "train", records, "--out", tmp_path, "--steps", 2)
    assert result.exit_code == 2 and "one with a segmentation network, found net" in result.stderr


def test_the_command_has_the_defaults_of_the_settings():
    settings = TrainingSettings()
    defaults = {option.name: option.default for option in train_network.params if hasattr(settings, option.name)}
    assert defaults.keys() == {"steps", "eye_steps", "real", "seed"}
    assert all(getattr(settings, name) == value for name, value in defaults.items())


def one_head():
    """Frames, keypoints and person of one picture."""
    return np.zeros((1, 48, 40, 3), np.uint8), face(np.random.default_rng(0))[None], np.zeros((1, 48, 40), np.uint8)


def _small(init):
    return lambda self, **options: init(self, **options, batch=2, procedural=1)


def test_bad_input_is_refused(records, tmp_path):
    (tmp_path / "file").touch()
    for arguments, words in ((("train", tmp_path, "--out", tmp_path / "net"), "expected a dataset"),
                             (("train", records, "--out", tmp_path / "file"), "cannot write into the folder"),
                             (("train", records, "--out", tmp_path / "net", "--steps", 0), "0 is not in the range")):
        result = durian("masks", *arguments)
        assert result.exit_code == 2 and words in result.stderr and not (tmp_path / "net").exists()
    with pytest.raises(InputError, match="at least one dataset"):
        examples_of_datasets([])
