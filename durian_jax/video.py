"""Read and write pictures and video: uint8 RGB arrays inside, ordinary files outside.

H x W pixels, T frames, channels last. PyAV (FFmpeg) does video, OpenCV does pictures. Whatever a
user's file may hold wrong ends in an `InputError` that names the file.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.files import atomic_file

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Sound that every player takes from an MP4 file; any other (PCM, Vorbis, ...) is encoded anew.
_PLAYABLE_SOUND = ("aac", "mp3", "ac3")

# A container that promises clearly more frames than it yields has lost its end.
_TRUNCATED_BELOW = 0.9

_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself, before its frames are decoded.

    Attributes:
        fps: mean frames per second (25 where the file names none).
        declared_frames: number of frames the container promises; 0 where it does not say.
        has_audio: the file carries sound.
    """

    fps: float
    declared_frames: int
    has_audio: bool


# ---------------------------------------------------------------------------------------- pictures


def read_image(path: str | Path) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB, upright (EXIF orientation applied), alpha laid over white.

    Raises:
        InputError: the file is missing, unreadable, no picture, or cut off.
    """
    path = _existing_file(path, "a picture")
    pixels = np.frombuffer(_whole_picture(path, path.read_bytes()), np.uint8)
    image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: expected a picture ({', '.join(s[1:] for s in IMAGE_SUFFIXES)}), "
                         f"found {_describe(path)}; give a PNG or JPEG file")
    if image.ndim == 3 and image.shape[2] == 4:
        depth = 65535.0 if image.dtype == np.uint16 else 255.0
        alpha = image[..., 3:].astype(np.float32) / depth
        colour = image[..., :3].astype(np.float32) * (255.0 / depth)
        image = np.rint(colour * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    else:
        # Decoded again: only this mode turns the picture upright and reduces it to 8 bits.
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1])


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) or (H, W) uint8 picture atomically; the format follows the file's ending.

    Raises:
        InputError: the ending names no known format or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in (".jpg", ".jpeg") else []
    image = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    with atomic_file(path) as temporary:
        Path(temporary).write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())


# ------------------------------------------------------------------------------------------- video


def probe_video(path: str | Path) -> VideoInfo:
    """Open a video and read its header only.

    Raises:
        InputError: the file is missing, no video, or unreadable.
    """
    path = _existing_file(path, "a video")
    with _open_video(path) as container:
        return _info(container)


def iterate_video(path: str | Path, max_frames: int | None = None, start: float | None = None,
                  end: float | None = None) -> Iterator[np.ndarray]:
    """Upright frames of a video, one (H, W, 3) uint8 RGB array at a time.

    Frames whose size differs from the first one's (rare: a stream that changes on the way) are
    scaled to it. Read from its beginning to its end, a file that holds clearly fewer frames than it
    promises is an error, raised after the last good frame.

    Args:
        path: any container that FFmpeg reads.
        max_frames: read this many frames at most; None reads all.
        start, end: only frames shown at start <= time < end, in seconds since the first frame; None
            leaves that side open. What lies before `start` is mostly skipped, not decoded.

    Raises:
        InputError: the file is missing, no video, damaged, cut off, or without a single frame (between
            `start` and `end`).
    """
    path = _existing_file(path, "a video")
    with _open_video(path) as container:
        declared, count, shape = _info(container).declared_frames, 0, None
        length = f"{container.duration / av.time_base:.2f} s" if container.duration else "an unknown time"
        try:
            if start:
                _skip_to(path, container, start)
            for frame in _decoded(path, container):
                if count == max_frames:
                    return
                time = _seconds(path, container, frame) if start or end is not None else 0.0
                if start and time < start:
                    continue
                if end is not None and time >= end:
                    break
                if frame.is_corrupt:
                    raise InputError(f"{path}: damaged at frame {count}; copy the file again from its source, or cut "
                                     "the good part out, e.g. with ffmpeg")
                image = _upright(frame)
                shape = shape or image.shape
                if image.shape != shape:
                    image = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
                yield image
                count += 1
            else:
                if not start and 0 < count < _TRUNCATED_BELOW * declared and count != max_frames:
                    raise InputError(f"{path}: cut off: it promises {declared} frames and holds {count}; "
                                     "copy the file again from its source")
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: damaged after frame {count} ({error.strerror}); "
                             "repair it or cut the good part out, e.g. with ffmpeg") from error
    if count == 0 and (start or end is not None):
        until = "the end" if end is None else f"{end:g} s"
        raise InputError(f"{path}: expected a frame from {start or 0:g} s to {until}, found none; "
                         f"the video lasts {length}, choose a part of it")
    if count == 0:
        raise InputError(f"{path}: expected a video, found no frame in it; the file is empty or cut off")


def read_video(path: str | Path, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """Frames of a video, upright as its rotation metadata says, and its frame rate.

    Args:
        path: any container that FFmpeg reads.
        max_frames: read this many frames at most; None reads all.

    Returns:
        frames (T, H, W, 3) uint8 RGB, and frames per second.

    Raises:
        InputError: the file is missing, no video, damaged, cut off, or without a single frame.
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"frames to read: expected at least 1, got {max_frames}")
    info = probe_video(path)
    return np.stack(list(iterate_video(path, max_frames))), info.fps


