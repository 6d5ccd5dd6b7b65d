"""`durian prepare` as a whole: several processes, kills, rejections, user-made masks, real clips."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("apache_beam", reason="needs the extra `prepare`")

from durian_jax.annotator.files import find_models
from durian_jax.data.mask_files import export_masks, replace_masks
from durian_jax.data.recorded_clips import RecordedClips, shard_name
from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, K
from durian_jax.prepare import pipeline
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.pipeline import prepare
from durian_jax.prepare.work import Work
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import read_video, write_image, write_video
from tests.helpers.disk import full_disk
from tests.helpers.tools import require

SMALL = Settings(size=64, margin=8, segment_frames=12)


@pytest.fixture(scope="module", autouse=True)
def _annotator():
    require(find_models, "annotator")


def person_frames(number: int, frames: int = 16, size: int = 256) -> np.ndarray:
    """Return (T, H, W, 3) frames of a procedural person without a hat who turns gently."""
    person = sample_person("validation", number).without("hat")
    return render(person, sample_motion("validation", number, frames), size).frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Four usable videos, one of which shows two people side by side, and six unusable files."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_video(folder / f"person{number}.mp4", person_frames(number), 25)
    write_video(folder / "pair.mp4", np.concatenate([person_frames(3), person_frames(4)], 2), 25)
    data = (folder / "person0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[:len(data) // 2])
    (folder / "empty.mp4").touch()
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "words.mp4").write_text("not a video")
    write_image(folder / "photo.png", person_frames(0, 1)[0])
    write_video(folder / "wall.mp4", np.full((10, 64, 64, 3), 90, np.uint8), 25)
    return folder


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    """The dataset of `videos`, made by two worker processes."""
    out = tmp_path_factory.mktemp("prepared")
    return out, prepare([videos], out, SMALL, workers=2, shard_clips=4)


def shard_bytes(folder: Path) -> dict[str, bytes]:
    names = [*(path.name for path in folder.glob("portrait_clips-*")), "index.safetensors", "dataset.json",
             "rejected.jsonl"]
    return {name: (folder / name).read_bytes() for name in names}


def test_every_video_is_accepted_or_rejected(prepared, videos):
    out, report = prepared
    assert (report["accepted"], report["rejected"]) == (4, 6)
    assert json.loads((out / "report.json").read_text()) == report
    assert all(0 <= clip["certainty"] <= 1 and clip["least_certain"] in ATTRIBUTE_KINDS
               for video in report["files"] for clip in video["clips"])
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    reasons = {Path(entry["file"]).name: entry["reason"] for entry in rejected}
    assert reasons.keys() == {"cut.mp4", "empty.mp4", "noise.mp4", "words.mp4", "photo.png", "wall.mp4"}
    for name, words in (("empty.mp4", "empty file"), ("words.mp4", "not a readable video"), ("photo.png", "picture"),
                        ("wall.mp4", "no face found in any of the 10 frames")):
        assert words in reasons[name], reasons[name]
    assert all(str(videos) in reason for reason in reasons.values())
    assert not list(out.glob(".*"))


def test_the_dataset_matches_the_videos(prepared):
    out, report = prepared
    clips = RecordedClips(out)
    assert len(clips) == report["clips"] == 10 and clips.about["shards"] == 3
    assert {clips.outline(i).identity for i in range(10)} == {"person0", "person1", "person2", "pair/0", "pair/1"}
    assert len({clips.outline(i).name for i in range(10)}) == 10
    assert sum(clips[i].mask("person").any() for i in range(10)) >= 5, "most drawn people are detected as persons"
    names = [clips.outline(i).name.split("#")[0] for i in range(10)]
    assert names == sorted(names), "the order of the inputs does not depend on the processes"
    for index in range(10):
        encoded = clips.open(index)
        clip = encoded.clip()
        assert clip.frames.shape == (8, 80, 80, 3) and clip.margin == 8 and clip.keypoints.shape[1:] == (K, 3)
        assert clip.mesh.shape == (8, 478, 3)
        for layer in ("eyes", "nose", "mouth"):
            assert clip.mask(layer).any((1, 2)).all(), layer
        contour = clip.view().keypoints[:, GROUPS["contour"], 1]
        assert (np.ptp(contour, axis=1) > 0.3).all() and (np.ptp(contour, axis=1) < 0.65).all()
        origin = encoded.provenance
        assert Path(origin.video).stem == origin.name.split("#")[0] and origin.stride == 1
        assert origin.first_frame in (0, 8) and all(np.isfinite(value) for value in origin.quality.values())
        assert origin.quality["face_height"] > 60 and 0 <= origin.quality["occlusion"] <= 1
    assert {"yaw", "sharpness", "hair_area"} <= clips.about["statistics"].keys()


def test_the_crop_shows_the_video(prepared, videos):
    """A patch of the crop matches a place in the video, but only at a suitable scale."""
    clips = RecordedClips(prepared[0])
    clip = clips[[clips.outline(i).name for i in range(10)].index("person1#0")]
    frames, _ = read_video(videos / "person1.mp4")
    picture = cv2.resize(frames[0], (128, 128), interpolation=cv2.INTER_AREA)
    patch = clip.frames[0][20:60, 20:60]
    scores = [cv2.matchTemplate(picture, cv2.resize(patch, (side, side)), cv2.TM_CCOEFF_NORMED).max()
              for side in range(24, 96, 2)]
    assert max(scores) > 0.9 and np.median(scores) < 0.8


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_dataset(prepared, videos, tmp_path, monkeypatch):
    """After kill -9 with at least one finished video, the second run does not repeat finished videos."""
    code = ("import sys; from durian_jax.prepare.clips import Settings; "
            "from durian_jax.prepare.pipeline import prepare; "
            "prepare([sys.argv[1]], sys.argv[2], Settings(size=64, margin=8, segment_frames=12), shard_clips=4)")
    process = subprocess.Popen([sys.executable, "-c", code, str(videos), str(tmp_path)], stderr=subprocess.DEVNULL,
                               start_new_session=True)
    limit = time.monotonic() + 120
    while not list(tmp_path.glob(".durian-work/*.json")) and time.monotonic() < limit:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path.stem for path in tmp_path.glob(".durian-work/*.json")}
    assert finished and not (tmp_path / "dataset.json").exists()
    asked = []
    monkeypatch.setattr(Work, "accept", lambda self, key, *rest, _accept=Work.accept: (
        asked.append(key), _accept(self, key, *rest)))
    report = prepare([videos], tmp_path, SMALL, shard_clips=4)
    assert len(asked) == 4 - len(finished) and not finished & set(asked) and report["accepted"] == 4
    assert shard_bytes(tmp_path) == shard_bytes(prepared[0])


def test_a_finished_dataset_is_replaced_only_on_request(prepared, videos):
    before = shard_bytes(prepared[0])
    assert prepare([videos], prepared[0], SMALL) == prepared[1], "the same call has nothing to do"
    with pytest.raises(InputError, match="--overwrite"):
        prepare([videos], prepared[0], Settings(size=32, margin=8, segment_frames=12))
    os.utime(videos / "words.mp4")  # the file may have been repaired
    with pytest.raises(InputError, match="--overwrite"):
        prepare([videos], prepared[0], SMALL)
    assert shard_bytes(prepared[0]) == before
    with pytest.raises(InputError, match="every input lies in the output folder"):
        prepare([prepared[0] / shard_name(0, 3)], prepared[0], SMALL, overwrite=True)


def test_too_many_rejections_stop_the_run_and_a_repair_continues_it(videos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"bad{number}.mp4").write_text("not a video")
    shutil.copy(videos / "person0.mp4", folder / "z.mp4")
    with pytest.raises(InputError, match=r"(?s)stopped: 3 of 3 videos were rejected, more than --max-rejected 2; "
                                         r"4 were not processed.*not a readable video"):
        prepare([folder], tmp_path / "out", SMALL, max_rejected=2)
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 3
    for number in range(6):
        (folder / f"bad{number}.mp4").unlink()
    assert prepare([folder], tmp_path / "out", SMALL, max_rejected=2)["accepted"] == 1
    with pytest.raises(InputError, match="none of the 1 videos could be used"):
        prepare([videos / "words.mp4"], tmp_path / "other", SMALL)
    assert (tmp_path / "other" / "rejected.jsonl").read_text().count("\n") == 1


def test_user_made_masks_labels_and_identities_are_used(videos, tmp_path):
    """The user's masks, labels and identities override the detected ones."""
    masks = tmp_path / "masks" / "person2" / "hat"
    masks.mkdir(parents=True)
    mask = np.zeros((256, 256), np.uint8)
    mask[:60] = 255
    for frame in range(16):
        write_image(masks / f"{frame:04d}.png", mask)
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,identity,labels\n{videos / 'person2.mp4'},Ann,beard hat\n")
    settings = Settings(size=64, margin=8, segment_frames=12, masks=str(tmp_path / "masks"))
    prepare([manifest], tmp_path / "out", settings)
    clips = RecordedClips(tmp_path / "out")
    assert {clips.outline(i).identity for i in range(len(clips))} == {"Ann"}
    clip = clips[0]
    hat = clip.mask("hat")
    assert hat.any() and (hat[:, 1:] <= hat[:, :-1]).all(), "the mask is a band at the top, as in the user's file"
    assert clip.mask("beard").any() and not clip.mask("hair").any() and not clip.mask("glasses").any()
    named = prepare([manifest], tmp_path / "again", settings, identify=lambda names, frames, given: [
        f"{given[0]}-{len(names)}-{frames[0].shape[0]}"] * len(names))
    assert named["files"][0]["clips"][0]["identity"] == "Ann-2-64"
    assert named["files"][0]["judged"][0]["attributes"] == ["beard", "hat"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="expected folders named after videos"):
        prepare([manifest], tmp_path / "x", Settings(size=64, masks=str(tmp_path / "none")))
    shutil.move(masks.parent, masks.parents[1] / "someone")
    with pytest.raises(InputError, match="someone"):
        prepare([manifest], tmp_path / "typo", settings)


