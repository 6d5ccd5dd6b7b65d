"""Read and write pictures and video as uint8 RGB arrays.

H x W pixels, T frames, channels last. PyAV (FFmpeg) handles video, OpenCV handles pictures. A user's file
that is wrong or damaged raises an `InputError` that names the file.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.files import atomic_file

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Sound that every player accepts in an MP4 file; other sound (PCM, Vorbis, ...) is re-encoded.
_PLAYABLE_SOUND = ("aac", "mp3", "ac3")

# A video that yields less than this share of its declared frames is cut off.
_TRUNCATED_BELOW = 0.9

_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class VideoInfo:
    """Header of a video.

    Attributes:
        fps: mean frames per second; 25 if the file does not declare it.
        declared_frames: number of frames that the container declares; 0 if it does not.
        has_audio: the file contains sound.
    """

    fps: float
    declared_frames: int
    has_audio: bool


# ---------------------------------------------------------------------------------------- pictures


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB: upright (EXIF orientation applied), alpha blended over white.

    Raises:
        InputError: the file is missing, unreadable, not a picture, or cut off.
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
        # Decode again, because only this mode applies the orientation and reduces the picture to 8 bits.
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1])


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) or (H, W) uint8 picture atomically; the file's ending selects the format.

    Raises:
        InputError: the ending is unknown, or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}; rename the output")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in (".jpg", ".jpeg") else []
    image = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    with atomic_file(path) as temporary:
        Path(temporary).write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())


# ------------------------------------------------------------------------------------------- video


def probe_video(path: str | Path) -> VideoInfo:
    """Read the header of a video.

    Raises:
        InputError: the file is missing, not a video, or unreadable.
    """
    path = _existing_file(path, "a video")
    with _open_video(path) as container:
        return _info(container)


def iterate_video(path: str | Path, max_frames: int | None = None, start: float | None = None,
                  end: float | None = None) -> Iterator[np.ndarray]:
    """Yield the upright frames of a video, one (H, W, 3) uint8 RGB array at a time.

    If the stream changes its size, later frames are resized to the first one's. A file that is read to its
    end but holds clearly fewer frames than it declares raises an error after the last good frame.

    Args:
        path: any container that FFmpeg reads.
        max_frames: maximum number of frames; None reads all.
        start, end: yield only frames shown at start <= time < end, in seconds since the first frame; None
            sets no limit. Most frames before `start` are skipped without decoding.

    Raises:
        InputError: the file is missing, not a video, damaged, or cut off, or it has no frame (between
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
                                     "out the good part, e.g. with ffmpeg")
                image = _upright(frame)
                shape = shape or image.shape
                if image.shape != shape:
                    image = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
                yield image
                count += 1
            else:
                if not start and 0 < count < _TRUNCATED_BELOW * declared and count != max_frames:
                    raise InputError(f"{path}: cut off: expected {declared} declared frames, found {count}; "
                                     "copy the file again from its source")
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: damaged after frame {count} ({error.strerror}); "
                             "repair it, or cut out the good part, e.g. with ffmpeg") from error
    if count == 0 and (start or end is not None):
        until = "the end" if end is None else f"{end:g} s"
        raise InputError(f"{path}: expected a frame from {start or 0:g} s to {until}, found none; "
                         f"the video lasts {length}; choose a part of it")
    if count == 0:
        raise InputError(f"{path}: expected a video, found no frame in it; copy the file again from its source")


