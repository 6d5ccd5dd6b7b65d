"""A dataset to look at: the page, its pictures, masks out and back in, and what training draws from it."""

import dataclasses
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.commands.main import main
from durian_jax.data import DataConfig, RecordedClips, SyntheticClips, synthesize
from durian_jax.data import dataset_sheet as sheet_module
from durian_jax.data import recorded_clips as records_module
from durian_jax.data.batch_sheet import batch_sheet
from durian_jax.data.clip_record import QUALITIES, Provenance, read_record, write_record
from durian_jax.data.dataset_sheet import COLUMNS, FILLS, LINES, STRENGTH, VIEW, dataset_sheet, draw_masks, shown_frames
from durian_jax.data.mask_files import export_masks, find_clip, replace_masks
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit, layer_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import read_image, write_image
from tests.helpers.faces import clip

FRAMES, SIZE, MARGIN = 6, 64, 8
HOSTILE = "<script>alert(1)</script>\"'&"
WORN = (("hair", "glasses"), ("hair", "beard", "hat"), ("hair",), ())


class Page(HTMLParser):
    """What a browser would find: the rows' words, cells and pictures, and every tag."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.tags, self.bodies, self._cell = path.read_text(), [], [], None
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "tbody" and "data-words" in attributes:
            self.bodies.append({"words": attributes["data-words"], "cells": [], "keys": [], "picture": None,
                                "error": ""})
        if self.bodies and tag == "td":
            self._cell = "cells" if "data-sort" in attributes else None
            if self._cell:
                self.bodies[-1]["keys"].append(attributes["data-sort"])
                self.bodies[-1]["cells"].append("")
        if self.bodies and tag == "span" and attributes.get("class") == "error":
            self._cell = "error"
        if self.bodies and tag == "img":
            assert attributes["loading"] == "lazy"
            self.bodies[-1]["picture"] = attributes["src"]

    def handle_endtag(self, tag):
        if tag in ("td", "span"):
            self._cell = None

    def handle_data(self, data):
        if self._cell == "cells":
            self.bodies[-1]["cells"][-1] += data
        elif self._cell == "error":
            self.bodies[-1]["error"] += data

    @property
    def clips(self):
        return [body for body in self.bodies if len(body["cells"]) == len(COLUMNS)]

    @property
    def rejected(self):
        return [body for body in self.bodies if len(body["cells"]) != len(COLUMNS)]


def column(name: str) -> int:
    return [entry.name for entry in COLUMNS].index(name)


def write_dataset(directory: Path, clips, provenances, damage=()) -> Path:
    """Shards of two clips each; the frames of clips in `damage` are cut out of their records."""
    def record(number):
        record = write_record(clips[number], "png", provenances[number])
        if number in damage:
            start = record.index(read_record(record).compressed("frames", 0))
            record = record[:start] + bytes(40) + record[start + 40:]
        return record

    directory = records_module.prepare_directory(directory)
    shards = [records_module.write_shard(directory / records_module.part_name(number), map(record, rows))
              for number, rows in enumerate(np.array_split(np.arange(len(clips)), -(-len(clips) // 2)))]
    records_module.finish_dataset(directory, shards, (SIZE, SIZE), clips[0].margin, {"source": "a & b", "settings": {
        "fps": 25.0}})
    return directory


@pytest.fixture(scope="module")
def clips():
    return [dataclasses.replace(clip(i, FRAMES, SIZE, WORN[i % 4]), margin=MARGIN) for i in range(6)]


@pytest.fixture
def dataset(tmp_path, clips):
    """Six clips with a margin: names to be escaped, measured qualities, unmeasured ones, a damaged record."""
    origins = [Provenance(f"clip-{i}", f"videos/talk {i}.mp4", 100 * i, 2,
                          {name: (i + 1) / (j + 2) for j, name in enumerate(QUALITIES)}) for i in range(6)]
    origins[1] = dataclasses.replace(origins[1], name=HOSTILE, video=HOSTILE)
    origins[2] = dataclasses.replace(origins[2], quality={})
    return write_dataset(tmp_path / "set", clips, origins, damage=[4])


@pytest.fixture
def no_keypoints(monkeypatch):
    """Pages without drawn keypoints, which cost most of the time."""
    monkeypatch.setattr(sheet_module, "keypoint_image", lambda points, h, w: np.zeros((len(points), h, w, 3)))


def durian(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


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


def test_what_rows_are_sorted_by(dataset, no_keypoints):
    source, page = RecordedClips(dataset), Page(dataset_sheet(dataset))
    for i, body in enumerate(page.clips):
        keys = {entry.name: float(key) for entry, key in zip(COLUMNS, body["keys"], strict=True)
                if entry.kind == "number"}  # all of them are numbers
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


def test_hostile_names_are_text(dataset, no_keypoints):
    (dataset / "rejected.jsonl").write_text(json.dumps({"file": HOSTILE, "reason": HOSTILE + "\udcff"}) + "\n")
    (dataset / "report.json").write_text(json.dumps({"warnings": [HOSTILE]}))
    page = Page(dataset_sheet(dataset))
    assert page.tags.count("script") == 1 and "<script>alert" not in page.text
    assert not re.search(r'(src|href)="(?!sheet_pictures/\d{5}\.jpg")', page.text)  # nothing from outside
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


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
    # A record that cannot even be opened: the index still knows it.
    shard = dataset / records_module.shard_name(2, 3)
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
    dataset_sheet(dataset, path, limit=1)  # pictures that no page shows go, others stay
    assert sorted(entry.name for entry in pictures.iterdir()) == ["00000.jpg", "mine.jpg"]
    assert not (dataset / "sheet.html").exists()
    with pytest.raises(InputError, match="at least 1"):
        dataset_sheet(dataset, limit=0)
    with pytest.raises(InputError, match=r"ending in \.html"):
        dataset_sheet(dataset, tmp_path / "page.png")
    with pytest.raises(InputError, match="dataset.json"):
        dataset_sheet(tmp_path)


# --- its pictures -------------------------------------------------------------------------------------

def test_which_frames_are_shown():
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
    np.testing.assert_allclose(drawn[10, 10], tint(tint(100, "hair"), "hat"), atol=0.5)  # hats are worn on top
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


def test_pictures_show_frames_masks_and_keypoints(dataset, clips):
    page = Page(dataset_sheet(dataset))
    picture = read_image(dataset / page.clips[0]["picture"]).astype(int)
    height, width = picture.shape[:2]
    side = height
    assert width == 3 * (4 * side + 3 * 2) + 2 * 12
    place = lambda group, number: picture[:, (start := group * (4 * side + 18) + number * (side + 2)):start + side]
    for number, frame in enumerate(shown_frames(FRAMES)):
        plain, masked, lines = (place(group, number) for group in range(3))
        scaled = cv2.resize(clips[0].frames[frame], (side, side), interpolation=cv2.INTER_CUBIC).astype(int)
        assert np.abs(plain - scaled).mean() < 6  # JPEG
        for kind in ("hair", "glasses"):
            inside = cv2.resize(clips[0].mask(kind)[frame].astype(np.uint8), (side, side),
                                interpolation=cv2.INTER_NEAREST_EXACT)
            # Away from its outline and from the view's.
            inside = cv2.erode(inside, np.ones((7, 7), np.uint8), borderValue=0) > 0
            inside[:24] = False
            colour = 10 + 60 * ATTRIBUTE_KINDS.index(kind)
            expected = colour + STRENGTH * (np.array(FILLS[kind]) - colour)
            assert inside.sum() > 100 and np.abs(masked[inside].mean(0) - expected).max() < 3
            assert np.percentile(np.abs(masked[inside] - expected), 99) < 16
        edge = round(MARGIN * side / SIZE)
        assert np.abs(masked[side - edge - 1, side // 3:side // 2] - VIEW).mean() < 40
        assert lines.max() > 200 and np.median(lines) < 60
    assert len(list((dataset / "sheet_pictures").iterdir())) == 5  # no temporary file either


# --- masks --------------------------------------------------------------------------------------------

def shard_bytes(dataset: Path) -> dict:
    return {path.name: path.read_bytes() for path in dataset.glob("portrait_clips-*")}


def test_exported_masks_come_back_unchanged(dataset, clips, tmp_path):
    folder = tmp_path / "paint"
    assert export_masks(dataset, "clip-3", folder) == FRAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(("frames", *ATTRIBUTE_KINDS))
    for i in range(FRAMES):
        np.testing.assert_array_equal(read_image(folder / "frames" / f"{i:05d}.png"), clips[3].frames[i])
    assert not read_image(folder / "hat" / "00000.png").any()
    before = shard_bytes(dataset)
    assert replace_masks(dataset, "clip-3", folder)["replaced"] == list(ATTRIBUTE_KINDS)
    assert shard_bytes(dataset).keys() == before.keys()
    np.testing.assert_array_equal(RecordedClips(dataset)[3].masks, clips[3].masks)
    export_masks(dataset, "clip-0", tmp_path / "other")
    np.testing.assert_array_equal(read_image(tmp_path / "other" / "glasses" / "00002.png")[..., 0] > 0,
                                  clips[0].mask("glasses")[2])


def test_replacing_masks_changes_one_kind_of_one_clip(dataset, clips, tmp_path, no_keypoints):
    drawn = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    drawn[:, 20:52, 10:40] = 255  # over the hair as well
    for i, mask in enumerate(drawn):
        write_image(tmp_path / "paint" / "glasses" / f"{i:05d}.png", mask)
    (tmp_path / "paint" / "frames").mkdir()
    (tmp_path / "paint" / ".thumbnails").mkdir()
    (tmp_path / "paint" / "glasses" / "notes.txt").touch()
    before, counts = shard_bytes(dataset), json.loads((dataset / "dataset.json").read_text())
    old = RecordedClips(dataset)
    about = replace_masks(dataset, "clip-2", tmp_path / "paint")
    assert about["replaced"] == ["glasses"]

    after = shard_bytes(dataset)
    assert [after[name] != before[name] for name in sorted(before)] == [False, True, False]
    source, bit = RecordedClips(dataset), attribute_bit("glasses")
    np.testing.assert_array_equal(source[2].mask("glasses"), drawn > 0)
    np.testing.assert_array_equal(source[2].masks & ~np.uint8(bit), clips[2].masks & ~np.uint8(bit))
    assert source.open(2).compressed("frames", 1) == old.open(2).compressed("frames", 1)
    for i in (0, 1, 3, 5):
        np.testing.assert_array_equal(source[i].masks, clips[i].masks)
        assert source.record(i) == old.record(i)
    # Index, counts and statistics follow: the share is that of the view.
    view = (drawn[0, MARGIN:-MARGIN, MARGIN:-MARGIN] > 0).mean()
    np.testing.assert_allclose(source.outline(2).areas[:, 1], view, rtol=1e-6)
    now = json.loads((dataset / "dataset.json").read_text())
    assert now["clips_with"]["glasses"] == counts["clips_with"]["glasses"] + 1
    assert now["clips_with"]["hair"] == counts["clips_with"]["hair"] and now["source"] == "a & b"
    assert now["statistics"]["glasses_area"]["p95"] == pytest.approx(view, abs=1e-4)
    assert counts["statistics"]["glasses_area"]["p95"] < view / 2
    assert Page(dataset_sheet(dataset)).clips[2]["cells"][column("glasses %")] == f"{100 * view:.1f}"


def test_painted_masks_may_be_grey_or_transparent(dataset, tmp_path):
    grey = np.linspace(0, 255, SIZE).astype(np.uint8)[None].repeat(SIZE, 0)
    see_through = np.full((SIZE, SIZE, 4), 255, np.uint8)
    see_through[:, 10:, 3] = 0
    for i in range(FRAMES):
        write_image(tmp_path / "paint" / "hat" / f"{i:05d}.png", grey)
    cv2.imwrite(str(tmp_path / "paint" / "hat" / "00001.png"), see_through)
    replace_masks(dataset, "clip-0", tmp_path / "paint")
    hat = RecordedClips(dataset)[0].mask("hat")
    np.testing.assert_array_equal(hat[0], grey > 127)
    assert hat[1, :, :10].all() and not hat[1, :, 10:].any()


def test_mistakes_in_masks_are_named(dataset, tmp_path):
    paint = tmp_path / "paint"

    def refused(message, name="clip-0"):
        with pytest.raises(InputError, match=message):
            replace_masks(dataset, name, paint)

    before = shard_bytes(dataset)
    refused("found nothing; write one with `durian masks export`")
    export_masks(dataset, "clip-0", paint)
    with pytest.raises(InputError, match="may have been painted on"):
        export_masks(dataset, "clip-0", paint)
    with pytest.raises(InputError, match="did you mean 'clip-0'"):
        export_masks(dataset, "clip0", tmp_path / "other")
    refused("no clip has the name 'clip_5'; did you mean 'clip-5' or", "clip_5")
    refused("`durian sheet` lists the names", "zzz")
    (paint / "moustache").mkdir()
    refused("expected folders named hair, glasses, beard, hat, found moustache")
    (paint / "moustache").rmdir()
    write_image(paint / "hat" / "00003.png", np.zeros((32, SIZE), np.uint8))
    refused(r"hat/00003\.png: expected 64 x 64 px .* found 64 x 32")
    (paint / "hat" / "00003.png").write_bytes(b"no picture")
    refused(r"hat/00003\.png: expected a picture")
    (paint / "hat" / "00003.png").unlink()
    (paint / "hat" / "00005.png").unlink()
    refused(r"each of the clip's 6 frames, found none for 00003\.png, 00005\.png; add them")
    shutil.rmtree(paint / "hat")
    write_image(paint / "beard" / "00006.png", np.zeros((SIZE, SIZE), np.uint8))
    refused(r"found also 00006\.png; are these the masks of another clip")
    for kind in ATTRIBUTE_KINDS:
        shutil.rmtree(paint / kind, ignore_errors=True)
    refused("found none; rename")
    with pytest.raises(InputError, match="the record is damaged"):
        export_masks(dataset, "clip-4", tmp_path / "other")
    assert shard_bytes(dataset) == before and not (tmp_path / "other").exists()


def test_names_that_are_not_unique_are_refused(tmp_path, clips):
    write_dataset(tmp_path, clips[:2], [Provenance("twice"), Provenance("twice")])
    with pytest.raises(InputError, match="2 clips have the name 'twice'"):
        find_clip(RecordedClips(tmp_path), "twice")


# --- batches ------------------------------------------------------------------------------------------

def test_the_batch_sheet_shows_what_the_model_is_given():
    source, count, size = SyntheticClips("train", 4, 5, 64, fps=5), 3, 64
    config = DataConfig(image_size=size, frames=2, absent_probability=0.0, augment_probability=0.0)
    sheet = batch_sheet(source, config, 1, count)
    side, gap, wide = 2 * size, 2, 10  # small pictures are drawn twice as large
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * wide + 8 * side + 2 * gap + 5 * wide
    assert sheet.shape[0] == 24 + count * side + (count - 1) * gap + wide
    np.testing.assert_array_equal(sheet, batch_sheet(source, config, 1, count))
    np.testing.assert_array_equal(sheet[:150], batch_sheet(source, config, 1, 2)[:150])  # the same run's first samples
    assert (sheet != batch_sheet(source, config, 2, count)).any()
    assert (sheet[:24] < 100).any()  # captions
    starts = wide + np.array([0, 2 * side + gap + wide, *(4 * side + 2 * (gap + wide) + np.arange(4) * (side + wide))])
    for row in range(count):
        y = 24 + row * (side + gap)
        frame, keypoints, portrait, region, attribute, mask = (
            sheet[y:y + side, x:x + side].astype(int) for x in starts)
        for picture, shown in ((portrait, region < 128), (attribute, mask > 128)):
            assert set(np.unique(shown)) == {False, True}
            assert np.abs(picture[~shown] - 128).max() <= 1  # mid grey
            assert (np.abs(picture[shown] - 128).max(-1) > 1).mean() > 0.8
        assert {*np.unique(region), *np.unique(mask)} == {0, 255}
        assert np.median(keypoints) == 0 and keypoints.max() > 200 and frame.std() > 20


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
    (("masks", "export", "{here}", "a", "{here}/m"), "dataset.json"),
    (("masks", "replace", "{here}", "a", "{here}/m"), "dataset.json"),
])
def test_commands_name_the_mistake(tmp_path, arguments, message):
    result = durian(*(str(argument).format(here=tmp_path) for argument in arguments))
    assert result.exit_code == 2 and result.stderr.startswith("durian: error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
