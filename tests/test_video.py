"""Pictures and video: round trips, equal bytes for equal input, and refused files, among them damaged copies."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from durian_jax.errors import DiskFull, InputError
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import iterate_video, probe_video, read_image, read_video, write_image, write_video
from durian_jax.video.pictures import DamagedPicture
from durian_jax.video.sound import DamagedSound
from tests.helpers.disk import full_disk
from tests.helpers.sound import with_sound

DAMAGED_COPIES = 200


def moving_ramp(frames=12, height=48, width=64):
    """Return (T, H, W, 3) smooth colours that H.264 preserves well."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([np.stack([x * 200 + 2 * t, y * 200 + 20, (x + y) * 100 + t], -1)
                     for t in range(frames)]).astype(np.uint8)


def test_round_trip_keeps_frames_and_rate(tmp_path):
    frames = moving_ramp()
    write_video(tmp_path / "a.mp4", frames, 24.0)
    back, fps = read_video(tmp_path / "a.mp4")
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert fps == pytest.approx(24.0)
    assert np.abs(back.astype(float) - frames).mean() < 2.0


def test_odd_sides_repeat_their_last_line(tmp_path):
    frames = moving_ramp(4, 47, 63)
    write_video(tmp_path / "a.mp4", frames, 25)
    back, _ = read_video(tmp_path / "a.mp4")
    assert back.shape == (4, 48, 64, 3)
    assert np.abs(back[:, :47, :63].astype(float) - frames).mean() < 2.5


def test_the_same_input_gives_the_same_bytes(tmp_path):
    with_sound(tmp_path / "sound.mp4", moving_ramp(25))
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, iter(moving_ramp()), 29.97, audio_from=tmp_path / "sound.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4", "sound.mp4"]


