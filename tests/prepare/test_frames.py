"""Frames of video files and of picture folders: ranges, rates, damage and missing files."""


import av
import numpy as np
import pytest

from durian_jax.errors import InputError, cut
from durian_jax.prepare.frames import PICTURES_FPS, open_frames
from durian_jax.prepare.inputs import VideoInput, find_inputs
from durian_jax.video import iterate_video, write_image, write_video
from tests.helpers.prepare import touch


def tones(count, height=16, width=24):
    """Return (T, H, W, 3) plain pictures; each has a value 4 above the previous one, which tells its index."""
    return np.broadcast_to((20 + 4 * np.arange(count)).astype(np.uint8)[:, None, None, None],
                           (count, height, width, 3))


def indices(frames):
    return [round((float(frame.mean()) - 20) / 4) for frame in frames]


def whole(path, start=None, end=None, pictures="*"):
    return VideoInput(str(path), "a", "a", start, end, pictures=pictures)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A video file of 50 frames, 2 seconds."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, tones(50), PICTURES_FPS)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same frames as lossless pictures, numbered without leading zeros."""
    path = tmp_path_factory.mktemp("folder")
    for index, image in enumerate(tones(50)):
        write_image(path / f"frame_{index}.png", image)
    touch(path, "notes.txt", ".hidden.png")
    return path


@pytest.mark.parametrize("kind", ["film", "folder"])
@pytest.mark.parametrize(("start", "end", "most", "expected"), [
    (None, None, None, range(50)), (None, None, 7, range(7)), (0.4, 0.8, None, range(10, 20)),
    (0.4, 0.8, 3, range(10, 13)), (1.8, None, None, range(45, 50)), (1.8, 99.0, None, range(45, 50)),
    (None, 0.2, None, range(5)), (0.0, 0.2, None, range(5)), (0.41, 0.45, None, range(11, 12))])
def test_video_files_and_folders_read_alike(kind, start, end, most, expected, request):
    frames = open_frames(whole(request.getfixturevalue(kind), start, end), most)
    first, second = list(frames), list(frames)
    assert indices(first) == list(expected)
    assert first[0].shape == (16, 24, 3) and first[0].dtype == np.uint8
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert frames.fps == pytest.approx(25.0)
    assert frames.count == len(expected)


@pytest.mark.parametrize("kind", ["film", "folder"])
@pytest.mark.parametrize(("start", "end"), [(2.0, None), (7.5, 9.0), (0.41, 0.43)])
def test_an_empty_range_is_refused_with_the_length(kind, start, end, request):
    path = request.getfixturevalue(kind)
    with pytest.raises(InputError, match=rf"{path.name}: expected a \w+ from {start:g} s .* last\w* 2\.00 s"):
        list(open_frames(whole(path, start, end)))


@pytest.mark.parametrize(("name", "codec", "options"), [
    ("a.mp4", "libx264", {"g": "12", "bf": "3"}),
    ("open.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=8:b-adapt=0"}),
    ("a.mkv", "libx264", {"g": "12"}), ("a.avi", "mpeg4", {"g": "12"}), ("a.gif", "gif", {}),
    ("a.ts", "libx264", {"g": "100"})])  # no index, and key frames four seconds apart
def test_a_part_equals_the_same_frames_of_the_whole(tmp_path, name, codec, options):
    images = (np.random.default_rng(0).integers(0, 200, (200, 8, 8, 3)) + np.arange(200)[:, None, None, None] // 4)
    with av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "rgb8" if codec == "gif" else "yuv420p"
        for image in images.astype(np.uint8).repeat(6, 1).repeat(6, 2):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    frames = list(iterate_video(tmp_path / name))
    assert len(frames) == 200
    for first, last in ((10, 25), (50, 61), (83, 200), (187, 188)):
        part = list(iterate_video(tmp_path / name, start=(first - 0.5) / 25, end=(last - 0.5) / 25))
        assert len(part) == last - first
        assert all(np.array_equal(a, b) for a, b in zip(part, frames[first:last], strict=True))
    with pytest.raises(InputError, match=rf"{name}: expected a frame from 60 s to the end, .* lasts 8\.00 s"):
        next(iterate_video(tmp_path / name, start=60.0))


def test_the_undamaged_part_of_a_file_can_be_used(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:int(len(data) * 0.6)])
    assert len(list(open_frames(whole(tmp_path / "cut.mp4", None, 0.4)))) == 10
    for end in (None, 2.4):
        with pytest.raises(InputError, match="cut off|damaged"):
            list(open_frames(whole(tmp_path / "cut.mp4", None, end)))


def test_bad_picture_sequences_are_named(tmp_path, folder):
    for index, image in enumerate(tones(9)):
        write_image(tmp_path / f"{index}.png", image)
    write_image(tmp_path / "5.png", tones(1, 24, 16)[0])
    with pytest.raises(InputError, match=r"/5\.png: expected 24 x 16 pixels .* found 16 x 24"):
        list(open_frames(whole(tmp_path)))
    (tmp_path / "5.png").write_bytes((folder / "frame_5.png").read_bytes()[:-20])
    frames = iter(open_frames(whole(tmp_path)))
    assert indices(next(frames) for _ in range(5)) == list(range(5))
    with pytest.raises(InputError, match=r"/5\.png: the picture is cut off"):
        next(frames)


def test_other_files_are_refused_on_opening(tmp_path, folder):
    touch(tmp_path, "notes/a.txt", "empty.mp4")
    for path, words in {tmp_path / "none.mp4": "no such file", tmp_path / "notes": "a folder without pictures",
                        tmp_path / "empty.mp4": "empty file", folder / "frame_0.png": "still picture",
                        tmp_path / ("x" * 300): "File name too long"}.items():
        with pytest.raises(InputError, match=words) as error:
            open_frames(whole(path))
        assert cut(str(path)) in str(error.value)
    with pytest.raises(InputError, match="at least 1, got 0"):
        open_frames(whole(folder), 0)


def test_each_camera_of_nersemble_version_1_has_its_frames(tmp_path):
    for camera, offset in ((11, 0), (22, 20)):
        for index, image in enumerate(tones(40)[offset:offset + 12]):
            write_image(tmp_path / f"017/sequences/HAIR/timesteps/frame_{index:05d}/images/cam_{camera}.png", image)
            write_image(tmp_path / f"018/HAIR/images/cam_{camera}_{index:06d}.png", image)
    read = {video.name: indices(open_frames(video)) for video in find_inputs([tmp_path])}
    assert read == {f"{person}_HAIR_{camera}": list(range(offset, offset + 12))
                    for person in ("017", "018") for camera, offset in ((11, 0), (22, 20))}