def test_the_limit_holds_for_the_last_video_too(videos, tmp_path):
    """A stopped run writes no dataset, and repairing the last file continues it."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(videos / "person0.mp4", folder / "a.mp4")
    (folder / "z.mp4").write_text("not a video")
    with pytest.raises(InputError, match="stopped: 1 of 2"):
        prepare([folder], tmp_path / "out", SMALL, max_rejected=0)
    assert not (tmp_path / "out" / "dataset.json").exists()
    shutil.copy(videos / "person1.mp4", folder / "z.mp4")
    assert prepare([folder], tmp_path / "out", SMALL, max_rejected=0)["accepted"] == 2


def test_without_an_annotator_the_run_stops_and_rejects_nothing(videos, tmp_path, monkeypatch):
    """A machine of a cluster may lack the models, although the one that starts the run has them."""
    out = tmp_path / "out"
    with monkeypatch.context() as changed:
        changed.setattr(pipeline, "find_models", lambda: None)
        changed.setenv("DURIAN_ANNOTATOR", str(tmp_path))
        with pytest.raises(InputError, match="^the preparation stopped: DURIAN_ANNOTATOR=.*: expected a folder of "
                                             ".*variable. Finished videos are kept; repeat the command to continue$"):
            prepare([videos / "person0.mp4"], out, SMALL)
    assert not list(out.rglob("*.rejected"))
    assert prepare([videos / "person0.mp4"], out, SMALL)["accepted"] == 1


def test_a_full_disk_stops_the_run_and_rejects_nothing(videos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="could not be written: the disk is full"), full_disk(30_000):
        prepare([videos / "person0.mp4"], out, SMALL)
    assert not list(out.rglob("*.rejected")) and not (out / "dataset.json").exists()
    assert prepare([videos / "person0.mp4"], out, SMALL)["accepted"] == 1


def test_a_video_is_rejected_if_two_processes_die_of_it(videos, tmp_path):
    """The run goes on with the other videos. A single death, of a process that was short of memory, is forgiven."""
    once, twice = tmp_path / "once", tmp_path / "twice"

    def fatal(names, frames, identities):
        if identities[0] == "person0" or not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return identities
    report = prepare([videos / "person1.mp4", videos / "person0.mp4", videos / "person2.mp4"], twice, SMALL,
                     identify=fatal)
    assert report["accepted"] == 2
    assert "person0.mp4: two processes died while they worked on this video" in report["rejected_files"][0]["reason"]


WAITING = """
import os, sys, time
from pathlib import Path
from durian_jax.commands.main import main
from durian_jax.prepare import pipeline

