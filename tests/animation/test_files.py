"""`animate_files` with stand-ins for the annotator and the model; tests/commands has the program `durian animate`."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from durian_jax.animation.files import animate_files, concat, parse_attributes
from durian_jax.diffusion import Sampling
from durian_jax.errors import DiskFull, InputError
from durian_jax.prepare.annotate import UnsureAttribute
from durian_jax.prepare.attribute_file import read_attribute, write_attribute
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import probe_video, read_image, read_provenance, read_video, write_image, write_video
from tests.commands.runner import durian
from tests.helpers.animation import CHECKPOINT, FRAMES, SIZE, stand_in
from tests.helpers.attributes import attribute
from tests.helpers.certificates import write_certificate
from tests.helpers.disk import full_disk
from tests.helpers.inference import photo
from tests.helpers.sound import with_sound


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A portrait, an attribute photo and a driving video."""
    folder = tmp_path_factory.mktemp("inputs")
    for index, name in enumerate(("me.png", "friend.png")):
        write_image(folder / name, photo(index).frames[0])
    write_video(folder / "talk.mp4", np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8), 25)
    return folder


@pytest.fixture
def calls(monkeypatch):
    return stand_in(monkeypatch)


def animate(inputs, out, **options):
    return animate_files(inputs / "me.png", inputs / "talk.mp4", [f"hair={inputs / 'friend.png'}"], out,
                         checkpoint="mine", **options)


def test_it_writes_two_videos_and_the_settings(inputs, calls, tmp_path):
    report = animate(inputs, tmp_path / "out.mp4", frames=4)
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out_concat.mp4", "out.json"}
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(report))
    assert read_video(tmp_path / "out.mp4")[0].shape == (4, SIZE, SIZE, 3)
    assert read_video(tmp_path / "out_concat.mp4")[0].shape == (4, SIZE, 4 * SIZE, 3)
    settings = {"source": f"{inputs}/me.png", "driving": f"{inputs}/talk.mp4",
                "attributes": {"hair": f"{inputs}/friend.png"}, "checkpoint": "mine", "size": SIZE, "fps": 25.0,
                "face": "largest", "driving_face": "largest", "gaps": "bridge", "paste_back": False, "audio": True,
                "crf": None, "backend": "jax",
                **asdict(CHECKPOINT.sampling)}
    assert report["frames"] == 4 and report["settings"] == settings
    assert calls.photos == [(f"{inputs}/me.png", SIZE, ()), (f"{inputs}/friend.png", SIZE, ("hair",))]


def test_attributes_are_taken_away_and_blended(inputs, calls, tmp_path, capsys):
    friend = inputs / "friend.png"
    wanted = ["hat=none", f"hair={friend},{inputs / 'me.png'}@0.25"]
    report = animate_files(inputs / "me.png", inputs / "talk.mp4", wanted, tmp_path / "out.mp4", checkpoint="mine",
                           order=("hair", "glasses"))
    assert read_video(tmp_path / "out_concat.mp4")[0].shape == (FRAMES, SIZE, 5 * SIZE, 3)
    assert report["settings"]["attributes"] == {"hat": "none", "hair": f"{friend}@0.75,{inputs / 'me.png'}@0.25"}
    assert report["settings"]["order"] == ("hair", "glasses")
    assert report["warnings"] == [f"{inputs / 'me.png'}: no hat found, so there is none to take away"]
    assert report["warnings"][0] in capsys.readouterr().err
    np.testing.assert_allclose(calls.batches[0]["attribute_weights"], [[[0.75, 0.25]] * FRAMES])
    with pytest.raises(InputError, match="order: expected some of hat"):
        animate(inputs, tmp_path / "out.mp4", order=("wig",))


