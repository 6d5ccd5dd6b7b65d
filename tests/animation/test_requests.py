"""What to animate: folders, tables, names of the results, and combinations that are refused."""

from pathlib import Path

import numpy as np
import pytest

from durian_jax.animation.requests import Request, Wanted, check_apart, find_requests, parse_attributes
from durian_jax.errors import InputError
from tests.helpers.prepare import touch


@pytest.fixture
def folder(tmp_path):
    touch(tmp_path, "me.png", "talk.mp4", "photos/b.png", "photos/a.JPG", "photos/a.png", "photos/notes.txt",
          "photos/.hidden.png", "photos/more/c.png", "videos/x.mp4", "videos/y.mov", "empty/readme.md")
    return tmp_path


def test_a_photo_and_a_video_are_one_request(folder):
    found = find_requests(folder / "me.png", folder / "talk.mp4", ["hair=b.png"], "out/a.mp4")
    assert found == Request(folder / "me.png", folder / "talk.mp4", {"hair": Wanted(("b.png",))}, Path("out/a.mp4"))
    names = [path.name for path in found.outputs(paste_back=True)]
    assert names == ["a.mp4", "a_concat.mp4", "a_crop.mp4", "a.json"]
    assert [path.name for path in found.outputs(paste_back=False)] == ["a.mp4", "a_concat.mp4", "a.json"]


def test_a_folder_makes_a_video_of_each_file(folder, capsys, monkeypatch):
    found = find_requests(folder / "photos", folder / "talk.mp4", ["hat=h.png"], folder / "out")
    assert [(Path(request.source).name, request.out.name) for request in found] == [
        ("a.JPG", "a.JPG.mp4"), ("a.png", "a.png.mp4"), ("b.png", "b.mp4")]
    assert {(request.driving, *request.attributes.items()) for request in found} == {
        (folder / "talk.mp4", ("hat", Wanted(("h.png",))))}
    assert "left out 1 files that are no photos: notes.txt" in capsys.readouterr().err
    found = find_requests(folder / "me.png", folder / "videos", [], folder / "out")
    assert [(Path(request.driving).name, request.out) for request in found] == [
        ("x.mp4", folder / "out" / "x.mp4"), ("y.mov", folder / "out" / "y.mp4")]


def test_a_table_names_everything(folder):
    (folder / "jobs.csv").write_text("source,driving,attributes,out\n"
                                     "me.png,talk.mp4,,\n"
                                     "photos/b.png, videos/x.mp4 ,hair=me.png; hat=a b.png,deep/one.mp4\n")
    first, second = find_requests(None, None, [], folder / "out", folder / "jobs.csv")
    assert first == Request(folder / "me.png", folder / "talk.mp4", {}, folder / "out" / "me_talk.mp4")
    assert second == Request(folder / "photos/b.png", folder / "videos/x.mp4",
                             {"hair": Wanted((str(folder / "me.png"),)), "hat": Wanted((str(folder / "a b.png"),))},
                             folder / "out" / "deep" / "one.mp4")
    (folder / "jobs.jsonl").write_text('{"source": "me.png", "driving": "talk.mp4"}\n')
    assert find_requests(None, None, [], folder / "out", folder / "jobs.jsonl") == [first]


def test_attributes_are_taken_away_or_blended(tmp_path):
    found = parse_attributes(["glasses=none", "hair=a.png,b@2x.png@0.25", "hat=c@2x.png"])
    assert found == {"glasses": Wanted(), "hair": Wanted(("a.png", "b@2x.png"), (0.75, 0.25)),
                     "hat": Wanted(("c@2x.png",))}
    request = Request("me.png", "talk.mp4", found, Path("out.mp4"))
    assert request.inputs == ("me.png", "talk.mp4", "a.png", "b@2x.png", "c@2x.png")
    np.testing.assert_array_equal(request.interpolate(2, 25.0), [[0.75, 0.25, np.nan]] * 2)
    assert request.described == {"glasses": "none", "hair": "a.png@0.75,b@2x.png@0.25", "hat": "c@2x.png"}
    assert parse_attributes([f"{kind}={text}" for kind, text in request.described.items()]) == found
    assert parse_attributes(["beard=a.png@0.2, b.png@0.5,c.png@0.3"])["beard"].weights == (0.2, 0.5, 0.3)
    touch(tmp_path, "a,b.png@0.3")
    assert parse_attributes(["hair=a,b.png@0.3"], tmp_path)["hair"] == Wanted((str(tmp_path / "a,b.png@0.3"),))


