"""Limits of pictures and videos: too large files are refused by their headers, before they are decoded."""

import os
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.prepare import look as look_module
from durian_jax.prepare.check import Report, _judge, describe
from durian_jax.prepare.look import look_at_video
from durian_jax.video import (
    iterate_video,
    limits,
    picture_size,
    probe_video,
    read_image,
    read_video,
    reading,
    write_video,
)
from durian_jax.video.limits import check_length
from tests.helpers.mutations import png_of_size

PICTURE = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)


def encoded(suffix, picture=PICTURE, *options):
    return cv2.imencode(suffix, picture, list(options))[1].tobytes()


@pytest.mark.parametrize("data", [
    encoded(".png"), encoded(".jpg"), encoded(".jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), encoded(".bmp"),
    encoded(".webp"), encoded(".webp", PICTURE, cv2.IMWRITE_WEBP_QUALITY, 101),
    encoded(".webp", np.dstack([PICTURE, PICTURE[..., :1]]))])
def test_sizes_are_read_from_headers(data):
    assert picture_size(data) == (50, 30) == picture_size(data[:200] if len(data) > 2000 else data)
    assert picture_size(data[:10]) is None and picture_size(b"") is None


def test_a_jpeg_with_a_preview_has_its_own_size():
    """The preview is inside of a segment of metadata, which comes first."""
    preview, data = encoded(".jpg", PICTURE[:8, :8]), encoded(".jpg")
    marked = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview + data[2:]
    assert picture_size(marked) == (50, 30)


@pytest.mark.parametrize("size", [(60_000, 60_000), (13_000, 13_000), (2**31 - 1, 2**31 - 1), (65_001, 1000)])
def test_a_huge_photo_is_refused(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of_size(encoded(".png"), *size))
    with pytest.raises(InputError, match=f"a.png: expected a picture of at most 65 megapixels, found {size[0]} x"):
        read_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="expected a video of at most 36 megapixels"):
        probe_video(tmp_path / "a.png")


def test_huge_pictures_of_other_kinds_are_refused(tmp_path):
    tiff = bytearray(encoded(".tiff"))
    for tag in (256, 257):  # width and height
        place = tiff.find(struct.pack("<HH", tag, 3)) if struct.pack("<HH", tag, 3) in tiff else tiff.find(
            struct.pack("<HH", tag, 4))
        tiff[place + 2:place + 12] = struct.pack("<HII", 4, 1, 90_000)
    (tmp_path / "a.tiff").write_bytes(tiff)
    with pytest.raises(InputError, match="expected a picture of at most 65 megapixels"):
        read_image(tmp_path / "a.tiff")
    (tmp_path / "b.ppm").write_bytes(b"P6 60000 60000 255\n" + bytes(100))
    with pytest.raises(InputError, match="expected a picture of at most 65 megapixels"):
        read_image(tmp_path / "b.ppm")


def test_pictures_of_16_bits_with_alpha_are_blended_alike_in_bands(tmp_path):
    """More rows than a band has."""
    picture = np.random.default_rng(1).integers(0, 65535, (600, 20, 4), np.uint16)
    (tmp_path / "a.png").write_bytes(encoded(".png", picture))
    alpha = picture[..., 3:] / 65535
    expected = picture[..., :3] * (255 / 65535) * alpha + 255 * (1 - alpha)
    assert abs(read_image(tmp_path / "a.png")[..., ::-1] - expected).max() <= 0.51


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="a.png: expected a picture, found a pipe"):
        read_image(tmp_path / "a.png")
    for path in ("x" * 5000, "x/" * 4000, "a\0b"):
        with pytest.raises(InputError) as error:
            read_image(path)
        assert len(str(error.value)) < 400


def test_a_huge_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MOST_PHOTO_BYTES", 1 << 20)
    (tmp_path / "a.png").write_bytes(encoded(".png") + bytes(1 << 20))
    with pytest.raises(InputError, match="expected a picture of at most 1 MB, found 1 MB"):
        read_image(tmp_path / "a.png")


# --- videos -------------------------------------------------------------------------------------------

def slow_video(path, frames, rate=Fraction(1), size=32):
    """A video of `frames` frames, `rate` of them per second, that is quick to write."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width = stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast"}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), number % 200, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def test_a_long_video_is_refused_before_its_frames_are_read(tmp_path):
    """Ten hours, at one frame in ten minutes; some of its frames can be read."""
    path = slow_video(tmp_path / "a.mp4", 60, Fraction(1, 600))
    with pytest.raises(InputError, match="expected a video of at most 4 hours .* found 10.0 hours and 60 frames; cut"):
        next(iterate_video(path))
    assert len(list(iterate_video(path, 3))) == 3 == len(read_video(path, 3)[0])
    assert len(list(iterate_video(path, start=600, end=2400))) == 3


def test_lengths():
    check_length("a", 25, 0)  # unknown
    check_length("a", 25, 4 * 3600 * 25)
    check_length("a", 25, 10**9, 100)
    with pytest.raises(InputError, match="found 4.0 hours and 360001 frames"):
        check_length("a", 25, 4 * 3600 * 25 + 1)
    with pytest.raises(InputError, match="and 1000000 frames, found 0.3 hours and 1000001 frames"):
        check_length("a", 1000, 10**6 + 1)
    with pytest.raises(InputError, match="expected at most 1000 frames per second, found 90000"):
        check_length("a", 90_000, 10)


def test_a_video_that_declares_too_few_frames_stops_at_the_limit(tmp_path, monkeypatch):
    path = slow_video(tmp_path / "a.mp4", 40, Fraction(25))
    info = probe_video(path)
    monkeypatch.setattr(reading, "MOST_FRAMES", 30)
    monkeypatch.setattr(limits, "MOST_FRAMES", 30)
    monkeypatch.setattr(reading, "probe_video", lambda _: type(info)(info.fps, 0, False))
    with pytest.raises(InputError, match="found 0.0 hours and 31 frames"):
        list(iterate_video(path))


def test_large_frames_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", np.zeros((2, 64, 64, 3), np.uint8), 25)
    monkeypatch.setattr(limits, "MOST_FRAME_PIXELS", 4095)
    with pytest.raises(InputError, match="expected a video of at most 0 megapixels, found 64 x 64 pixels"):
        probe_video(tmp_path / "a.mp4")


class NoFaces:
    """An annotator that sees nobody."""

    def turn(self, image):
        return 0

    def follow(self, image):
        return np.empty((0, 478, 3), np.float32)

    def reset(self):
        pass


def test_a_check_reads_the_beginning_of_a_long_video(tmp_path, monkeypatch):
    path = slow_video(tmp_path / "a.mp4", 300, Fraction(25))
    whole = look_at_video(path, NoFaces())
    assert len(whole) == whole.total == 300
    monkeypatch.setattr(look_module, "_MOST_PIXELS", 32 * 32 * 150)
    look = look_at_video(path, NoFaces())
    assert len(look) == 150 and look.total == 300 and look.index[-1] == 149 and look.stride == 2
    findings, measures = _judge(look)
    report = Report("a.mp4", "video", tuple(findings), measures)
    assert report.measures["seconds"] == 6 and report.measures["whole_seconds"] == 12
    assert "150 frames in 6.0 s (only the beginning of 12.0 s was looked at)" in describe(report)
    monkeypatch.setattr(look_module, "_MOST_PIXELS", 10**9)
    monkeypatch.setattr(look_module, "_MOST_FRAMES", 300)
    assert "whole_seconds" not in _judge(look_at_video(path, NoFaces()))[1]
