"""`durian check`: it names each problem, and good files have no findings."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.commands.main import main
from durian_jax.errors import InputError
from durian_jax.faces.topology import GROUPS, MEDIAPIPE_INDICES, POSITION
from durian_jax.prepare import check
from durian_jax.prepare.check import Finding, Report, check_files, describe
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import read_image, write_image, write_video
from tests.helpers.prepare import FPS, calm_talk, draw


@pytest.fixture(scope="module")
def photo():
    return draw(size=384).frames[0]


@pytest.fixture(scope="module")
def talk():
    return calm_talk()


def report_on_photo(image, annotator, folder):
    write_image(folder / "photo.png", image)
    return check_files([folder / "photo.png"], annotator)[0]


def report_on_video(frames, annotator, folder, fps=FPS):
    write_video(folder / "video.mp4", frames, fps)
    return check_files([folder / "video.mp4"], annotator)[0]


def codes(report):
    return {finding.code for finding in report.findings}


def only(report, code):
    """Return the only finding of a report."""
    assert codes(report) == {code}, describe(report)
    return report.findings[0]


# --- photos -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("person", [4, 7, 15, 20, 29, 37])  # glasses, a moustache, an afro, a full beard, ...
def test_good_photos_have_no_findings(annotator, tmp_path, person):
    report = report_on_photo(draw(person, 384).frames[0], annotator, tmp_path)
    assert report.ok and not report.findings, describe(report)
    assert report.kind == "photo" and report.measures["width"] == report.measures["height"] == 384
    assert report.measures["face_height"] == pytest.approx(165, abs=15)
    assert report.measures["largest_model"] == pytest.approx(report.measures["face_height"] / 0.47, rel=0.1)
    assert abs(report.measures["yaw"]) < 6 and abs(report.measures["pitch"]) < 8


def shrunk(image):
    return cv2.resize(image, None, fx=0.33, fy=0.33, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("code", "change"), [
    ("small-face", shrunk),
    ("blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 5)),
    ("dark-or-bright", lambda image: (image * 0.2).astype(np.uint8)),
    ("dark-or-bright", lambda image: np.clip(image * 2.5 + 80, 0, 255).astype(np.uint8)),
    ("no-headroom", lambda image: image[100:]),
    ("face-at-edge", lambda image: image[:, 130:]),
    ("several-faces", lambda image: np.hstack([image, draw(24, 384).frames[0]])),
    ("extreme-pose", lambda _: draw(size=384, yaw=45).frames[0]),
    ("extreme-pose", lambda _: draw(size=384, roll=40).frames[0]),
    ("not-neutral", lambda _: draw(size=384, mouth=1).frames[0]),
])
def test_bad_photos_get_one_warning(annotator, tmp_path, photo, code, change):
    report = report_on_photo(change(photo), annotator, tmp_path)
    finding = only(report, code)
    assert finding.level == "warning" and report.ok and finding.fix
    assert any(letter.isdigit() for letter in finding.message)


def test_headroom_says_how_many_pixels_are_missing(annotator, tmp_path, photo):
    finding = only(report_on_photo(photo[100:], annotator, tmp_path), "no-headroom")
    assert "the head touches this edge" in finding.message
    missing = int(finding.fix.split(" px")[0].split()[-1])
    padded = np.pad(photo[100:], ((missing + 4, 0), (0, 0), (0, 0)), mode="edge")
    assert report_on_photo(padded, annotator, tmp_path).measures["headroom"] == pytest.approx(0.65, abs=0.05)


def test_a_missing_or_tiny_face_is_an_error(annotator, tmp_path, photo):
    report = report_on_photo(np.full((300, 300, 3), 128, np.uint8), annotator, tmp_path)
    assert only(report, "no-face").level == "error" and not report.ok
    assert report.measures == {"width": 300, "height": 300}
    wall = np.full((384, 384, 3), 150, np.uint8)
    small = cv2.resize(photo, (86, 86), interpolation=cv2.INTER_AREA)
    wall[150:236, 150:236] = small
    report = report_on_photo(wall, annotator, tmp_path)
    assert only(report, "small-face").level == "error" and "expected at least 48" in report.findings[0].message


@pytest.mark.parametrize("colour", ["black", "blue", "skin"])
def test_covered_mouths_are_found(annotator, tmp_path, photo, colour):
    finding = only(report_on_photo(cover_mouth(photo, draw(size=384).keypoints[0], colour), annotator, tmp_path),
                   "occluded-mouth")
    assert finding.level == "warning" and "guess" in finding.fix


def cover_mouth(image, keypoints, colour, grow=0.04):
    """Return the picture with a rectangle over the mouth; "skin" is the nose's colour, like a hand."""
    points = keypoints[:, :2] * image.shape[1::-1]
    lips = points[GROUPS["outer_lips"]]
    margin = grow * image.shape[1]
    (left, top), (right, bottom) = (lips.min(axis=0) - margin).astype(int), (lips.max(axis=0) + margin).astype(int)
    x, y = points[POSITION[197]].astype(int)
    colours = {"black": (25, 25, 25), "blue": (120, 170, 215),
               "skin": np.median(image[y - 3:y + 4, x - 3:x + 4].reshape(-1, 3), axis=0)}
    covered = image.copy()
    covered[top:bottom, left:right] = colours[colour]
    return covered