@pytest.mark.parametrize(("given", "message"), [
    (["hair=a.png,b.png"], "expected a weight after each photo, or after one of two, such as hair=a.png,b.png@0.3"),
    (["hair=a.png@0.3,b.png@0.3"], "weights of at least 0 that sum to 1, found a.png@0.3, b.png@0.3"),
    (["hair=a.png,b.png@1.5"], "found a.png@-0.5, b.png@1.5"), (["hair=a.png,b.png@nan"], "found a.png@nan, b.png@nan"),
    (["hair=,b.png@0.5"], "expected photos with weights"), (["hair=a.png,b.png@0.5,c.png"], "found 1 weights for 3"),
    (["hair=a.png,b.png@0.3", "hat=c.png,d.png@0.3"], "attributes hair and hat: expected one kind to blend, found 2"),
    (["hair=a.png", "hair=none"], "given twice .* blend them with hair=PHOTO,PHOTO@WEIGHT"),
])
def test_attributes_that_say_nothing_clear_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        parse_attributes(given)


@pytest.mark.parametrize(("given", "message"), [
    ((None, None, [], "out"), r"expected a photo \(-s\) and a driving video \(-d\), or a table .* found neither"),
    (("me.png", None, [], "out"), "found only one of them"),
    (("photos", "videos", [], "out"), "expected one folder, found two; write the pairs into a table"),
    (("photos", "talk.mp4", [], "out.mp4"), "output .*out.mp4: expected a folder, because several videos are made"),
    (("photos", "talk.mp4", [], "me.png"), "expected a folder, because several videos are made"),
    (("empty", "talk.mp4", [], "out"), r"expected photos \(png, .*found none among 1 files"),
    (("me.png", "photos", [], "out"), r"expected videos \(mp4, .*found none among 4 files"),
    (("me.png", "talk.mp4", ["wig=a.png"], "out.mp4"), "unknown attribute kind 'wig'"),
    (("me.png", None, [], "out", "jobs.csv"), "table .*jobs.csv names sources.*leave out -s, -d, -a and --timeline"),
    ((None, None, ["hair=a.png"], "out", "jobs.csv"), "leave out -s, -d, -a and --timeline"),
    ((None, None, [], "out", "talk.mp4"), r"jobs: expected a table \(.csv or .jsonl\), found .*talk.mp4"),
    ((None, None, [], "out", "none.csv"), "none.csv: no such file; expected a table"),
    ((None, None, [], "out.mp4", "jobs.csv"), "expected a folder"),
])
def test_missing_and_contradicting_arguments_are_refused(folder, given, message):
    given = [folder / value if isinstance(value, str) else value for value in given]
    with pytest.raises(InputError, match=message):
        find_requests(*given)


@pytest.mark.parametrize(("text", "message"), [
    ("source,driving\n", "jobs.csv: expected rows with source, driving, attributes, timeline, out, found none"),
    ("source,video\na.png,b.mp4\n", "line 1: expected the columns source, driving and optionally attributes, "
                                    "timeline, out, each once; found unknown: video"),
    ("source,attributes\na.png,\n", "line 1: expected the columns source, driving"),
    ("source,driving\na.png,b.mp4\na.png\n", "line 3: expected the name of a file in the column driving, found none"),
    ("source,driving,attributes\na.png,b.mp4,hair\n", "line 2: attribute 'hair': expected KIND=PHOTO"),
    ("source,driving,out\na.png,b.mp4,c.avi\n", "line 2: out: expected a name ending in .mp4, found c.avi"),
    ("source,driving\na.png,b.mp4,c\n", "line 2: expected at most 2 cells, found 3"),
    ("source,driving\nhttps://x.org/a.png,b.mp4\n", "line 2: https://x.org/a.png: .*download it first"),
])
def test_mistakes_in_a_table_are_named_with_their_line(folder, text, message):
    (folder / "jobs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_requests(None, None, [], folder / "out", folder / "jobs.csv")


def test_videos_that_would_meet_are_refused(tmp_path):
    def request(source, driving, out):
        return Request(tmp_path / source, tmp_path / driving, {}, tmp_path / out)
    one = request("a.png", "x.mp4", "a.mp4")
    check_apart([one, request("a.png", "x.mp4", "b.mp4")], tmp_path / "summary.json", False)
    for other, paste_back, message in (
            (request("b.png", "x.mp4", "a.mp4"), False, r"b.png with .*x.mp4 and .*a.png with .*x.mp4 would write the"),
            (request("b.png", "x.mp4", "a_concat.mp4"), False, "would write the same file"),
            (request("b.png", "x.mp4", "a_crop.mp4"), True, "would write the same file"),
            (request("b.png", "x.mp4", "x.mp4"), False, "x.mp4 would replace the input"),
            (request("b.png", "a.mp4", "b.mp4"), False, "a.mp4 would replace the input"),
            (request("b.png", "x.mp4", "summary.mp4"), False, "and the summary would write the same file")):
        with pytest.raises(InputError, match=message):
            check_apart([one, other], tmp_path / "summary.json", paste_back)
