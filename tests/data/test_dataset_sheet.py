"""The page of a dataset and its pictures, and the commands `durian sheet` and `durian masks`."""

import json
import math
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from durian_jax.data import RecordedClips, synthesize
from durian_jax.data import dataset_writer as records
from durian_jax.data.clip_record import QUALITIES, read_record, write_record
from durian_jax.data.corrections import keep_correction
from durian_jax.data.dataset_sheet import (
    COLUMNS,
    FILLS,
    LINES,
    SIDE,
    STRENGTH,
    VIEW,
    dataset_sheet,
    draw_masks,
    draw_strip,
    shown_frames,
)
from durian_jax.errors import InputError
from durian_jax.faces.clip import Driver, attribute_bit, layer_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import read_image, write_image
from tests.helpers.data import FRAMES, HOSTILE, MARGIN, SIZE, Page, column, durian

# --- the page -----------------------------------------------------------------------------------------

def test_the_page_lists_every_clip(dataset, no_keypoints):
    path = dataset_sheet(dataset)
    assert path == dataset / "sheet.html"
    page = Page(path)
    names = [body["cells"][column("name")] for body in page.clips]
    assert names == ["clip-0", HOSTILE, "clip-2", "clip-3", "clip-4", "clip-5"]
    about = json.loads((dataset / "dataset.json").read_text())
    for text in ("portrait_clips-1", "a &amp; b", "fps 25.0", f"<dd>{about['clips_with']['hair']}</dd>"):
        assert text in page.text
    assert f"{about['statistics']['yaw']['p95']:.3g}" in page.text
    third = page.clips[3]["cells"]
    assert third[column("video")] == "talk 3.mp4 300–310, every 2" and third[column("identity")] == "person-3"
    assert third[column("frames")] == "6" and third[column("hair %")] == "–"
    assert page.clips[0]["words"] == "clip-0 person-0 videos/talk 0.mp4 hair glasses"


def test_sort_keys_of_the_rows(dataset, no_keypoints):
    source, page = RecordedClips(dataset), Page(dataset_sheet(dataset))
    for i, body in enumerate(page.clips):
        keys = {entry.name: float(key) for entry, key in zip(COLUMNS, body["keys"], strict=True)
                if entry.kind == "number"}
        outline = source.outline(i)
        for name, value in zip(QUALITIES, outline.quality, strict=True):
            np.testing.assert_allclose(keys[name.replace("_", " ")], value, rtol=1e-6)
        for kind, area in zip(ATTRIBUTE_KINDS, outline.areas.mean(0), strict=True):
            np.testing.assert_allclose(keys[f"{kind} %"], area or np.nan, rtol=1e-6)
        np.testing.assert_allclose([keys[f"{name} °"] for name in ("yaw", "pitch", "roll")],
                                   np.ptp(outline.poses, 0), rtol=1e-4, atol=1e-5)
        assert (keys["#"], keys["frames"]) == (i, FRAMES)
    assert page.clips[2]["cells"][column("sharpness")] == "–" and math.isnan(
        float(page.clips[2]["keys"][column("sharpness")]))


def test_hostile_names_are_escaped(dataset, no_keypoints):
    (dataset / "rejected.jsonl").write_text(json.dumps({"file": HOSTILE, "reason": HOSTILE + "\udcff"}) + "\n")
    (dataset / "report.json").write_text(json.dumps({"warnings": [HOSTILE]}))
    page = Page(dataset_sheet(dataset))
    assert page.tags.count("script") == 1 and "<script>alert" not in page.text
    assert not re.search(r'(src|href)="(?!sheet_pictures/\d{5}\.jpg")', page.text)  # no external links
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