# --- videos -------------------------------------------------------------------------------------------

def test_a_good_video_has_no_findings(annotator, tmp_path, talk):
    report = report_on_video(talk, annotator, tmp_path)
    assert report.kind == "video" and report.ok and not report.findings, describe(report)
    assert report.measures["frames"] == 30 and report.measures["fps"] == FPS
    assert report.measures["seconds"] == pytest.approx(1.2)


def test_a_cut_is_timed_and_a_flash_is_ignored(annotator, tmp_path, talk):
    joined = np.concatenate([talk, draw(24, frames=12).frames])
    finding = only(report_on_video(joined, annotator, tmp_path), "cut-inside")
    assert finding.frames == ((30, 31),) and "1 cut at 1.20 s" in finding.message
    assert "from 0.00 s to 1.20 s" in finding.fix
    flash = talk.copy()
    flash[14:17] = np.clip(0.7 * flash[14:17].astype(float) + 76, 0, 255).astype(np.uint8)
    report = report_on_video(flash, annotator, tmp_path)
    assert "cut-inside" not in codes(report), describe(report)


def test_frames_without_a_face_are_errors(annotator, tmp_path, talk):
    gap = talk.copy()
    gap[12:17] = 128
    report = report_on_video(gap, annotator, tmp_path)
    finding = next(finding for finding in report.findings if finding.code == "faceless-frames")
    assert report.findings[0] == finding and finding.level == "error" and not report.ok
    assert finding.frames == ((12, 17),) and "--frames 12" in finding.fix
    report = report_on_video(np.full((9, 64, 64, 3), 90, np.uint8), annotator, tmp_path)
    assert only(report, "no-face").level == "error"


def test_a_first_frame_that_is_not_calm(annotator, tmp_path):
    mouth = np.where(np.arange(20) < 7, 1.0, 0.0)
    finding = only(report_on_video(draw(frames=20, mouth=mouth).frames, annotator, tmp_path), "first-frame-not-neutral")
    assert "mouth is open" in finding.message and "(frame 7)" in finding.fix and "0.28 s" in finding.fix
    blink = np.where(np.arange(20) < 2, 1.0, 0.0)
    finding = only(report_on_video(draw(frames=20, blink=blink).frames, annotator, tmp_path), "first-frame-not-neutral")
    assert "eyes are closed" in finding.message
    report = report_on_video(draw(frames=20, mouth=mouth[::-1], blink=blink[::-1]).frames, annotator, tmp_path)
    assert not report.findings, describe(report)


def test_frames_that_look_away(annotator, tmp_path):
    yaw = np.interp(np.arange(36), [0, 8, 16, 24, 32], [0, 0, 55, 55, 0])
    report = report_on_video(draw(frames=36, yaw=yaw).frames, annotator, tmp_path)
    finding = next(finding for finding in report.findings if finding.code == "extreme-pose")
    assert finding.level == "warning" and all(10 <= first < last <= 30 for first, last in finding.frames)