def write_video(path: str | Path, frames: np.ndarray | Iterable[np.ndarray], fps: float,
                audio_from: str | Path | None = None, quality: int = 17) -> None:
    """Write H.264 in MP4, atomically; the same input gives the same bytes on the same machine.

    H.264's 4:2:0 pictures have even sides: an odd side gets one more row or column, the repeated
    last one. One encoder thread and no dates or version strings keep the bytes equal.

    Args:
        path: file to write, ending in .mp4; missing folders are made.
        frames: (T, H, W, 3) uint8 RGB, or an iterable of such frames.
        fps: frames per second.
        audio_from: video or sound file whose first sound track is copied as far as the frames go;
            one without sound is fine.
        quality: x264's constant rate factor, 0 (lossless) .. 51; 17 is visually lossless.

    Raises:
        InputError: no frames, a bad name or rate, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: expected an output name that ends in .mp4")
    if not fps > 0:
        raise InputError(f"{path}: expected a positive frame rate, got {fps}")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: there is no frame to write")
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_file(path) as temporary, av.open(
            str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        height, width = (side + side % 2 for side in first.shape[:2])
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"crf": str(quality), "preset": "medium", "flags": "+bitexact"}
        sound = _copy_target(output, audio_from)
        count = 0
        for count, image in enumerate(chain([first], frames), start=1):
            frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
            frame.pts, frame.time_base = count - 1, 1 / rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            _copy_sound(output, sound, audio_from, float(count / rate))


# ----------------------------------------------------------------------------------- shared helpers


def _existing_file(path: str | Path, what: str) -> Path:
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; expected {what}")
        if path.is_dir():
            raise InputError(f"{path}: expected {what}, found a folder")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: expected {what}, found an empty file")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {what}") from error
    return path


def _describe(path: Path) -> str:
    """What a file seems to be instead of a picture."""
    try:
        with av.open(str(path)) as container:
            kinds = {stream.type for stream in container.streams}
            name = container.format.name
    except (av.error.FFmpegError, OSError):
        return "data that no decoder knows"
    if name.endswith("_pipe") or name == "image2":
        return "a damaged picture"
    return "a video" if "video" in kinds else "a sound file" if "audio" in kinds else f"a {name} file"


def _whole_picture(path: Path, data: bytes) -> bytes:
    """The picture's bytes, with the end marker that some writers of JPEG leave out.

    Raises:
        InputError: a PNG or JPEG that lost its end; OpenCV would fill the missing part with grey and say nothing.
    """
    whole = not data.startswith(b"\x89PNG") or b"IEND" in data
    if data.startswith(b"\xff\xd8") and data.find(_JPEG_END, max(data.rfind(b"\xff\xda"), 0)) < 0:
        # Only a JPEG that still lacks blocks takes them from whatever follows.
        one, other = (cv2.imdecode(np.frombuffer(data + filler + _JPEG_END, np.uint8), cv2.IMREAD_COLOR)
                      for filler in (b"\x00" * 64, b"\x55" * 64))
        whole = one is not None and np.array_equal(one, other)
        data += _JPEG_END
    if not whole:
        raise InputError(f"{path}: the picture is cut off; copy the file again from its source")
    return data


@contextmanager
def _open_video(path: Path) -> Iterator[av.container.InputContainer]:
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video ({error.strerror}); "
                         "expected MP4, MOV, MKV, WebM, AVI or GIF") from error
    with container:
        # FFmpeg draws any text file as a terminal's screen ("tty").
        # And lists of files ("concat") may name anything on this machine.
        if not container.streams.video or container.format.name in ("tty", "concat", "hls", "dash"):
            raise InputError(f"{path}: expected a video, found a file without pictures "
                             f"({container.format.name})")
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise InputError(f"{path}: expected a video, found a still picture")
        container.streams.video[0].thread_type = "AUTO"
        # Else the decoder conceals damage and says nothing.
        container.streams.video[0].codec_context.options = {"err_detect": "explode+bitstream+buffer+crccheck"}
        yield container


def _info(container: av.container.InputContainer) -> VideoInfo:
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate or 25
    return VideoInfo(float(rate), stream.frames, bool(container.streams.audio))


# What a packet of these codecs never holds: they mark three zero bytes in a row. A download with holes does.
_HOLE, _CODECS_WITHOUT_HOLES = bytes(16), ("h264", "hevc")


def _decoded(path: Path, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """Frames from where the container stands.

    Raises:
        InputError: a packet with a hole, which decoders may fill in without a word.
    """
    stream = container.streams.video[0]
    whole = stream.codec_context.name in _CODECS_WITHOUT_HOLES
    for packet in container.demux(stream):
        if whole and packet.size and bytes(packet).find(_HOLE) >= 0:
            raise InputError(f"{path}: damaged at {float((packet.pts or 0) * stream.time_base):.2f} s: a part of the "
                             "file was never written; copy it again from its source")
        yield from packet.decode()


def _skip_to(path: Path, container: av.container.InputContainer, seconds: float) -> None:
    """Let decoding go on at a key frame before `seconds`; where none can be found, at the beginning."""
    stream = container.streams.video[0]
    # A second earlier: some containers list key frames by decoding time, which is before their time of display.
    key = (stream.start_time or 0) + int(max(0.0, seconds - 1) / stream.time_base)
    with _open_video(path) as trial:  # a container without an index may land anywhere
        try:
            trial.seek(key, stream=trial.streams.video[0])
            frame = next(trial.decode(video=0), None)
        except av.error.FFmpegError:
            return
        if frame is None or _seconds(path, trial, frame) > seconds:
            return
    container.seek(key, stream=stream)


def _seconds(path: Path, container: av.container.InputContainer, frame: av.VideoFrame) -> float:
    """When a frame is shown, since the first one."""
    if frame.pts is None:
        raise InputError(f"{path}: its frames have no time stamps, so no part of it can be named; "
                         "use all of it, or cut the part out, e.g. with ffmpeg")
    return float((frame.pts - (container.streams.video[0].start_time or 0)) * frame.time_base)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    # PyAV: degrees counterclockwise by which the picture is to be turned for display.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns))


def _even(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"video frame: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _copy_target(output: av.container.OutputContainer, source: str | Path | None):
    """A sound track of `output` made for the packets of `source`, or None where it has no sound."""
    if source is None:
        return None
    try:
        opened = av.open(str(_existing_file(source, "a file with sound")))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{source}: expected a file with sound, found one that cannot be read "
                         f"({error.strerror})") from error
    with opened as given:
        if not given.streams.audio:
            return None
        codec = given.streams.audio[0].codec_context
        if codec.name in _PLAYABLE_SOUND:
            return output.add_stream_from_template(given.streams.audio[0])
        return output.add_stream("aac", rate=codec.sample_rate)


def _copy_sound(output: av.container.OutputContainer, sound, source: str | Path, seconds: float) -> None:
    with av.open(str(source)) as given:
        track = given.streams.audio[0]
        if track.codec_context.name in _PLAYABLE_SOUND:
            for packet in given.demux(track):
                if packet.dts is not None and packet.pts * packet.time_base < seconds:
                    packet.stream = sound
                    output.mux(packet)
            return
        for frame in given.decode(track):
            if frame.time >= seconds:
                break
            output.mux(sound.encode(frame))
        output.mux(sound.encode())
