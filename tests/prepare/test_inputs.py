"""Inputs of `durian prepare`: files, data sets, manifests and the names of videos."""

import json
import os
from collections.abc import Iterator

import pytest

from durian_jax.errors import InputError
from durian_jax.prepare.inputs import LAYOUTS, VideoInput, find_inputs
from durian_jax.prepare.manifests import read_manifest
from tests.helpers.prepare import touch


def numbered(first, last, pattern="{:08d}.png"):
    return [pattern.format(i) for i in range(first, last)]


def summary(videos, root):
    """Return {path below root: (name, identity)}."""
    return {str(video.path.relative_to(root)): (video.name, video.identity) for video in videos}


# --- plain files --------------------------------------------------------------------------------------

def test_every_visible_file_of_a_folder_counts(tmp_path):
    touch(tmp_path, "b.mp4", "a.mov", "deep/er/c.webm", "notes.txt", ".hidden.mp4", ".git/d.mp4")
    assert summary(find_inputs([tmp_path]), tmp_path) == {
        "a.mov": ("a", "a"), "b.mp4": ("b", "b"), "notes.txt": ("notes.txt", "notes.txt"),
        "deep/er/c.webm": ("c", "c")}
    for video in find_inputs([tmp_path]):
        assert video.path.is_absolute()
        assert (video.start, video.end, video.labels, video.pictures) == (None, None, None, "*")


def test_files_folders_and_patterns_name_a_video_once(tmp_path, monkeypatch):
    touch(tmp_path, "x/a.mp4", "x/b.mp4", "x/c.txt", "y/[1].mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "x/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert list(summary(find_inputs(["x/b.mp4", "x/*.mp4", tmp_path / "x"]), tmp_path)) == [
        "x/b.mp4", "x/a.mp4", "x/c.txt"]
    assert list(summary(find_inputs(["*/"]), tmp_path)) == ["x/a.mp4", "x/b.mp4", "x/c.txt", "y/[1].mp4"]
    assert list(summary(find_inputs(["**/*.mp4"]), tmp_path)) == ["link.mp4", "x/b.mp4", "y/[1].mp4"]
    assert list(summary(find_inputs(["y/[1].mp4"]), tmp_path)) == ["y/[1].mp4"]


def test_linked_folders_are_searched_once(tmp_path):
    touch(tmp_path, "store/a.mp4", "data/b.mp4")
    (tmp_path / "data/linked").symlink_to(tmp_path / "store")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    assert list(summary(find_inputs([tmp_path / "data"]), tmp_path)) == ["data/b.mp4", "data/linked/a.mp4"]


def test_inputs_that_name_nothing_are_refused(tmp_path):
    touch(tmp_path, "empty/.hidden", "info/celebvtext_info.json")
    for given, words in {"none.mp4": "found nothing", "*.mp4": "found nothing", "none.csv": "found nothing",
                         "empty": "found no file", "info": "found no file"}.items():
        with pytest.raises(InputError, match=words) as error:
            find_inputs([tmp_path / given])
        assert str(tmp_path / given) in str(error.value)
    with pytest.raises(InputError, match="expected one of auto, files, vfhq, celebv-text, nersemble, got 'VFHQ'"):
        find_inputs([tmp_path], "VFHQ")


def test_addresses_of_files_are_paths_and_others_are_refused(tmp_path):
    touch(tmp_path, "a b.mp4", "c.mp4")
    (tmp_path / "list.csv").write_text(f"path\n{(tmp_path / 'a b.mp4').as_uri()}\n")
    for given in ((tmp_path / "a b.mp4").as_uri(), tmp_path / "list.csv"):
        assert list(summary(find_inputs([given]), tmp_path)) == ["a b.mp4"]
    (tmp_path / "far.csv").write_text("path\nc.mp4\nhttps://example.org/a.mp4\n")
    for given, place in (("https://example.org/a.mp4", ""), (tmp_path / "far.csv", "far.csv, line 3: ")):
        with pytest.raises(InputError, match=f"{place}https://example.org/a.mp4: .*, found an address; download it"):
            find_inputs([given])


def test_an_unreadable_folder_is_an_error_rather_than_a_gap(tmp_path, monkeypatch):
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"locked: cannot be read \(Permission denied\)"):
        find_inputs([tmp_path])