def test_a_mouth_covered_in_some_frames(annotator, tmp_path, talk):
    keypoints = draw().keypoints[0]
    covered = talk.copy()
    for index in range(10, 20):
        covered[index] = cover_mouth(talk[index], keypoints, "black", grow=0.06)
    finding = only(report_on_video(covered, annotator, tmp_path), "occluded-mouth")
    assert finding.frames[0][0] >= 9 and finding.frames[-1][1] <= 21


@pytest.mark.parametrize(("code", "change", "fps"), [
    ("low-fps", lambda talk: talk, 8),
    ("too-short", lambda talk: talk[:6], FPS),
    ("blurred", lambda talk: [cv2.GaussianBlur(frame, (0, 0), 3.5) for frame in talk], FPS),
    ("several-faces", lambda talk: np.concatenate([talk, np.repeat(draw(24).frames, len(talk), 0)], axis=2), FPS),
    ("small-face", lambda talk: np.stack([cv2.resize(frame, (130, 130), interpolation=cv2.INTER_AREA)
                                          for frame in talk]), FPS),
])
def test_bad_videos_get_one_warning(annotator, tmp_path, talk, code, change, fps):
    report = report_on_video(change(talk), annotator, tmp_path, fps)
    assert only(report, code).level == "warning" and report.ok


def test_a_head_that_leaves_its_crop(annotator, tmp_path, photo):
    """The head swings by more than the crop's side, more than once per second."""
    head = cv2.resize(photo, (200, 200), interpolation=cv2.INTER_AREA)
    background = np.full((200, 620, 3), head[0, 0], np.uint8)
    frames = []
    for index in range(48):
        left = int(round(210 + 200 * np.sin(index * 0.16)))
        frames.append(background.copy())
        frames[-1][:, left:left + 200] = head
    report = report_on_video(np.stack(frames), annotator, tmp_path, fps=50)
    assert "large-drift" in codes(report), describe(report)


# --- files and the command line -----------------------------------------------------------------------

@pytest.fixture(scope="module")
def files(tmp_path_factory, photo):
    folder = tmp_path_factory.mktemp("files")
    write_image(folder / "good.png", photo)
    write_image(folder / "open.png", draw(size=384, mouth=1).frames[0])
    (folder / "words.mp4").write_text("not a video")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:900])
    (folder / "still.mp4").write_bytes((folder / "good.png").read_bytes())
    (folder / "empty.jpg").touch()
    (folder / "nameless").write_bytes((folder / "good.png").read_bytes())
    return folder


def test_unreadable_files_do_not_stop_the_others(annotator, files):
    names = ["words.mp4", "cut.png", "still.mp4", "empty.jpg", "none.png", "nameless", "good.png"]
    reports = check_files([files / name for name in names], annotator)
    assert [Path(report.file).name for report in reports] == names
    for report in reports[:5]:
        finding = only(report, "unreadable")
        assert finding.level == "error" and finding.fix and report.measures == {}
        assert str(files) not in finding.message
    folder = only(check_files([f"{files}/"], annotator)[0], "unreadable")
    assert folder.fix == "name the files in it" and folder.message == "expected a photo or a video, found a folder"
    assert reports[1].findings[0].fix == "copy the file again from its source"
    assert "found a still picture" in reports[2].findings[0].message
    assert [report.findings for report in reports[5:]] == [(), ()]
    assert reports[5].kind == "photo"


def test_a_photo_that_may_be_damaged_is_not_ok(annotator, tmp_path, photo):
    write_image(tmp_path / "a.jpg", photo)
    data = (tmp_path / "a.jpg").read_bytes()
    place = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:place] + bytes(40) + data[place:])
    finding = only(check_files([tmp_path / "a.jpg"], annotator)[0], "damaged")
    assert finding.level == "warning" and "the picture may be damaged (Corrupt JPEG data" in finding.message
    assert finding.fix == "look at it, or copy the file again from its source" and str(tmp_path) not in finding.message


def test_unexpected_errors_do_not_stop_the_others(annotator, files, monkeypatch):
    def fail(path, annotator):
        raise ZeroDivisionError("odd file")
    monkeypatch.setattr("durian_jax.prepare.check.look_at_photo", fail)
    finding = only(check_files([files / "good.png"], annotator)[0], "unreadable")
    assert "ZeroDivisionError: odd file" in finding.message