def test_the_certainty_of_masks_is_shown(dataset, no_keypoints):
    report = {"files": [{"file": "talk.mp4", "clips": [
        {"name": "clip-0", "least_certain": "hat", "certainty": 0.25}, {"name": HOSTILE, "least_certain": "hair"},
        "no clip", {"name": "clip-3", "least_certain": "<b>", "certainty": 0.5}]}]}
    (dataset / "report.json").write_text(json.dumps(report))
    clip = RecordedClips(dataset).open(3)
    keep_correction(dataset, clip, np.zeros((len(clip), clip.height, clip.width), np.uint8), ["hair"])
    page = dataset_sheet(dataset).read_text()
    assert 'data-sort="0.25" title="least certain: hat">0.25 hat<' in page
    assert page.count("corrected<") == 1 and "<b>" not in page


def test_rejected_files_and_warnings_are_shown(dataset, no_keypoints):
    lines = [{"file": "a.mp4", "reason": "no face " * 40}, {"file": "b.mp4", "clip": "b#2", "reason": "blurred"}]
    (dataset / "rejected.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"file": "c.m')
    (dataset / "report.json").write_text(json.dumps({
        "warnings": ["few hats"], "files": [{"file": "d.mp4", "warnings": ["dark"]}, {"file": "e.mp4"}]}))
    page = Page(dataset_sheet(dataset))
    assert [body["cells"] for body in page.rejected] == [
        ["a.mp4", "", "no face " * 40], ["b.mp4", "b#2", "blurred"], ["", "", '{"file": "c.m']]
    assert "<dt>rejected</dt><dd>3</dd>" in page.text
    assert re.findall(r'<li class="error">(.*)</li>', page.text) == ["few hats", "d.mp4: dark"]
    (dataset / "rejected.jsonl").unlink()
    (dataset / "report.json").write_text("broken")
    page = Page(dataset_sheet(dataset))
    assert not page.rejected and "Rejected" not in page.text and "Warnings" not in page.text


def test_a_damaged_clip_is_shown_with_its_error(dataset, no_keypoints):
    page = Page(dataset_sheet(dataset))
    assert [bool(body["error"]) for body in page.clips] == [False] * 4 + [True, False]
    damaged = page.clips[4]
    assert "frames 0: expected a picture of (64, 64, 3), found undecodable bytes" in damaged["error"]
    assert damaged["picture"] is None and damaged["words"].endswith("damaged")
    assert damaged["cells"][column("name")] == "clip-4" and damaged["cells"][column("hair %")] != "–"
    # If a record cannot be opened, the page still shows the content of the index.
    shard = dataset / records.shard_name(2, 3)
    content, damaged = shard.read_bytes(), RecordedClips(dataset).open(5).compressed("frames", 1)[:64]
    shard.write_bytes(content.replace(damaged, bytes(64)))
    page = Page(dataset_sheet(dataset))
    assert page.clips[5]["error"] and page.clips[5]["cells"][column("identity")] == "person-5"
    assert page.clips[5]["cells"][column("video")] == "" and page.clips[3]["picture"]


def test_a_limited_page_elsewhere(dataset, tmp_path, no_keypoints):
    path = dataset_sheet(dataset, tmp_path / "new" / "a page.html", limit=3)
    page = Page(path)
    assert [body["cells"][0] for body in page.clips] == ["0", "2", "5"] and "3 of 6 clips" in page.text
    assert [body["picture"] for body in page.clips] == [f"a%20page_pictures/0000{i}.jpg" for i in (0, 2, 5)]
    pictures = tmp_path / "new" / "a page_pictures"
    dataset_sheet(dataset, path)
    assert len(list(pictures.iterdir())) == 5
    (pictures / "mine.jpg").touch()
    dataset_sheet(dataset, path, limit=1)  # deletes unused pictures of clips, but no other files
    assert sorted(entry.name for entry in pictures.iterdir()) == ["00000.jpg", "mine.jpg"]
    assert not (dataset / "sheet.html").exists()
    with pytest.raises(InputError, match="at least 1"):
        dataset_sheet(dataset, limit=0)
    with pytest.raises(InputError, match=r"ending in \.html"):
        dataset_sheet(dataset, tmp_path / "page.png")
    with pytest.raises(InputError, match="dataset.json"):
        dataset_sheet(tmp_path)


# --- its pictures -------------------------------------------------------------------------------------

def test_shown_frames():
    assert shown_frames(48) == [0, 16, 31, 47] and shown_frames(4) == [0, 1, 2, 3] and shown_frames(1) == [0]


def test_masks_are_tinted_and_outlined():
    frame = np.full((32, 32, 3), 100, np.uint8)
    field = np.zeros((32, 32), np.uint8)
    field[2:14, 2:14] |= attribute_bit("hair")
    field[8:20, 8:20] |= attribute_bit("hat")
    field[22:30, 22:30] |= layer_bit("mouth")
    drawn = draw_masks(frame, field)
    tint = lambda below, kind: below + STRENGTH * (np.array(FILLS[kind]) - below)
    np.testing.assert_allclose(drawn[5, 5], tint(100, "hair"), atol=0.5)
    np.testing.assert_allclose(drawn[17, 17], tint(100, "hat"), atol=0.5)
    np.testing.assert_allclose(drawn[10, 10], tint(tint(100, "hair"), "hat"), atol=0.5)  # hat above hair
    np.testing.assert_array_equal(drawn[2, 5], FILLS["hair"])
    np.testing.assert_array_equal(drawn[22, 25], LINES["mouth"])
    untouched = (field & ~np.uint8(layer_bit("mouth"))) == 0
    untouched[22:30, 22:30] = False
    assert (drawn[untouched] == 100).all() and (drawn[25, 25] == 100).all() and (frame == 100).all()
    framed = draw_masks(frame, field * 0, margin=4)
    assert (framed[4, 4:28] == VIEW).all() and (framed[27, 27] == VIEW).all() and (framed[3] == 100).all()
    assert (framed != 100).any(-1).sum() == 4 * 23
    colours = [*FILLS.values(), *LINES.values(), VIEW]
    assert min(np.abs(np.subtract(a, b)).max() for i, a in enumerate(colours) for b in colours[:i]) > 40


def test_pictures_show_frames_masks_and_keypoints(dataset, clips_with_margin):
    page = Page(dataset_sheet(dataset))
    picture = read_image(dataset / page.clips[0]["picture"]).astype(int)
    height, width = picture.shape[:2]
    side = height
    assert width == 3 * (4 * side + 3 * 2) + 2 * 12
    place = lambda group, number: picture[:, (start := group * (4 * side + 18) + number * (side + 2)):start + side]
    for number, frame in enumerate(shown_frames(FRAMES)):
        plain, masked, lines = (place(group, number) for group in range(3))
        scaled = cv2.resize(clips_with_margin[0].frames[frame], (side, side), interpolation=cv2.INTER_CUBIC).astype(int)
        assert np.abs(plain - scaled).mean() < 6  # JPEG
        for kind in ("hair", "glasses"):
            inside = cv2.resize(clips_with_margin[0].mask(kind)[frame].astype(np.uint8), (side, side),
                                interpolation=cv2.INTER_NEAREST_EXACT)
            # Exclude the outlines of the kind and of the view.
            inside = cv2.erode(inside, np.ones((7, 7), np.uint8), borderValue=0) > 0
            inside[:24] = False
            colour = 10 + 60 * ATTRIBUTE_KINDS.index(kind)
            expected = colour + STRENGTH * (np.array(FILLS[kind]) - colour)
            assert inside.sum() > 100 and np.abs(masked[inside].mean(0) - expected).max() < 3
            assert np.percentile(np.abs(masked[inside] - expected), 99) < 16
        edge = round(MARGIN * side / SIZE)
        assert np.abs(masked[side - edge - 1, side // 3:side // 2] - VIEW).mean() < 40
        assert lines.max() > 200 and np.median(lines) < 60
    assert len(list((dataset / "sheet_pictures").iterdir())) == 5  # no temporary files


def test_strips_show_the_driver(clips):
    driven = replace(clips[0], driver=Driver(clips[1].frames, clips[1].keypoints, "another"))
    bare, strip = (draw_strip(read_record(write_record(clip))) for clip in (clips[0], driven))
    assert strip.shape[1] - bare.shape[1] == 4 * SIDE + 3 * 2 + 12
    np.testing.assert_array_equal(strip[:, :bare.shape[1]], bare)
    shown = cv2.resize(clips[1].frames[0], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(strip[:, bare.shape[1] + 12:][:, :SIDE], shown)


# --- the command line ---------------------------------------------------------------------------------

def test_commands(tmp_path):
    data = tmp_path / "people"
    synthesize(data, "train", 2, 3, 64, workers=0)
    result = durian("sheet", data, "--limit", 1)
    assert result.exit_code == 0, result.output
    assert f"open {data}/sheet.html" in result.output and len(Page(data / "sheet.html").clips) == 1
    result = durian("sheet", data, "--batches", 2, "--size", 64, "--frames", 1, "--attributes", 2,
                    "--out", tmp_path / "b.png")
    assert result.exit_code == 0 and read_image(tmp_path / "b.png").shape[0] == 24 + 2 * 128 + 2 + 10
    result = durian("sheet", data, "--batches", 2, "--config", "svdp:tiny,stage=history", "--out", tmp_path / "c.png")
    # 128 px: the frames and their masks, the source, an attribute, regions and masks of the driver, history; source and
    # attribute in the driver's pose with their masks, in the clip and before.
    columns = (4, 4, 1, 1, 1, 1, 4, 4, 3, 3, 3, *[4] * 4, *[3] * 4)
    width = 2 * 10 + sum(count * 130 - 2 for count in columns) + 10 * (len(columns) - 1)
    assert result.exit_code == 0 and read_image(tmp_path / "c.png").shape == (24 + 2 * 130 - 2 + 10, width, 3)
    assert durian("masks", "export", data, "train-1", tmp_path / "m").output == f"{tmp_path}/m: masks of 3 frames\n"
    for kind in ("hair", "beard", "hat"):
        shutil.rmtree(tmp_path / "m" / kind)
    for path in (tmp_path / "m" / "glasses").iterdir():
        write_image(path, np.full((64, 64), 255, np.uint8))
    result = durian("masks", "replace", data, "train-1", tmp_path / "m")
    assert result.exit_code == 0 and result.output == f"{data}: train-1 has other masks of glasses\n"
    assert RecordedClips(data)[1].mask("glasses").all() and not RecordedClips(data)[0].mask("glasses").all()


@pytest.mark.parametrize(("arguments", "message"), [
    (("sheet", "{here}"), "dataset.json"),
    (("sheet", "{here}", "--batches", 2), "expected --out FILE.png"),
    (("sheet", "{here}", "--batches", 2, "--out", "{here}/x.html"), "expected a name ending in"),
    (("sheet", "{here}", "--batches", 2, "--limit", 2), "--limit: expected no --batches"),
    (("sheet", "{here}", "--size", 64), "--size: expected also --batches"),
    (("sheet", "{here}", "--config", "svdp:tiny"), "--config: expected also --batches"),
    (("sheet", "{here}", "--batches", 2, "--config", "svdp:tiny", "--size", 64), "--size: expected no --config"),
    (("masks", "export", "{here}", "a", "{here}/m"), "dataset.json"),
    (("masks", "replace", "{here}", "a", "{here}/m"), "dataset.json"),
])
def test_commands_report_mistakes(tmp_path, arguments, message):
    result = durian(*(str(argument).format(here=tmp_path) for argument in arguments))
    assert result.exit_code == 2 and result.stderr.startswith("durian: error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