def test_a_folder_of_numbered_pictures_is_one_video(tmp_path):
    touch(tmp_path, *(f"alice/{name}" for name in numbered(0, 8)), "alice/readme.txt", "alice/.DS_Store",
          *(f"few/{name}" for name in numbered(0, 7)),
          *(f"named/{name}" for name in numbered(0, 8)), "named/portrait.png",
          *(f"film/{name}" for name in numbered(0, 8)), "film/a.mp4")
    found = summary(find_inputs([tmp_path]), tmp_path)
    assert found["alice"] == ("alice", "alice") and "alice/readme.txt" in found
    assert not any(path.startswith("alice/0") for path in found)
    for folder, count in {"few": 7, "named": 9, "film": 9}.items():
        assert folder not in found
        assert sum(path.startswith(f"{folder}/") for path in found) == count
    assert summary(find_inputs([tmp_path / "alice"]), tmp_path)["alice"] == ("alice", "alice")


# --- names --------------------------------------------------------------------------------------------

def test_equal_stems_are_extended_by_folders(tmp_path):
    touch(tmp_path, "x/one/talk.mp4", "y/one/talk.mp4", "y/two/talk.mp4", "y/two/song.mp4", "y/two/song.txt")
    assert summary(find_inputs([tmp_path]), tmp_path) == {
        "x/one/talk.mp4": ("x_one_talk",) * 2, "y/one/talk.mp4": ("y_one_talk",) * 2,
        "y/two/talk.mp4": ("two_talk",) * 2, "y/two/song.mp4": ("song",) * 2, "y/two/song.txt": ("song.txt",) * 2}


def test_names_are_safe_unique_and_stable(tmp_path):
    touch(tmp_path, "a b.mp4", "a_b.mp4", "a*b.mp4", "c/d.mp4", "c_d.mp4", "e/d.mp4", "q.mp4", "q.mov",
          "x" * 200 + "1.mp4", "x" * 200 + "2.mp4", "ü@ß.mp4", "é" * 120 + ".mp4")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.mp4", os.O_CREAT))
    found = find_inputs([tmp_path])
    names = [video.name for video in found]
    assert len(set(names)) == len(names) == 13
    for name in names:
        assert all(letter.isalnum() or letter in "_.+-" for letter in name) and not name.startswith(".")
        assert len(name.encode()) <= 120
    assert "ü_ß" in names and "c_d" in names
    shuffled = find_inputs([video.path for video in found[::-1]])
    assert {video.path: video.name for video in shuffled} == {video.path: video.name for video in found}


# --- data sets ----------------------------------------------------------------------------------------

VFHQ = ["Clip+--rKDzyFQdw+P0+C0+F1537-1825", "Clip+--rKDzyFQdw+P0+C1+F2000-2100", "Clip+a+P7+b_+P1+C2+F10-20"]


def test_vfhq(tmp_path):
    touch(tmp_path, *(f"{VFHQ[0]}/{name}" for name in numbered(0, 3)), f"{VFHQ[1]}.mp4",
          *(f"sub/{VFHQ[2]}/{name}" for name in numbered(0, 9)), "sub/other.mp4")
    expected = {VFHQ[0]: (VFHQ[0], "--rKDzyFQdw+P0"), f"{VFHQ[1]}.mp4": (VFHQ[1], "--rKDzyFQdw+P0"),
                f"sub/{VFHQ[2]}": (VFHQ[2], "a+P7+b_+P1"), "sub/other.mp4": ("other", "other")}
    for layout in ("auto", "vfhq"):
        assert summary(find_inputs([tmp_path], layout), tmp_path) == expected
    assert summary(find_inputs([tmp_path / VFHQ[0]]), tmp_path) == {VFHQ[0]: expected[VFHQ[0]]}
    plain = summary(find_inputs([tmp_path], "files"), tmp_path)
    assert plain[f"{VFHQ[1]}.mp4"] == (VFHQ[1], VFHQ[1])
    assert f"{VFHQ[0]}/00000000.png" in plain  # three pictures are only a video if the folder's name says so