def durian(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_command_line(annotator, files, tmp_path):
    result = durian("check", files / "good.png", files / "open.png", "--json", tmp_path / "new" / "report.json")
    assert result.exit_code == 0, result.output
    good, ok, bad, warning = result.stdout.splitlines()
    assert good.startswith(f"{files}/good.png: photo, 384 x 384, face 16") and ok == "  ok"
    assert bad.startswith(f"{files}/open.png: ")
    assert warning.startswith("  warning not-neutral: the mouth is open by 0.")
    content = json.loads((tmp_path / "new" / "report.json").read_text())
    assert [entry["ok"] for entry in content["files"]] == [True, True]
    assert set(content["files"][1]) == {"file", "kind", "findings", "measures", "attribute", "ok"}
    assert set(content["files"][1]["findings"][0]) == {"level", "code", "message", "fix", "frames"}
    assert {"width", "height", "face_height", "yaw", "pitch", "roll", "sharpness", "headroom", "lips"} <= set(
        content["files"][0]["measures"])

    result = durian("check", files / "good.png", files / "words.mp4", "--json", tmp_path / "report.json")
    assert result.exit_code == 1 and "  error unreadable: not a readable video" in result.stdout
    assert [entry["ok"] for entry in json.loads((tmp_path / "report.json").read_text())["files"]] == [True, False]


def test_a_photo_that_is_to_give_an_attribute_is_checked_for_it(annotator, files, tmp_path, monkeypatch):
    people = {"bare": sample_person("validation", 0).without("glasses", "hat"),
              "seen": sample_person("validation", 2, require=("glasses",))}
    for name, person in people.items():
        write_image(tmp_path / f"{name}.png", render(person, sample_motion("validation", 0, 1), 512).frames[0])
    asked = [("beard", tmp_path / "bare.png"), ("glasses", tmp_path / "seen.png"), ("hair", tmp_path / "none.png"),
             ("glasses", tmp_path / "bare.png")]
    bare, seen, none, eyes = check_files([], annotator, asked)
    assert only(eyes, "no-attribute").level == "error" and "found: hair" in only(eyes, "no-attribute").message
    finding = only(bare, "unsure-attribute")
    assert finding.level == "warning" and "little evidence of beard was found" in finding.message
    assert finding.fix == "choose another photo, or look at the result" and str(tmp_path) not in finding.message
    assert "unsure-attribute" not in codes(seen) and codes(none) == {"unreadable"}
    assert describe(seen).startswith(f"{tmp_path}/seen.png: photo to take glasses from, 512 x 512")
    assert none.findings[0].fix == "correct the path"

    def nothing(path, known, annotator):
        raise InputError(f"{path}: no hat found on the person (found: hair); choose a photo that shows it clearly")
    monkeypatch.setattr("durian_jax.prepare.check.annotate_image", nothing)
    result = durian("check", "-a", f"hat={tmp_path}/seen.png")
    assert result.exit_code == 1
    assert "  error no-attribute: no hat found on the person (found: hair); choose a photo that" in result.stdout
    for wrong, words in (("scarf=a.png", "scarf"), ("hat", "expected KIND=PHOTO")):
        result = durian("check", "-a", wrong)
        assert result.exit_code == 2 and words in result.stderr


def test_command_line_errors(files, tmp_path, monkeypatch):
    result = durian("check")
    assert result.exit_code == 2 and "or --attribute KIND=PHOTO; got nothing to check" in result.stderr
    result = durian("check", files / "good.png", "--json", tmp_path / "report.txt")
    assert result.exit_code == 2 and "expected a name ending in .json" in result.stderr
    monkeypatch.setenv("DURIAN_ANNOTATOR", str(tmp_path / "models"))
    result = durian("check", files / "good.png")
    assert result.exit_code == 2 and result.stderr.startswith("durian: error: ")


def test_describe_names_frames():
    findings = (Finding("error", "faceless-frames", "no face", "cut them out", ((3, 5), (9, 10))),
                Finding("warning", "first-frame-not-neutral", "open", "begin later", ((0, 1),)))
    text = describe(Report("a.mp4", "video", findings, {}))
    assert text.splitlines() == ["a.mp4: video", "  error faceless-frames in frames 3-4, 9: no face; cut them out",
                                 "  warning first-frame-not-neutral in frame 0: open; begin later"]


# --- real portraits -----------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "expected"), [
    ("clips/lp_d0.mp4", set()), ("clips/lp_d20.mp4", set()), ("clips/retalk_1.mp4", set()),
    ("clips/lp_s13.mp4", set()), ("clips/moore_1.mp4", {"faceless-frames", "cut-inside"}),
    ("clips/moore_2.mp4", {"first-frame-not-neutral"}),  # its flash is not a cut
    ("clips/retalk_3.mp4", {"first-frame-not-neutral"}),
    ("images/hallo_5.jpg", set()), ("images/lp_d8.jpg", set()), ("images/lp_s12.jpg", set()),
    ("images/lp_s0.jpg", set()), ("images/hallo_3.jpg", {"no-headroom"}), ("images/moore_1.png", {"no-headroom"}),
    ("images/lp_s10.jpg", {"extreme-pose"}), ("images/lp_d19.jpg", {"not-neutral"}),
    ("images/lp_s23.jpg", {"no-face"}),
])
def test_real_portraits(portraits, annotator, name, expected):
    report = check_files([portraits / name], annotator)[0]
    assert codes(report) == expected, describe(report)