def wait(names, frames, identities):
    Path(os.environ["BEGUN"]).touch()
    time.sleep(600)
pipeline.prepare.__kwdefaults__["identify"] = wait
main(["prepare", sys.argv[1], "--out", sys.argv[2], "--size", "64"])
"""
KEPT = "{out} keeps all finished videos; repeat the command to continue"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "line"), [
    (signal.SIGKILL, -signal.SIGKILL, ""), (signal.SIGINT, 130, "durian: stopped (Ctrl-C): " + KEPT),
    (signal.SIGTERM, 143, "durian: stopped (SIGTERM): " + KEPT)])
def test_stopping_never_loses_a_video(number, status, line, videos, tmp_path):
    """A run is stopped twice while it works on the same video, with all its processes, as by a terminal."""
    out, begun = tmp_path / "out", tmp_path / "begun"
    for _ in range(2):
        begun.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", WAITING, videos / "person0.mp4", out], text=True,
                                   stderr=subprocess.PIPE, start_new_session=True,
                                   env={**os.environ, "BEGUN": str(begun)})
        limit = time.monotonic() + 300
        while not begun.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        assert process.wait(60) == status
        assert number == signal.SIGKILL or process.stderr.read().splitlines()[-1] == line.format(out=out)
        assert not list(out.rglob("*.rejected")) and not list(out.rglob("*.tmp"))
    assert prepare([videos / "person0.mp4"], out, SMALL)["accepted"] == 1


def test_only_one_preparation_writes_into_a_folder(videos, tmp_path):
    holder = f"process {os.getpid()} on {socket.gethostname()} uses this folder"
    with Work(tmp_path, SMALL).held(), pytest.raises(InputError, match=holder + r" \(durian prepare\); wait for it"):
        prepare([videos], tmp_path, SMALL)


def test_foreign_files_are_kept(videos, tmp_path):
    for name in ("work/thesis.tex", ".durian-work/notes.txt", ".other.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    prepare([videos / "person0.mp4"], tmp_path, SMALL)
    for name in ("work/thesis.tex", ".durian-work/notes.txt", ".other.tmp"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_part_of_a_video_keeps_its_frame_numbers(videos, tmp_path):
    (tmp_path / "list.csv").write_text(f"path,start,end\n{videos / 'person1.mp4'},0.16,0.6\n")
    report = prepare([tmp_path / "list.csv"], tmp_path / "out", SMALL)
    clip = RecordedClips(tmp_path / "out").open(0)
    assert clip.provenance.first_frame == report["files"][0]["clips"][0]["first"] == 4
    whole = RecordedClips(tmp_path / "out").about
    assert whole["clips"] == 1 and len(clip) == 11


def test_repaired_masks_are_used(videos, tmp_path):
    """After a mask is added, a video that was rejected without it is prepared again."""
    masks = tmp_path / "masks" / "person0" / "glasses"
    masks.mkdir(parents=True)
    for frame in range(15):
        write_image(masks / f"{frame}.png", np.full((256, 256), 255 * (frame > 3), np.uint8))
    settings = Settings(size=64, margin=8, segment_frames=12, masks=str(tmp_path / "masks"))
    with pytest.raises(InputError, match="no mask for frame 15"):
        prepare([videos / "person0.mp4"], tmp_path / "out", settings)
    write_image(masks / "15.png", np.full((256, 256), 255, np.uint8))
    assert prepare([videos / "person0.mp4"], tmp_path / "out", settings)["accepted"] == 1
    shown = RecordedClips(tmp_path / "out")[0].mask("glasses")
    assert not shown[:4].any() and shown[4:].all()


def test_corrected_masks_survive_a_new_preparation(videos, tmp_path):
    """Also in crops of another size, and in another dataset."""
    out, video, settings = tmp_path / "out", [videos / "person0.mp4"], Settings(size=64, margin=8, segment_frames=12)
    report = prepare(video, out, settings)
    name = report["files"][0]["clips"][0]["name"]
    export_masks(out, name, tmp_path / "drawn")
    for kind in ("hair", "glasses", "beard", "frames"):
        shutil.rmtree(tmp_path / "drawn" / kind)
    band = np.zeros((80, 80), np.uint8)
    band[10:30] = 255
    for path in (tmp_path / "drawn" / "hat").iterdir():
        write_image(path, band)
    replace_masks(out, name, tmp_path / "drawn")
    assert prepare(video, out, settings) == report, "the finished dataset holds the corrections already"
    prepare(video, out, Settings(size=128, margin=0, segment_frames=12), overwrite=True)
    hat = RecordedClips(out)[0].mask("hat")
    # The band covers rows 2 to 22 of the view of 64 pixels.
    assert hat.shape[1:] == (128, 128) and hat[:, 8:40].all() and not hat[:, 50:].any()
    other = RecordedClips(out)[1]
    assert not other.mask("hat").any(), "the other clip of the video was not corrected"
    second = tmp_path / "second"
    prepare(video, second, Settings(size=64, margin=8, segment_frames=12, corrections=(str(out),)))
    assert RecordedClips(second)[0].mask("hat")[:, 12:28].all() and (second / "corrections").is_dir()
    third = tmp_path / "third"
    prepare(video, third, settings)
    with pytest.raises(InputError, match="overwrite"):
        prepare(video, third, replace(settings, corrections=(str(out),)))
    with pytest.raises(InputError, match="expected a dataset with corrected masks, found none"):
        prepare(video, third, replace(settings, corrections=(str(videos),)))
    with pytest.raises(InputError, match="expected a dataset with corrected masks, found none"):
        prepare(video, tmp_path / "x", Settings(size=64, corrections=(str(videos),)))
    assert not (tmp_path / "x").exists()


def test_invalid_settings_are_refused_before_any_work(videos, tmp_path):
    with pytest.raises(InputError, match="unknown masker 'magic'"):
        prepare([videos], tmp_path, Settings(masker="magic"))
    with pytest.raises(InputError, match="worker"):
        prepare([videos], tmp_path, SMALL, workers=0)


def test_real_clips(portraits, tmp_path):
    report = prepare([portraits / "clips" / "retalk_3.mp4", portraits / "clips" / "lp_d0.mp4"], tmp_path,
                     Settings(size=64, margin=8, fps=8, max_frames=60))
    assert report["accepted"] == 2
    for clip in RecordedClips(tmp_path):
        assert clip.mask("hair").mean() > 0.02 and not clip.mask("beard").any()
        # If the crop jumped, the rigid nose bridge would jump too.
        assert np.abs(np.diff(clip.keypoints[:, GROUPS["nose_bridge"], :2], axis=0)).max() < 0.1