def test_celebv_text(tmp_path):
    clips = ["0-5BrmyFsYM_0", "0-5BrmyFsYM_12", "_a-_4567890_3"]
    touch(tmp_path, *(f"set/processed/{clip}.mp4" for clip in clips), "set/processed/talk.mp4")
    expected = {f"set/processed/{clip}.mp4": (clip, clip[:11]) for clip in clips}
    expected["set/processed/talk.mp4"] = ("talk", "talk")
    plain = {path: (name, name) for path, (name, _) in expected.items()}
    assert summary(find_inputs([tmp_path]), tmp_path) == plain
    assert summary(find_inputs([tmp_path], "celebv-text"), tmp_path) == expected
    touch(tmp_path, "set/celebvtext_info.json")
    for given in (tmp_path, tmp_path / "set/processed", tmp_path / "set/processed/*"):
        assert summary(find_inputs([given]), tmp_path) == expected
    assert summary(find_inputs([tmp_path], "files"), tmp_path) == plain | {
        "set/celebvtext_info.json": ("celebvtext_info.json",) * 2}


def test_nersemble_version_2(tmp_path):
    folder = "030/sequences/EMO-1-shout+laugh/images"
    touch(tmp_path, f"{folder}/cam_222200037.mp4", f"{folder}/cam_220700191.mp4",
          "030/sequences/GLASSES/images/cam_222200037.mp4", "031/sequences/GLASSES/images/cam_222200037.mp4",
          "031/calibration/camera_params.json")
    expected = {
        f"{folder}/cam_220700191.mp4": ("030_EMO-1-shout+laugh_220700191", "030"),
        f"{folder}/cam_222200037.mp4": ("030_EMO-1-shout+laugh_222200037", "030"),
        "030/sequences/GLASSES/images/cam_222200037.mp4": ("030_GLASSES_222200037", "030"),
        "031/sequences/GLASSES/images/cam_222200037.mp4": ("031_GLASSES_222200037", "031"),
        "031/calibration/camera_params.json": ("camera_params.json",) * 2}
    for layout in ("auto", "nersemble"):
        assert summary(find_inputs([tmp_path], layout), tmp_path) == expected
    assert summary(find_inputs([tmp_path / folder]), tmp_path).items() <= expected.items()
    plain = find_inputs([tmp_path], "files")
    assert len({video.identity for video in plain}) == len(plain) == 5


def test_nersemble_version_1_is_one_video_per_camera(tmp_path):
    steps, flat = "017/sequences/EXP-1-head/timesteps", "018/EXP-1-head/images"
    touch(tmp_path, *(f"{steps}/frame_{i:05d}/images/cam_{camera}.jpg" for i in range(9) for camera in (11, 22)),
          *(f"{flat}/cam_{camera}_{i:06d}.jpg" for i in range(9) for camera in (11, 22)))
    found = find_inputs([tmp_path])
    assert [(str(video.path.relative_to(tmp_path)), video.pictures, video.name, video.identity)
            for video in found] == [
        (steps, "frame_*/images/cam_11.jpg", "017_EXP-1-head_11", "017"),
        (steps, "frame_*/images/cam_22.jpg", "017_EXP-1-head_22", "017"),
        (flat, "cam_11_*.jpg", "018_EXP-1-head_11", "018"), (flat, "cam_22_*.jpg", "018_EXP-1-head_22", "018")]


def test_data_sets_mix_and_a_wrong_layout_is_refused(tmp_path):
    touch(tmp_path, f"v/{VFHQ[1]}.mp4", "n/030/sequences/HAIR/images/cam_1.mp4", "p/holiday.mp4")
    assert [video.identity for video in find_inputs([tmp_path])] == ["030", "holiday", "--rKDzyFQdw+P0"]
    for layout in set(LAYOUTS) - {"auto", "files"}:
        with pytest.raises(InputError, match=f"expected files in the layout {layout}, found none among 1 files"):
            find_inputs([tmp_path / "p"], layout)


# --- manifests ----------------------------------------------------------------------------------------