@pytest.mark.parametrize(("name", "expected"), [
    ("sixfaces.jpg", {"several-faces"}), ("smallface.jpg", set()), ("upsidedown.jpg", {"not-upright"}),
    ("dark_short_hair.jpg", set()), ("forehead.jpg", set()), ("phantom.mp4", set()), ("hdr_hlg.mov", set()),
    ("anamorphic.mp4", set()), ("vfr.mp4", set()), ("trimmed.mov", {"first-frame-not-neutral"}),
    ("cover.mp3", {"unreadable"}),
])
def test_files_of_phones_and_editors(portraits, annotator, name, expected):
    report = check_files([portraits / "cases" / name], annotator)[0]
    assert codes(report) == expected, describe(report)
    assert ("HDR colours (HLG)" in describe(report)) == (name == "hdr_hlg.mov")


@pytest.mark.parametrize("name", ["lp_d8.jpg", "lp_s12.jpg", "lp_s42.jpg", "moore_2.png", "lp_s9.jpg"])
def test_covered_mouths_of_real_people(portraits, annotator, tmp_path, name):
    image = read_image(portraits / "images" / name)
    keypoints = annotator.faces(image)[0][MEDIAPIPE_INDICES] / np.array([*image.shape[1::-1], 1], np.float32)
    points = keypoints[:, :2] * image.shape[1::-1]
    unit = float(np.ptp(points[GROUPS["contour"], 1]))
    mouth = points[GROUPS["outer_lips"]].mean(axis=0)
    jaw = points[[POSITION[i] for i in (132, 172, 150, 152, 379, 397, 361)]]
    for colour, shape in (((25, 25, 28), "round"), ((150, 190, 215), "mask"), (None, "round")):
        cover = np.zeros(image.shape[:2], np.uint8)
        if shape == "mask":
            cv2.fillPoly(cover, [np.rint([*jaw, points[POSITION[195]]]).astype(np.int32)], 1)
        else:
            cv2.ellipse(cover, (tuple(map(float, mouth)), (0.5 * unit, 0.38 * unit), 0), 1, -1)
        if colour is None:  # a fist has the colour of the cheek
            x, y = (0.5 * points[POSITION[145]] + 0.5 * points[POSITION[61]]).astype(int)
            colour = np.median(image[y - 3:y + 4, x - 3:x + 4].reshape(-1, 3), axis=0)
        noise = np.random.default_rng(0).normal(0, 5, image.shape)
        covered = np.where(cover[..., None] > 0, np.clip(colour + noise, 0, 255), image).astype(np.uint8)
        report = report_on_photo(covered, annotator, tmp_path)
        assert "occluded-mouth" in codes(report), (shape, describe(report))


@pytest.mark.parametrize(("name", "kind"), [("a.HEIC", "photo"), ("a.jpg", "photo"), ("a.MOV", "video")])
def test_a_name_tells_photos_from_videos(name, kind):
    assert check._kind(Path(name)) == kind