def heard(path):
    """Return the mono sound of a file on its own time line, as a player plays it, and its rate."""
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        parts = [(frame.time, frame.to_ndarray().reshape(len(frame.layout.channels), -1).mean(0)
                  if frame.format.is_planar else frame.to_ndarray().reshape(-1)) for frame in container.decode(track)]
        sound = np.zeros(round(max(time * track.rate + len(part) for time, part in parts)))
        for time, part in parts:
            sound[round(time * track.rate):][:len(part)] = part
        return sound, track.rate


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("avi", "pcm_s16le")])
def test_sound_is_kept_as_long_as_the_frames(tmp_path, suffix, codec):
    source = tmp_path / f"sound.{suffix}"
    with_sound(source, moving_ramp(50), codec=codec)
    write_video(tmp_path / "a.mp4", moving_ramp(25), 25, audio_from=source)
    samples, rate = heard(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        packets = [(packet.stream.type, float(packet.dts * packet.time_base)) for packet in container.demux()
                   if packet.dts is not None]
    assert len(samples) / rate == pytest.approx(1.0, abs=0.025)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()] == pytest.approx(440, abs=5)
    # Pictures and sound of one moment lie together in the file, so that it plays while it loads.
    assert {kind for kind, _ in packets[:len(packets) // 3]} == {"audio", "video"}


def tone_burst(path, picture, sound, burst, gap=None):
    """Write 2 s of video and sound whose time stamps begin at `picture` and `sound` seconds.

    A tone is heard from `burst` to `burst` + 0.1 s. No sound is stored from `gap` on for 0.3 s.
    """
    rate, clock = 48000, Fraction(1, 1000)
    with av.open(str(path), "w") as output:
        video, audio = output.add_stream("libx264", rate=25), output.add_stream("libopus", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = clock
        video.codec_context.options = {"bf": "0"}
        for number, image in enumerate(moving_ramp(50)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round((picture + number / 25) / clock), clock
            output.mux(video.encode(frame))
        for start in np.arange(sound, picture + 2, 0.02):
            time = start + np.arange(960) / rate
            tone = np.sin(time * 2 * np.pi * 1000) * ((time >= burst) & (time < burst + 0.1))
            if gap is None or not gap <= start < gap + 0.3:
                frame = av.AudioFrame.from_ndarray(np.float32(tone)[None], format="flt", layout="mono")
                frame.sample_rate, frame.pts = rate, round(start * rate)
                output.mux(audio.encode(frame))
        for stream in (video, audio):
            output.mux(stream.encode())


@pytest.mark.parametrize(("picture", "sound", "gap"), [(0.0, 0.0, None), (0.8, 0.0, None), (0.0, 0.3, None),
                                                       (0.5, 0.1, 0.7)])
def test_sound_and_pictures_stay_together(tmp_path, picture, sound, gap):
    """The tone begins 1 s after the first picture, whatever the first time stamps are, also after a gap."""
    tone_burst(tmp_path / "driver.mkv", picture, sound, picture + 1, gap)
    write_video(tmp_path / "a.mp4", moving_ramp(40), 25, audio_from=tmp_path / "driver.mkv")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.video[0].start_time
    samples, rate = heard(tmp_path / "a.mp4")
    loud = np.flatnonzero(np.abs(samples) > 0.3) / rate
    assert loud[0] == pytest.approx(1.0, abs=0.012) and loud[-1] == pytest.approx(1.1, abs=0.012)


def test_damaged_sound_is_silent_and_said(tmp_path):
    with_sound(tmp_path / "sound.mp4", moving_ramp(50))
    data = bytearray((tmp_path / "sound.mp4").read_bytes())
    with av.open(str(tmp_path / "sound.mp4")) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for place, size in places[20:30]:
        data[place:place + size] = b"\xff" * size
    (tmp_path / "sound.mp4").write_bytes(data)
    with pytest.warns(DamagedSound, match=r"sound.mp4: the sound is damaged from 0.4\d s on"):
        write_video(tmp_path / "a.mp4", moving_ramp(50), 25, audio_from=tmp_path / "sound.mp4")
    samples, rate = heard(tmp_path / "a.mp4")
    assert len(samples) / rate == pytest.approx(2, abs=0.03)
    levels = [np.abs(samples[round(time * rate):][:2000]).mean() for time in (0.2, 0.5, 1.5)]
    assert levels[1] < 0.2 * levels[0] and levels[2] == pytest.approx(levels[0], rel=0.1)


def test_the_bit_rate_fits_the_size_unless_a_quality_is_asked_for(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)
    for name, crf in (("fit", None), ("fine", 17), ("coarse", 40)):
        write_video(tmp_path / f"{name}.mp4", noise, 25, crf=crf)
    rates = {name: (tmp_path / f"{name}.mp4").stat().st_size * 8 / 4 for name in ("fit", "fine", "coarse")}
    largest = 17 * (48 * 64 * 25) ** 0.75
    assert rates["fit"] < 1.5 * largest < 2 * largest < rates["fine"] and rates["coarse"] < rates["fine"] / 2
    with pytest.raises(InputError, match=r"a.mp4: expected a constant rate factor from 0 .* found 60"):
        write_video(tmp_path / "a.mp4", noise, 25, crf=60)


def test_players_are_told_the_colours(tmp_path):
    write_video(tmp_path / "a.mp4", np.full((3, 720, 1280, 3), (200, 60, 40), np.uint8), 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (6, 1, 1)
    frames, _ = read_video(tmp_path / "a.mp4")
    assert np.abs(frames[0, 300, 600].astype(int) - (200, 60, 40)).max() <= 2


def test_silent_source_gives_silent_video(tmp_path):
    write_video(tmp_path / "a.mp4", moving_ramp(), 25)
    write_video(tmp_path / "b.mp4", moving_ramp(), 25, audio_from=tmp_path / "a.mp4")
    assert not probe_video(tmp_path / "b.mp4").has_audio


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_metadata_is_honoured(tmp_path, degrees):
    frames = np.full((5, 48, 64, 3), 30, np.uint8)
    frames[:, :24, :32] = (230, 40, 40)  # the stored picture's top left is red
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(degrees)
        for image in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    back, _ = read_video(tmp_path / "a.mp4")
    expected = np.rot90(frames[0], degrees // 90)  # counterclockwise, as in the metadata
    assert back.shape[1:] == expected.shape
    assert np.abs(back[0].astype(float) - expected).mean() < 6


def encoded(path, frames, times, time_base=Fraction(1, 600), shape=1, **codec):
    """Write frames with display times in seconds; `shape` is width : height of a pixel, `codec` sets the encoder."""
    with av.open(str(path), "w", options={"use_editlist": "1"}) as output:
        stream = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.sample_aspect_ratio = shape
        stream.codec_context.options = {"crf": "12", "bf": "0"}
        for name, value in codec.items():
            setattr(stream.codec_context, name, value)
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if image.dtype == np.uint16 else "rgb24")
            frame.pts, frame.time_base = round(time / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def greys(frames):
    """(T, H, W, 3) uint8 pictures, each of one grey, ten levels apart."""
    return np.broadcast_to((20 + 10 * np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, 32, 48, 3))


def test_frames_of_unequal_duration_keep_their_times(tmp_path):
    """Ten frames of 1/30 s, then five of 1/15 s: frame n is what a player shows at n / 30 s."""
    times = [n / 30 for n in range(10)] + [1 / 3 + n / 15 for n in range(5)]
    path = encoded(tmp_path / "vfr.mp4", greys(15), times)
    frames, fps = read_video(path)
    assert fps == pytest.approx(30, rel=0.01)
    shown = (frames.mean((1, 2, 3)) - 20) / 10
    expected = [np.searchsorted(times, n / fps + 1e-3) - 1 for n in range(20)]
    assert len(frames) in (19, 20) and np.abs(shown - expected[:len(frames)]).max() < 0.4
    part = list(iterate_video(path, start=0.4, end=0.5))
    np.testing.assert_array_equal(part, frames[12:15])


@pytest.mark.parametrize("fps", [10, 24, 60])
def test_another_rate_keeps_the_times(tmp_path, fps):
    """Frame n is what a player shows at n / fps seconds, within half a frame of the source and half a frame here."""
    times = np.array([n / 30 for n in range(10)] + [1 / 3 + n / 15 for n in range(5)])
    path = encoded(tmp_path / "vfr.mp4", greys(15), times)
    frames = np.stack(list(iterate_video(path, fps=fps)))
    shown = np.rint((frames.mean((1, 2, 3)) - 20) / 10).astype(int)
    ends = np.append(times[1:], 2 / 3)
    moments = np.arange(len(frames)) / fps
    late = np.maximum(times[shown] - moments, moments - ends[shown])
    assert len(frames) == pytest.approx(fps * 19 / 30, abs=1) and late.max() <= 0.5 / fps + 1e-6
    assert probe_video(path).at_rate(fps).declared_frames == pytest.approx(len(frames), abs=3)
    np.testing.assert_array_equal(np.stack(list(iterate_video(path, 4, fps=fps))), frames[:4])


def test_small_changes_of_the_rate_lose_no_frame(tmp_path):
    """Phones' frames are early or late by milliseconds."""
    times = np.arange(20) / 30 + np.random.default_rng(0).uniform(0, 0.012, 20)
    frames, fps = read_video(encoded(tmp_path / "phone.mp4", greys(20), times))
    assert fps == pytest.approx(30, rel=0.05) and len(np.unique(np.rint(frames.mean((1, 2, 3)) / 10))) == 20


def test_an_edit_list_is_followed(tmp_path):
    """Cut without decoding: a player hides what lies before the first time."""
    frames, _ = read_video(encoded(tmp_path / "cut.mp4", greys(20), (np.arange(20) - 8) / 30))
    np.testing.assert_allclose(frames.mean((1, 2, 3)), 20 + 10 * np.arange(8, 20), atol=3)


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_frames_keep_their_times_if_the_first_ones_cannot_be_decoded(tmp_path, suffix):
    """Recorded from the middle: the first key frame, number 10, is shown in the place of frames 5 to 9."""
    encoded(tmp_path / "whole.mp4", greys(20), np.arange(20) / 25, Fraction(1, 25),
            options={"crf": "12", "bf": "0", "g": "10", "sc_threshold": "0"})
    path = tmp_path / f"late.{suffix}"
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(path), "w") as late:
        stream = late.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if number >= 5 and packet.dts is not None:
                packet.stream = stream
                late.mux(packet)
    frames, _ = read_video(path)
    assert len(frames) == 15
    np.testing.assert_allclose((frames.mean((1, 2, 3)) - 20) / 10, [10] * 6 + [*range(11, 20)], atol=0.4)


@pytest.mark.parametrize(("shape", "size"), [(2, (32, 96)), (Fraction(1, 2), (64, 48)),
                                             (Fraction(1280, 1281), (32, 48))])
def test_pixels_become_square(tmp_path, shape, size):
    frames, _ = read_video(encoded(tmp_path / "wide.mp4", greys(3), np.arange(3) / 30, shape=shape))
    assert frames.shape[1:3] == size


@pytest.mark.parametrize(("transfer", "name"), [(18, "HLG"), (16, "PQ")])
def test_hdr_colours_become_ordinary_ones(tmp_path, transfer, name):
    """Paper is white and grey stays grey: BT.2408 gives the signals of both."""
    white, grey = {18: (0.75, 0.43), 16: (0.58, 0.40)}[transfer]
    picture = np.full((32, 48, 3), white, np.float32)
    picture[:, 24:] = grey
    path = encoded(tmp_path / "hdr.mp4", np.repeat(np.rint(picture * 65535).astype(np.uint16)[None], 3, 0),
                   np.arange(3) / 30, pix_fmt="yuv420p10le", color_trc=transfer, color_primaries=9, colorspace=9)
    assert probe_video(path).hdr == name
    frames, _ = read_video(path)
    left, right = frames[0, 16, 8].astype(int), frames[0, 16, 40].astype(int)
    assert left.min() > 232 and np.ptp(left) < 6 and np.ptp(right) < 6 and 105 < right.mean() < 150
    assert probe_video(encoded(tmp_path / "sdr.mp4", greys(3), np.arange(3) / 30)).hdr == ""


def test_files_of_phones_and_editors_play_as_in_a_player(portraits, tmp_path):
    """Their right values are those of the table beside them."""
    cases = portraits / "cases"
    frames, _ = read_video(cases / "hdr_hlg.mov", 1)
    near = np.abs(frames[0].astype(int) - (101, 166, 224)).max(-1) <= 12
    assert near.mean() > 0.2, "the background"
    frames, fps = read_video(cases / "trimmed.mov")
    with av.open(str(cases / "trimmed.mov")) as container:
        stream = container.streams.video[0]
        assert len(frames) / fps == pytest.approx(float(stream.duration * stream.time_base), abs=1.5 / fps)
    with av.open(str(cases / "anamorphic.mp4")) as container:
        stored = container.streams.video[0]
        assert stored.sample_aspect_ratio == 2
        assert read_video(cases / "anamorphic.mp4", 1)[0].shape[1:3] == (stored.height, 2 * stored.width)


def test_a_video_of_changing_rate_stays_in_time_with_its_sound(portraits, tmp_path):
    """30 frames in the first second and 15 in the next: each of these is shown twice, and the sound lasts as long."""
    path = portraits / "cases" / "vfr.mp4"
    frames, fps = read_video(path)
    assert fps == pytest.approx(30, rel=0.01) and len(frames) in (59, 60, 61)
    repeated = [np.array_equal(a, b) for a, b in zip(frames[:-1], frames[1:], strict=True)]
    assert sum(repeated[:29]) <= 1 and sum(repeated[30:]) in (14, 15, 16)
    write_video(tmp_path / "a.mp4", frames, fps, audio_from=path)
    given, rate = heard(path)
    written, written_rate = heard(tmp_path / "a.mp4")
    assert rate == written_rate and len(written) / rate == pytest.approx(len(frames) / fps, abs=1 / fps)
    loud, expected = (np.abs(sound[:rate // 200 * 200]).reshape(200, -1).mean(1) for sound in (written, given))
    together = np.correlate(loud - loud.mean(), (expected - expected.mean())[20:180], "valid")
    assert abs(together.argmax() - 20) / 200 < 1 / fps, "the sounds lie within a frame of each other"


def test_stills_and_covers_are_no_videos(tmp_path):
    path = encoded(tmp_path / "photo.mp4", greys(1), [0])
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftypheic").replace(b"isomiso2", b"heicmif1"))
    with pytest.raises(InputError, match="still picture"):
        probe_video(path)
    cover = cv2.imencode(".jpg", greys(1)[0])[1].tobytes()
    with av.open(str(tmp_path / "music.mp3"), "w") as output:
        sound = output.add_stream("mp3", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        picture = output.add_stream("mjpeg")
        picture.width, picture.height, picture.pix_fmt = 48, 32, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(cover)
        packet.stream = picture
        output.start_encoding()
        output.mux(packet)
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    with pytest.raises(InputError, match="cover picture"):
        probe_video(tmp_path / "music.mp3")


def test_a_heic_photo_and_a_song_are_no_driving_videos(portraits):
    for name, words in {"phone.heic": "still picture", "cover.mp3": "cover picture"}.items():
        with pytest.raises(InputError, match=f"{name}: expected a video, found .*{words}"):
            probe_video(portraits / "cases" / name)


def test_a_heic_photo_is_read_upright(tmp_path):
    """Phones store the turn beside the pixels."""
    heif = pytest.importorskip("pillow_heif", reason="needs the extra `heic`")
    picture = np.full((64, 96, 3), 40, np.uint8)
    picture[:32, :48] = (220, 60, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise for display
    heif.from_bytes("RGB", (96, 64), picture.tobytes()).save(tmp_path / "a.heic", quality=90, exif=exif.tobytes())
    found = read_image(tmp_path / "a.heic")
    assert found.shape == (96, 64, 3) and np.abs(found.astype(int) - np.rot90(picture, -1)).mean() < 8
    (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:-200])
    with pytest.raises(InputError, match="a.heic: the HEIC photo is damaged"):
        read_image(tmp_path / "a.heic")


def test_a_heic_photo_without_its_library_gets_a_hint(tmp_path, monkeypatch):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match="found a HEIC photo; convert it to JPEG, or pip install pillow-heif"):
        read_image(tmp_path / "photo.heic")


def test_addresses_of_files_are_paths_and_others_are_refused(tmp_path):
    path = encoded(tmp_path / "a b.mp4", greys(3), np.arange(3) / 30)
    for address in (path.as_uri(), Path(path.as_uri())):
        assert len(read_video(address)[0]) == 3
    for address in ("https://example.com/a.mp4", Path("s3://bucket/a.mp4")):
        with pytest.raises(InputError, match="download it first"):
            probe_video(address)


def test_max_frames_and_streaming(tmp_path):
    write_video(tmp_path / "a.mp4", moving_ramp(12), 25)
    assert len(read_video(tmp_path / "a.mp4", max_frames=5)[0]) == 5
    assert sum(1 for _ in iterate_video(tmp_path / "a.mp4")) == 12
    with pytest.raises(InputError, match="at least 1"):
        read_video(tmp_path / "a.mp4", max_frames=0)


def test_bad_videos_are_refused(tmp_path):
    write_video(tmp_path / "good.mp4", moving_ramp(60), 25)
    data = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("no video\n" * 50)
    (tmp_path / "words.txt").write_text("no video\n" * 50)
    write_image(tmp_path / "still.png", moving_ramp(1)[0])
    for name, words in {"none.mp4": "no such file", "cut.mp4": "not a readable video",
                        "empty.mp4": "empty file", "words.mp4": "not a readable video",
                        "words.txt": "expected a video", "still.png": "still picture", ".": "folder"}.items():
        with pytest.raises(InputError, match=words) as error:
            read_video(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_a_truncated_video_is_refused(tmp_path):
    with av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
        for image in noise:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:int(len(data) * 0.6)])
    with pytest.raises(InputError, match="cut off|damaged"):
        read_video(tmp_path / "cut.mp4")


def test_unwritable_output_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_video(tmp_path / "file" / "a.mp4", moving_ramp(), 25)
    with pytest.raises(InputError, match="no frame"):
        write_video(tmp_path / "a.mp4", [], 25)
    with pytest.raises(InputError, match=".mp4"):
        write_video(tmp_path / "a.avi", moving_ramp(), 25)
    (tmp_path / "file").write_text("no sound")
    with pytest.raises(InputError, match="file: expected a file with sound"):
        write_video(tmp_path / "a.mp4", moving_ramp(), 25, audio_from=tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_no_file(tmp_path):
    def frames():
        yield moving_ramp()[0]
        raise RuntimeError("source failed")

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", frames(), 25)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_full_disk_is_named_and_leaves_the_earlier_video(tmp_path, size):
    write_video(tmp_path / "a.mp4", moving_ramp(), 25)
    before = (tmp_path / "a.mp4").read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    with pytest.raises(DiskFull, match=r"a\.mp4 could not be written: the disk is full"), full_disk(size):
        write_video(tmp_path / "a.mp4", noise, 25)
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == before


def test_pictures_round_trip_and_alpha_is_blended_over_white(tmp_path):
    image = moving_ramp(1)[0]
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    clear = np.dstack([image, np.where(np.arange(64) < 32, 0, 255)[None].repeat(48, 0)]).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "b.png"), clear[..., [2, 1, 0, 3]])
    back = read_image(tmp_path / "b.png")
    assert (back[:, :32] == 255).all() and np.array_equal(back[:, 32:], image[:, 32:])
    cv2.imwrite(str(tmp_path / "grey.png"), image[..., 0])
    assert np.array_equal(read_image(tmp_path / "grey.png"), image[..., :1].repeat(3, -1))


def test_exif_orientation_is_applied(tmp_path):
    image = moving_ramp(1)[0]
    jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    # TIFF header and one entry: Orientation (0x0112) = 6, rotate 90 degrees clockwise for display.
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + exif + jpeg[2:])
    back = read_image(tmp_path / "a.jpg")
    assert back.shape == (64, 48, 3)
    assert np.abs(back.astype(float) - np.rot90(image, -1)).mean() < 4


def test_pictures_with_extra_bytes_or_without_an_end_marker_are_read(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    for name, change in {"a.png": lambda data: data + b"\0" * 500, "a.jpg": lambda data: data[:-2],
                         "b.jpg": lambda data: data + b"\xff\xda" + b"more" * 100}.items():
        write_image(tmp_path / name, image)
        expected = read_image(tmp_path / name)
        (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    write_image(tmp_path / "c.jpg", image)
    data = (tmp_path / "c.jpg").read_bytes()
    (tmp_path / "c.jpg").write_bytes(data[:-30])  # the last blocks are missing
    with pytest.raises(InputError, match="cut off"):
        read_image(tmp_path / "c.jpg")


def test_a_damaged_photo_gives_one_warning_and_no_message_of_its_decoder(tmp_path, capfd):
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    write_image(tmp_path / "a.jpg", image)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    data[len(data) // 2:len(data) // 2 + 2] = b"\xff\xd0"  # a marker in the middle of the pixels
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.warns(DamagedPicture, match=r"a\.jpg: the picture may be damaged \(Corrupt JPEG data.*\); look at it"):
        assert read_image(tmp_path / "a.jpg").shape == image.shape
    assert capfd.readouterr() == ("", "")


def test_unreadable_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be read .File name too long"):
        read_image(tmp_path / ("x" * 300 + ".png"))
    write_video(tmp_path / "a.mp4", moving_ramp(), 25)

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(Path, "open", refuse)
    for read in (read_image, read_video):
        with pytest.raises(InputError, match=r"a\.mp4: cannot be read \(Permission denied\)"):
            read(tmp_path / "a.mp4")


def test_bad_pictures_are_refused(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("good.jpg", "good.png"):
        write_image(tmp_path / name, image)
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[:len(data) // 2])
        with pytest.raises(InputError, match="cut off"):
            read_image(tmp_path / f"cut-{name}")
    write_video(tmp_path / "a.mp4", moving_ramp(), 25)
    with pytest.raises(InputError, match="found a video"):
        read_image(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="ends in"):
        write_image(tmp_path / "a.xyz", image)


# --- damaged copies ---------------------------------------------------------------------------------

def damaged(data: bytes, seed: int) -> bytes:
    """Return a copy that is cut short, emptied or random, has a hole, or has flipped bits."""
    rng = np.random.default_rng(seed)
    match seed % 4:
        case 0:
            return data[:int(rng.uniform(0.02, 0.97) * len(data))]
        case 1:
            return b"" if seed % 8 == 1 else rng.bytes(len(data))
        case 2:
            start = int(rng.uniform(0.1, 0.8) * len(data))
            return data[:start] + bytes(min(2000, len(data) - start)) + data[start + 2000:]
    flipped = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(0, len(data), int(rng.choice([1, 3, 10, 100]))):
        flipped[place] ^= np.uint8(1 << rng.integers(8))
    return flipped.tobytes()


def differs(path: Path, whole: list[np.ndarray]) -> float | None:
    """Return None if the video is refused, else the worst frame's mean difference from the intact video."""
    try:
        found = list(iterate_video(path))
    except InputError as error:
        assert str(path) in str(error)
        return None
    if len(found) != len(whole) or found[0].shape != whole[0].shape:
        return 255.0
    return max(float(np.abs(a.astype(np.int16) - b).mean()) for a, b in zip(found, whole, strict=True))


@pytest.fixture(scope="module", params=["drawn", "lp_d0", "lp_s13"])
def video(request, tmp_path_factory):
    if request.param == "drawn":
        clip = render(sample_person("validation", 1), sample_motion("validation", 1, 24), 128)
        path = tmp_path_factory.mktemp("video") / "drawn.mp4"
        write_video(path, clip.frames, 25)
        return path
    path = request.getfixturevalue("portraits") / "clips" / f"{request.param}.mp4"
    assert path.is_file()
    return path


def test_damaged_copies_are_refused_or_decode_almost_unchanged(video, tmp_path):
    """H.264 has no checksums, so that a flipped bit may decode without an error. Then the frames must stay similar.

    Flat drawn frames have few bits, so a flip often gives another valid picture. Only real clips get flips.
    """
    whole, data = list(iterate_video(video)), video.read_bytes()
    drawn = [seed for seed in range(DAMAGED_COPIES) if seed % 4 != 3]
    seeds = drawn if video.stem == "drawn" else range(DAMAGED_COPIES // 4)
    refused = 0
    for seed in seeds:
        path = tmp_path / f"{seed}{'.mp4' if seed % 5 else '.txt'}"
        path.write_bytes(damaged(data, seed))
        found = differs(path, whole)
        refused += found is None
        assert found is None or found < 0.5, (seed, found)
        path.unlink()
    assert refused > 0.75 * len(seeds)