def read_video(path: str | Path, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """Read the frames of a video, upright according to its rotation metadata, and its frame rate.

    Args:
        path: any container that FFmpeg reads.
        max_frames: maximum number of frames; None reads all.

    Returns:
        frames (T, H, W, 3) uint8 RGB, and frames per second.

    Raises:
        InputError: the file is missing, not a video, damaged or cut off, or it has no frame.
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames: expected at least 1, found {max_frames}; leave it out to read all frames")
    info = probe_video(path)
    return np.stack(list(iterate_video(path, max_frames))), info.fps


def write_video(path: str | Path, frames: np.ndarray | Iterable[np.ndarray], fps: float,
                audio_from: str | Path | None = None, quality: int = 17) -> None:
    """Write a video at once; see `video_writer`.

    Args:
        path, fps, audio_from, quality: see `video_writer`.
        frames: (T, H, W, 3) uint8 RGB, or an iterable of (H, W, 3) frames.

    Raises:
        InputError: there are no frames, the name or the rate is invalid, or the folder cannot be written.
    """
    with video_writer(path, fps, audio_from, quality) as write:
        for frame in frames:
            write(frame)


@contextmanager
def video_writer(path: str | Path, fps: float, audio_from: str | Path | None = None, quality: int = 17
                 ) -> Iterator[Callable[[np.ndarray], None]]:
    """Write H.264 in MP4, frame by frame and atomically; the same input gives the same bytes on the same machine.

    H.264's 4:2:0 format needs even sides, so an odd side repeats its last row or column. One encoder thread
    and a file without dates or version strings keep the bytes equal.

    Args:
        path: output file, ending in .mp4; missing folders are created.
        fps: frames per second.
        audio_from: video or sound file. Its first sound track, if any, is copied up to the end of the frames.
        quality: x264's constant rate factor, 0 (lossless) .. 51; 17 is visually lossless.

    Yields:
        A function that writes an (H, W, 3) uint8 RGB frame. The file appears when the block ends without an error.

    Raises:
        InputError: there was no frame, the name or the rate is invalid, or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: expected an output name that ends in .mp4; rename the output")
    if not fps > 0:
        raise InputError(f"{path}: expected a frame rate above 0, found {fps}; choose another rate")
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_file(path) as temporary, av.open(
            str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        encoder = _Encoder(output, rate, audio_from, quality)
        yield encoder.write
        if not encoder.count:
            raise InputError(f"{path}: expected frames, found no frame to write; give at least one")
        encoder.finish()


class _Encoder:
    """Writes frames and sound to an open file. The first frame decides the size."""

    def __init__(self, output: av.container.OutputContainer, rate: Fraction, audio_from: str | Path | None,
                 quality: int):
        self._output, self._rate, self._audio_from = output, rate, audio_from
        self._stream = output.add_stream("libx264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {"crf": str(quality), "preset": "medium", "flags": "+bitexact"}
        self.count = 0

    def write(self, image: np.ndarray) -> None:
        if not self.count:
            self._stream.height, self._stream.width = (side + side % 2 for side in image.shape[:2])
            self._sound = _copy_target(self._output, self._audio_from)
        frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
        frame.pts, frame.time_base = self.count, 1 / self._rate
        self._output.mux(self._stream.encode(frame))
        self.count += 1

    def finish(self) -> None:
        self._output.mux(self._stream.encode())
        if self._sound is not None:
            _copy_sound(self._output, self._sound, self._audio_from, float(self.count / self._rate))


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
    """Describe the content of a file that is not a readable picture."""
    try:
        with av.open(str(path)) as container:
            kinds = {stream.type for stream in container.streams}
            name = container.format.name
    except (av.error.FFmpegError, OSError):
        return "data in an unknown format"
    if name.endswith("_pipe") or name == "image2":
        return "a damaged picture"
    return "a video" if "video" in kinds else "a sound file" if "audio" in kinds else f"a {name} file"


def _whole_picture(path: Path, data: bytes) -> bytes:
    """Return the picture's bytes, with the end marker that some JPEG writers leave out.

    Raises:
        InputError: a PNG or JPEG lost its end. OpenCV would fill the missing part with grey and raise nothing.
    """
    whole = not data.startswith(b"\x89PNG") or b"IEND" in data
    if data.startswith(b"\xff\xd8") and data.find(_JPEG_END, max(data.rfind(b"\xff\xda"), 0)) < 0:
        # A JPEG that lacks blocks decodes them from the filler, so that the two results differ.
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
        # FFmpeg renders any text file as a terminal screen ("tty"). Lists of files ("concat", "hls", "dash") may
        # name any file of this machine.
        if not container.streams.video or container.format.name in ("tty", "concat", "hls", "dash"):
            raise InputError(f"{path}: expected a video, found a file without pictures "
                             f"({container.format.name}); choose a video file")
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise InputError(f"{path}: expected a video, found a still picture; choose a video file")
        container.streams.video[0].thread_type = "AUTO"
        # By default the decoder conceals damage and reports no error.
        container.streams.video[0].codec_context.options = {"err_detect": "explode+bitstream+buffer+crccheck"}
        yield container


def _info(container: av.container.InputContainer) -> VideoInfo:
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate or 25
    return VideoInfo(float(rate), stream.frames, bool(container.streams.audio))


# Bytes that a valid packet of these codecs never contains, because the codecs escape runs of zero bytes. An
# incomplete download contains them.
_HOLE, _CODECS_WITHOUT_HOLES = bytes(16), ("h264", "hevc")


def _decoded(path: Path, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """Yield frames from the container's current position.

    Raises:
        InputError: a packet has a hole, which decoders may fill without an error.
    """
    stream = container.streams.video[0]
    whole = stream.codec_context.name in _CODECS_WITHOUT_HOLES
    for packet in container.demux(stream):
        if whole and packet.size and bytes(packet).find(_HOLE) >= 0:
            raise InputError(f"{path}: damaged at {float((packet.pts or 0) * stream.time_base):.2f} s: a part of the "
                             "file was never written; copy it again from its source")
        yield from packet.decode()


def _skip_to(path: Path, container: av.container.InputContainer, seconds: float) -> None:
    """Seek to a key frame before `seconds`; stay at the beginning if none can be found."""
    stream = container.streams.video[0]
    # Seek a second earlier, because some containers index key frames by decoding time, which precedes display time.
    key = (stream.start_time or 0) + int(max(0.0, seconds - 1) / stream.time_base)
    with _open_video(path) as trial:  # without an index, the seek may land anywhere
        try:
            trial.seek(key, stream=trial.streams.video[0])
            frame = next(trial.decode(video=0), None)
        except av.error.FFmpegError:
            return
        if frame is None or _seconds(path, trial, frame) > seconds:
            return
    container.seek(key, stream=stream)


def _seconds(path: Path, container: av.container.InputContainer, frame: av.VideoFrame) -> float:
    """Return a frame's display time in seconds since the first frame."""
    if frame.pts is None:
        raise InputError(f"{path}: its frames have no time stamps, so no part of it can be selected; "
                         "use the whole video, or cut out the part, e.g. with ffmpeg")
    return float((frame.pts - (container.streams.video[0].start_time or 0)) * frame.time_base)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    # PyAV's rotation is in degrees counterclockwise, to be applied for display.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns))


def _even(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"video frame: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _copy_target(output: av.container.OutputContainer, source: str | Path | None):
    """Add a sound track for the packets of `source` to `output`; return None if `source` has no sound."""
    if source is None:
        return None
    try:
        opened = av.open(str(_existing_file(source, "a file with sound")))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{source}: expected a file with sound, found an unreadable file "
                         f"({error.strerror}); choose another file") from error
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


def there_and_back(frames: np.ndarray) -> np.ndarray:
    """Append the reversed clip, so that the result loops without a jump."""
    return np.concatenate([frames, frames[-2:0:-1]])