def write_manifest(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_and_jsonl_say_the_same(tmp_path):
    table = write_manifest(tmp_path / "lists/list.csv", "\ufeffpath, start,end,identity,labels\r\n"
                           "../a.mp4,1.5,4,anna,glasses;hat\r\n../a.mp4,10,,anna,none\r\n\r\n"
                           f'"{tmp_path}/with, comma.mp4",,,,\r\n../{VFHQ[1]}.mp4,,2e1,,hat hair\r\nmissing.mp4\r\n')
    rows = [{"path": "../a.mp4", "start": 1.5, "end": 4, "identity": "anna", "labels": ["glasses", "hat"]},
            {"path": "../a.mp4", "start": "10", "identity": "anna", "labels": []},
            {"path": f"{tmp_path}/with, comma.mp4", "identity": None, "labels": None},
            {"path": f"../{VFHQ[1]}.mp4", "end": 20, "labels": "hair; hat"}, {"path": "missing.mp4"}]
    lines = write_manifest(tmp_path / "lists/list.jsonl", "\n\n".join(map(json.dumps, rows)))
    expected = [
        VideoInput(str(tmp_path / "a.mp4"), "a@1.5-4.0", "anna", 1.5, 4.0, ("glasses", "hat")),
        VideoInput(str(tmp_path / "a.mp4"), "a@10.0-end", "anna", 10.0, None, ()),
        VideoInput(str(tmp_path / "with, comma.mp4"), "with__comma", "with__comma"),
        VideoInput(str(tmp_path / f"{VFHQ[1]}.mp4"), f"{VFHQ[1]}@start-20.0", "--rKDzyFQdw+P0", None, 20.0,
                   ("hair", "hat")),
        VideoInput(str(tmp_path / "lists/missing.mp4"), "missing", "missing")]
    assert find_inputs([table]) == find_inputs([lines]) == expected


def test_parts_of_one_file_show_one_person(tmp_path):
    manifest = write_manifest(tmp_path / "list.csv", "path,start,end\nx/talk.mp4,0,5\nx/talk.mp4,5,9\ny/talk.mp4,5,9\n")
    assert [(video.name, video.identity) for video in find_inputs([manifest])] == [
        ("x_talk@0.0-5.0", "x_talk"), ("x_talk@5.0-9.0", "x_talk"), ("y_talk@5.0-9.0", "y_talk")]


def test_only_the_listed_parts_of_a_listed_file_are_used(tmp_path):
    touch(tmp_path, "set/a.mp4", "set/b.mp4", "set/list.csv", "set/number.jsonl")
    manifest = write_manifest(tmp_path / "list.csv", "path,end,identity\nset/a.mp4,5,anna\n")
    found = find_inputs([tmp_path / "set", manifest])
    assert [(video.name, video.identity) for video in found] == [
        ("a@start-5.0", "anna"), ("b", "b"), ("list.csv", "list.csv"), ("number.jsonl", "number.jsonl")]
    # A manifest inside a folder is an ordinary file. Only a manifest that is named directly is read.
    with pytest.raises(InputError, match="expected rows"):
        find_inputs([tmp_path / "set/list.csv"])


@pytest.mark.parametrize(("text", "words"), [
    ("path,begin,person\na.mp4,1,2\n", "line 1: expected the column path and optionally start, end, identity, "
                                       "labels, each once; found unknown: begin, person"),
    ("start,end\n1,2\n", "line 1: .*found start, end"),
    ("path,path\na,b\n", "line 1: .*each once; found path, path"),
    ("path\n", "expected rows with path, start, end, identity, labels, found none"),
    ("", "expected rows"),
    ("path,start\na.mp4,1\n,2\n", "line 3: expected a path, found ''"),
    ("path,start\na.mp4,soon\n", "line 2: start: expected seconds of at least 0, such as 12.5, found 'soon'"),
    ("path,end\na.mp4,-1\n", "line 2: end: expected seconds"),
    ("path,end\na.mp4,nan\n", "line 2: end: expected seconds"),
    ("path,end\na.mp4,inf\n", "line 2: end: expected seconds"),
    ("path,end\na.mp4,0\n", "line 2: expected an end after the start, found 0 s to 0 s"),
    ("path,start,end\na.mp4,3,2\n", "line 2: expected an end after the start, found 3 s to 2 s"),
    ("path,labels\na.mp4,glasses moustache\n", "line 2: labels: expected some of hair, glasses, beard, hat, or 'none', "
                                               "found 'glasses moustache'"),
    ("path,labels\na.mp4,none hat\n", "line 2: labels"),
    ("path,end\na.mp4,1,2\n", "line 2: expected at most 2 cells, found 3"),
    ('path,end\n"a.mp4,1\n', "line 2: expected a valid row"),
    ("path,start\na.mp4,1\nb.mp4,1\n./a.mp4,1.0\n", "line 4: .*a.mp4 is listed with the same range in .*, line 2"),
])
def test_bad_csv_is_named_with_its_line(tmp_path, text, words):
    manifest = write_manifest(tmp_path / "list.csv", text)
    with pytest.raises(InputError, match=words) as error:
        find_inputs([manifest])
    assert str(error.value).startswith(str(manifest))


@pytest.mark.parametrize(("line", "words"), [
    ("{path: 1}", "expected a valid row, parsing it failed"),
    ('["a.mp4"]', r".*expected an object of fields, found \['a.mp4'\]"),
    ('{"file": "a.mp4"}', ".*found unknown: file"), ("{}", ".*expected the column path"),
    ('{"path": 3}', "expected a path, found 3"),
    ('{"path": "a\\u0000"}', "expected a path"),
    ('{"path": "a.mp4", "start": true}', "start: expected seconds"),
    ('{"path": "a.mp4", "end": NaN}', "end: expected seconds"),
    (f'{{"path": "a.mp4", "end": 1{"0" * 400}}}', "end: expected seconds"),
    ('{"path": "a.mp4", "end": [1]}', "end: expected seconds"),
    ('{"path": "a.mp4", "identity": ["anna"]}', "identity: expected a string of at most 200 characters or an integer"),
    ('{"path": "a.mp4", "identity": "a\\nb"}', "identity: expected a string of at most 200 characters"),
    ('{"path": "a.mp4", "identity": "\\ud800"}', "identity: expected a string of at most 200 characters"),
    (f'{{"path": "a.mp4", "identity": "{"x" * 5000}"}}', "identity: .* found 'x{1,80}[.]{3}x{1,80}'$"),
    ('{"path": "\\ud800.mp4"}', "expected a path"), (f'{{"path": "{"x" * 5000}"}}', "expected a path, found .{1,90}$"),
    ("[" * 200_000, ".*it is nested too deeply"), ('{"path": ' + "[" * 100 + "]" * 100 + "}", ".*more than 50 levels"),
    ('{"path": "a.mp4", "labels": {"hat": 1}}', "labels: expected some of"),
    ('{"path": "a.mp4", "labels": ["hat", ["hair"]]}', "labels: expected some of"),
])
def test_bad_jsonl_is_named_with_its_line(tmp_path, line, words):
    manifest = write_manifest(tmp_path / "list.jsonl", f'{{"path": "ok.mp4"}}\n\n{line}\n')
    with pytest.raises(InputError, match=f"line 3: {words}"):
        find_inputs([manifest])


def test_a_manifest_of_many_rows_is_read_row_by_row_and_looks_at_few_files(tmp_path, monkeypatch):
    """A million rows take seconds: no row waits for the next ones, nor for the file system."""
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = [f"{'ab'[n % 2]}.mp4,{n},{n + 1},p{n % 9},hair" for n in range(20_000)]
    write_manifest(tmp_path / "list.csv", "\n".join(["path,start,end,identity,labels", *rows, "a.mp4,3,2,,", ""]))
    lines = read_manifest(tmp_path / "list.csv", "auto")
    assert isinstance(lines, Iterator) and next(lines)[0] == 2, "the mistake in the last line comes later"
    with pytest.raises(InputError, match="list.csv, line 20002: expected an end after the start"):
        list(lines)
    write_manifest(tmp_path / "list.csv", "\n".join(["path,start,end,identity,labels", *rows, ""]))
    asked = []

    def counted(function):
        return lambda *given, **more: (asked.append(given), function(*given, **more))[1]
    for module, name in (os.path, "islink"), (os.path, "realpath"), (os.path, "exists"), (os, "stat"), (os, "scandir"):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    assert len(find_inputs([tmp_path / "list.csv"])) == 20_000
    assert len(asked) < 500


def test_a_manifest_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "list.csv").write_bytes("path\nmüde.mp4\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"list\.csv: expected a table in UTF-8"):
        find_inputs([tmp_path / "list.csv"])
