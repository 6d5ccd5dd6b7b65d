"""Export of masks and import of edited masks."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from durian_jax.data import RecordedClips
from durian_jax.data.clip_record import Provenance
from durian_jax.data.dataset_sheet import dataset_sheet
from durian_jax.data.mask_files import export_masks, find_clip, replace_masks
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import read_image, write_image
from tests.helpers.data import FRAMES, MARGIN, SIZE, Page, column, write_dataset


def shard_bytes(dataset: Path) -> dict:
    return {path.name: path.read_bytes() for path in dataset.glob("portrait_clips-*")}


def test_exported_masks_round_trip(dataset, clips_with_margin, tmp_path):
    folder = tmp_path / "paint"
    assert export_masks(dataset, "clip-3", folder) == FRAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(("frames", *ATTRIBUTE_KINDS))
    for i in range(FRAMES):
        np.testing.assert_array_equal(read_image(folder / "frames" / f"{i:05d}.png"), clips_with_margin[3].frames[i])
    assert not read_image(folder / "hat" / "00000.png").any()
    before = shard_bytes(dataset)
    assert replace_masks(dataset, "clip-3", folder)["replaced"] == list(ATTRIBUTE_KINDS)
    assert shard_bytes(dataset).keys() == before.keys()
    np.testing.assert_array_equal(RecordedClips(dataset)[3].masks, clips_with_margin[3].masks)
    export_masks(dataset, "clip-0", tmp_path / "other")
    np.testing.assert_array_equal(read_image(tmp_path / "other" / "glasses" / "00002.png")[..., 0] > 0,
                                  clips_with_margin[0].mask("glasses")[2])


def test_replacing_masks_changes_one_kind_of_one_clip(dataset, clips_with_margin, tmp_path, no_keypoints):
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
    np.testing.assert_array_equal(source[2].masks & ~np.uint8(bit), clips_with_margin[2].masks & ~np.uint8(bit))
    assert source.open(2).compressed("frames", 1) == old.open(2).compressed("frames", 1)
    for i in (0, 1, 3, 5):
        np.testing.assert_array_equal(source[i].masks, clips_with_margin[i].masks)
        assert source.record(i) == old.record(i)
    # Index, counts and statistics are updated. Areas are shares of the view, without margin.
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


def test_mistakes_in_masks_are_reported(dataset, tmp_path):
    paint = tmp_path / "paint"

    def refused(message, name="clip-0"):
        with pytest.raises(InputError, match=message):
            replace_masks(dataset, name, paint)

    before = shard_bytes(dataset)
    refused("found nothing; write one with `durian masks export`")
    export_masks(dataset, "clip-0", paint)
    with pytest.raises(InputError, match="may be edited masks"):
        export_masks(dataset, "clip-0", paint)
    with pytest.raises(InputError, match="did you mean 'clip-0'"):
        export_masks(dataset, "clip0", tmp_path / "other")
    refused("no clip has the name 'clip_5'; did you mean 'clip-5' or", "clip_5")
    refused("`durian sheet` lists the names", "zzz")
    (paint / "moustache").mkdir()
    refused("expected folders named hair, glasses, beard, hat, found moustache")
    (paint / "moustache").rmdir()
    write_image(paint / "hat" / "00003.png", np.zeros((32, SIZE), np.uint8))
    refused(r"hat/00003\.png: expected 64 x 64 px, .* found 64 x 32")
    (paint / "hat" / "00003.png").write_bytes(b"no picture")
    refused(r"hat/00003\.png: expected a picture")
    (paint / "hat" / "00003.png").unlink()
    (paint / "hat" / "00005.png").unlink()
    refused(r"each of the clip's 6 frames, found none for 00003\.png, 00005\.png; add them")
    shutil.rmtree(paint / "hat")
    write_image(paint / "beard" / "00006.png", np.zeros((SIZE, SIZE), np.uint8))
    refused(r"found also 00006\.png; remove these files, or check whether the masks belong to another clip")
    for kind in ATTRIBUTE_KINDS:
        shutil.rmtree(paint / kind, ignore_errors=True)
    refused("found none; name each folder after its kind")
    with pytest.raises(InputError, match="the record is damaged"):
        export_masks(dataset, "clip-4", tmp_path / "other")
    assert shard_bytes(dataset) == before and not (tmp_path / "other").exists()


def test_names_that_are_not_unique_are_refused(tmp_path, clips_with_margin):
    write_dataset(tmp_path, clips_with_margin[:2], [Provenance("twice"), Provenance("twice")])
    with pytest.raises(InputError, match="expected one clip with the name 'twice', found 2"):
        find_clip(RecordedClips(tmp_path), "twice")