def test_a_timeline_gives_every_frame_its_blend(inputs, calls, tmp_path):
    file = tmp_path / "grow.json"
    file.write_text(json.dumps({"attribute": "hair", "photos": [str(inputs / "me.png"), str(inputs / "friend.png")],
                                "keys": [{"seconds": 0, "weights": [1, 0]}, {"seconds": 0.08, "weights": [0, 1]}]}))
    report = animate_files(inputs / "me.png", inputs / "talk.mp4", ["hat=none"], tmp_path / "out.mp4",
                           checkpoint="mine", timeline=file)
    assert report["settings"]["attributes"] == {"hat": "none", "hair": str(file)}
    second = [0, 0.5, 1, 1, 1]  # at 25 frames per second
    np.testing.assert_allclose(calls.batches[0]["attribute_weights"][0],
                               [[1 - share, share] for share in second], atol=1e-6)
    with pytest.raises(InputError, match="attribute hair is also given as .*friend.png; choose one"):
        animate(inputs, tmp_path / "out.mp4", timeline=file)


@pytest.mark.parametrize(("given", "expected"), [
    (None, CHECKPOINT.sampling),
    ({"steps": 5, "seed": 2}, replace(CHECKPOINT.sampling, steps=5, seed=2)),
    (Sampling(seed=4), Sampling(seed=4)),
])
def test_given_fields_replace_the_sampling_of_the_checkpoint(inputs, calls, tmp_path, given, expected):
    report = animate(inputs, tmp_path / "out.mp4", sampling=given)
    assert [sampling for _, sampling in calls.sampled] == [expected]
    assert asdict(expected).items() <= report["settings"].items()


def test_paste_back_writes_the_whole_photo_and_the_crop(inputs, calls, tmp_path):
    """Here the crop is the whole photo, and the model repeats it: both videos show the photo."""
    with_sound(tmp_path / "talk.mp4", np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8), seconds=0.2)
    report = animate_files(inputs / "me.png", tmp_path / "talk.mp4", [], tmp_path / "out" / "a.mp4", checkpoint="mine",
                           paste_back=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.mp4", "a_crop.mp4", "a_concat.mp4", "a.json"}
    assert report["settings"]["paste_back"] and report["frames"] == FRAMES and calls.annotators == 1
    shown = read_image(inputs / "me.png").astype(int)
    for name in ("a", "a_crop"):
        frames, fps = read_video(tmp_path / "out" / f"{name}.mp4")
        assert frames.shape == (FRAMES, SIZE, SIZE, 3) and fps == 25
        assert np.abs(frames.astype(int) - shown).mean() < 4
    for name in ("a", "a_crop", "a_concat"):
        assert probe_video(tmp_path / "out" / f"{name}.mp4").has_audio
    animate_files(inputs / "me.png", tmp_path / "talk.mp4", [], tmp_path / "b.mp4", checkpoint="mine", audio=False)
    assert not probe_video(tmp_path / "b.mp4").has_audio and not probe_video(tmp_path / "b_concat.mp4").has_audio
    with pytest.raises(InputError, match="a_crop.mp4 would replace the input"):
        animate_files(inputs / "me.png", tmp_path / "out" / "a_crop.mp4", [], tmp_path / "out" / "a.mp4",
                      checkpoint="mine", paste_back=True)


def test_another_rate_reaches_the_annotator_and_the_videos(inputs, calls, tmp_path):
    report = animate(inputs, tmp_path / "out.mp4", fps=12.5, crf=40)
    assert report["settings"]["fps"] == 12.5 and report["settings"]["crf"] == 40
    for name in ("out", "out_concat"):
        assert read_video(tmp_path / f"{name}.mp4")[1] == 12.5


def test_another_size_reaches_the_annotator_and_the_model(inputs, calls, tmp_path):
    report = animate(inputs, tmp_path / "out.mp4", size=96)
    assert read_video(tmp_path / "out.mp4")[0].shape == (FRAMES, 96, 96, 3) and report["settings"]["size"] == 96
    assert [size for _, size, _ in calls.photos] == [96, 96]
    assert [checkpoint.config for checkpoint, _ in calls.sampled] == [replace(CHECKPOINT.config, image_size=96)]


def test_faces_and_gaps_reach_the_annotator(inputs, calls, tmp_path):
    calls.missing[:] = [(1, 3), (4, 5)]
    report = animate(inputs, tmp_path / "out.mp4", face="left", driving_face="2", gaps="hold")
    assert calls.chosen == ["left", "largest", "2", "hold"], "portrait, attribute, driving video"
    assert report["frames_without_a_face"] == "1-2, 4" and report["settings"]["gaps"] == "hold"


@pytest.mark.parametrize(("options", "message"), [
    ({"backend": "tpu"}, "unknown backend 'tpu'; expected one of jax, torch"),
    ({"device": "cuda"}, "device and dtype are for backend='torch'"),
    ({"dtype": "float16"}, "device and dtype are for backend='torch'"),
    ({"sampling": {"steps": 0}}, "steps: expected an integer from 1 to 1000, found 0"),
    ({"fps": 0.5}, "fps: expected 1 to 120 frames per second, found 0.5"),
    ({"fps": float("nan")}, "fps: expected 1 to 120 frames per second, found nan"),
    ({"face": "middle"}, "face: expected largest, left, right or a number, counted from the left from 1"),
    ({"driving_face": "0"}, "driving_face: expected largest, left, right or a number"),
    ({"gaps": "skip"}, "gaps: expected bridge or hold, found 'skip'"),
    ({"crf": 52}, "crf: expected a constant rate factor from 0"),
])
def test_mistakes_are_named_before_any_work(inputs, calls, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        animate(inputs, tmp_path / "out.mp4", **options)
    assert not calls.photos and not list(tmp_path.iterdir())


def test_an_attribute_file_takes_the_place_of_a_photo(inputs, calls, tmp_path):
    """The model sees its pixels; the videos show it; a doubtful one is in the report."""
    file = tmp_path / "curls.attr"
    write_attribute(file, attribute(evidence=0.5))
    with pytest.warns(UnsureAttribute, match="curls.attr: little evidence of hair"):
        report = animate_files(inputs / "me.png", inputs / "talk.mp4", [f"hair={file}"], tmp_path / "out" / "a.mp4",
                               checkpoint="mine", crf=0)
    assert report["settings"]["attributes"] == {"hair": str(file)} and len(report["warnings"]) == 1
    assert (str(file), SIZE, ("hair",)) in calls.photos
    shown = read_video(tmp_path / "out" / "a_concat.mp4")[0][0, :, 2 * SIZE:3 * SIZE]
    assert np.abs(shown.astype(int) - read_attribute(file).clip(SIZE).frames[0]).mean() < 6
    for source, given, message in (("me.png", f"glasses={file}", "expected glasses, found an attribute file of hair"),
                                   (file, f"hair={file}", "expected a photo of a person, found an attribute file")):
        with pytest.raises(InputError, match=message):
            animate_files(inputs / source, inputs / "talk.mp4", [given], tmp_path / "b.mp4", checkpoint="mine")
    assert len(calls.photos) == 2, "both were refused before any work"


def test_attribute_files_are_blended_like_photos(inputs, calls, tmp_path):
    """In a blend and in a timeline, beside photos; a file of another kind is refused in both."""
    file, line = tmp_path / "curls.attr", tmp_path / "line.json"
    write_attribute(file, attribute())
    line.write_text(json.dumps({"attribute": "hair", "photos": [str(inputs / "friend.png"), "curls.attr"],
                                "keys": [{"seconds": 0, "weights": [0.4, 0.6]}]}))
    for given, more in (([f"hair={inputs / 'friend.png'},{file}@0.6"], {}), ([], {"timeline": line})):
        calls.photos.clear()
        report = animate_files(inputs / "me.png", inputs / "talk.mp4", given, tmp_path / "a.mp4", checkpoint="mine",
                               **more)
        assert [path for path, _, _ in calls.photos] == [str(inputs / name) for name in ("me.png", "friend.png")] + [
            str(file)] and report["frames"] == FRAMES
    write_attribute(file, attribute("hat"))
    for given, more in (([f"hair={inputs / 'friend.png'},{file}@0.6"], {}), ([], {"timeline": line})):
        with pytest.raises(InputError, match="curls.attr: expected hair, found an attribute file of hat"):
            animate_files(inputs / "me.png", inputs / "talk.mp4", given, tmp_path / "b.mp4", checkpoint="mine", **more)
    assert "expected hair, found an attribute file of hat" in durian("timeline", "check", line).stderr


def test_a_full_disk_leaves_the_earlier_result(inputs, calls, tmp_path):
    """The larger video, the last but one of the outputs, does not fit."""
    animate(inputs, tmp_path / "out.mp4")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sizes = sorted(len(content) for content in before.values())
    with pytest.raises(DiskFull, match="could not be written: the disk is full"), full_disk(sizes[-1] - 500):
        animate(inputs, tmp_path / "out.mp4", sampling={"seed": 9})
    assert len(before) == 3 and {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_attributes_keep_their_order():
    found = parse_attributes(["hat=a.png", "hair=b=c.png"])
    assert [(kind, wanted.photos) for kind, wanted in found.items()] == [("hat", ("a.png",)), ("hair", ("b=c.png",))]
    for wrong, message in ((["hair"], "expected KIND=PHOTO"), (["hair="], "expected KIND=PHOTO"),
                           (["wig=a.png"], "unknown attribute kind 'wig'"),
                           (["hair=a.png", "hair=b.png"], r"hair is given twice \(a.png and b.png\)")):
        with pytest.raises(InputError, match=message):
            parse_attributes(wrong)


def test_concat_shows_the_inputs_beside_the_result():
    driving = render(sample_person("validation", 7), sample_motion("validation", 7, 3), SIZE)
    result = np.full((3, SIZE, SIZE, 3), 50, np.uint8)
    sheet = concat(driving, photo(0), [("hair", photo(1))], result)
    expected = [driving.frames, photo(0).frames.repeat(3, 0), photo(1).frames.repeat(3, 0), result]
    np.testing.assert_array_equal(sheet, np.concatenate(expected, 2))


def test_every_video_says_that_it_is_generated(inputs, calls, tmp_path):
    report = animate(inputs, tmp_path / "out.mp4", paste_back=True)
    assert report["provenance"]["model"] == "mine" and report["provenance"]["c2pa"].startswith("none: no certificate")
    videos = sorted(tmp_path.glob("*.mp4"))
    assert [video.name for video in videos] == ["out.mp4", "out_concat.mp4", "out_crop.mp4"]
    for video in videos:
        found = read_provenance(video)
        assert found["ai_generated"] and found["metadata"]["model"] == "mine" and found["c2pa"]["state"] == "none"
    assert read_provenance(inputs / "talk.mp4")["metadata"] is None


@pytest.mark.parametrize("installed", [True, False])
def test_one_line_says_why_there_is_no_manifest(inputs, calls, tmp_path, monkeypatch, capsys, installed):
    monkeypatch.setattr("durian_jax.animation.files.can_sign", lambda: installed)
    animate(inputs, tmp_path / "out.mp4")
    assert capsys.readouterr().err.count("no C2PA manifest, because no certificate is given") == installed


def test_every_video_is_signed_with_the_certificate(inputs, calls, tmp_path):
    c2pa = pytest.importorskip("c2pa", reason="needs the extra `provenance`")
    chain, key = write_certificate(tmp_path / "mine")
    report = animate(inputs, tmp_path / "out.mp4", paste_back=True, c2pa_cert=chain, c2pa_key=key)
    assert report["provenance"]["c2pa"] == "signed"
    for name in ("out.mp4", "out_concat.mp4", "out_crop.mp4"):
        with c2pa.Reader("video/mp4", (tmp_path / name).open("rb")) as reader:
            assert reader.get_validation_state() == "Valid" and reader.get_active_manifest()["title"] == name
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out.mp4", "out_concat.mp4", "out_crop.mp4",
                                                          "out.json"}


@pytest.mark.parametrize("verb", ["animate", "reenact"])
def test_a_key_of_another_certificate_is_refused_before_any_work(inputs, calls, tmp_path, monkeypatch, verb):
    pytest.importorskip("c2pa", reason="needs the extra `provenance`")
    monkeypatch.setenv("DURIAN_C2PA_CERT", str(write_certificate(tmp_path / "mine")[0]))
    monkeypatch.setenv("DURIAN_C2PA_KEY", str(write_certificate(tmp_path / "other")[1]))
    result = durian(verb, "-s", inputs / "me.png", "-d", inputs / "talk.mp4", "-o", tmp_path / "out.mp4")
    assert result.exit_code == 2 and "other/key.pem: the C2PA certificate and key cannot sign" in result.stderr
    assert result.stderr.count("\n") == 1 and not calls.photos and not calls.annotators and not calls.loads
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "other"}
