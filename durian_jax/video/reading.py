"""Read video as uint8 RGB arrays, by PyAV (FFmpeg), as a player shows it.

Files of phones and editors are made constant: every frame has one duration, square pixels, and ordinary colours. Edit
lists are followed.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.video.colour import HDR_TRANSFERS, to_sdr
from durian_jax.video.given import existing_file, open_media
from durian_jax.video.limits import MOST_FRAMES, check_frame_size, check_length, picture_size
from durian_jax.video.pictures import STILL_BRANDS
from durian_jax.video.sound import has_pictures

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")

# A video that ends before this share of its declared duration is cut off.
_TRUNCATED_BELOW = 0.9
_RATE_FRAMES = 600  # frames whose durations tell the rate
_SAME_RATE = 0.05  # the typical duration and the mean one differ by less if the rate is constant
_LONGEST_HOLD = 600.0  # seconds that one frame may stand still
_SQUARE = 0.01  # pixels are square up to this
_HEAD = 1 << 16  # bytes of a file that hold a picture's header


@dataclass(frozen=True)
class VideoInfo:
    """Header of a video.

    Attributes:
        fps: frames per second, as `iterate_video` yields them: the mean rate, or that of most frames if durations vary;
            25 if the file does not declare it.
        declared_frames: number of frames at this rate that the container declares; 0 if it does not.
        has_audio: the file contains sound.
        hdr: "PQ" or "HLG" if the video has HDR colours, which become ordinary ones; else "".
        width, height: of the stored frames in pixels, before rotation.
    """

    fps: float
    declared_frames: int
    has_audio: bool
    hdr: str = ""
    width: int = 0
    height: int = 0

    def at_rate(self, fps: float | None) -> "VideoInfo":
        """Return what `iterate_video` yields at another rate; None: unchanged."""
        return self if fps is None else replace(self, fps=fps,
                                                declared_frames=round(self.declared_frames * fps / self.fps))


def probe_video(path: str | Path) -> VideoInfo:
    """Read the header of a video.

    Raises:
        InputError: the file is missing, not a video, or unreadable.
    """
    path = existing_file(path, "a video")
    with _open_video(path) as (container, stream):
        fps = _rate(path, stream)
        duration = _duration(stream)
        return VideoInfo(fps, round(duration * fps) if duration else stream.frames, bool(container.streams.audio),
                         HDR_TRANSFERS.get(stream.codec_context.color_trc, ""), stream.width, stream.height)


def iterate_video(path: str | Path, max_frames: int | None = None, start: float | None = None,
                  end: float | None = None, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yield the upright frames of a video, one (H, W, 3) uint8 RGB array at a time, `fps` of them a second.

    Where frames last longer, they are repeated; where they are shorter, some are left out, so that frame n is what a
    player shows at n / fps seconds. If the stream changes its size, later frames are resized to the first one's.

    Args:
        path: any container that FFmpeg reads.
        max_frames: maximum number of frames; None reads all.
        start, end: yield only frames shown at start <= time < end, in seconds since the first frame; None
            sets no limit. Most frames before `start` are skipped without decoding.
        fps: frames per second; None: `VideoInfo.fps`.

    Raises:
        InputError: the file is missing, not a video, too large or too long (`limits`), damaged, or cut off, or it has
            no frame (between `start` and `end`). An error in the middle comes after the last good frame.
    """
    path = existing_file(path, "a video")
    info = probe_video(path)
    own, last = info.fps, info.declared_frames if end is None else min(info.declared_frames, _slot(end, info.fps))
    check_length(path, own, max(0, last - _slot(start or 0.0, own)), max_frames)
    fps = own if fps is None else fps
    with _open_video(path) as (container, stream):
        length = f"{container.duration / av.time_base:.2f} s" if container.duration else "an unknown time"
        if start:
            _skip_to(path, container, stream, start)
        timed = _timed(path, container, stream, own, start is not None or end is not None)
        shown = _shown(path, timed, fps, start or 0.0, float(stream.codec_context.sample_aspect_ratio or 1))
        stop = None if end is None else max(0, _slot(end, fps) - _slot(start or 0.0, fps))
        limit = min((n for n in (max_frames, stop) if n is not None), default=None)
        count, shape = 0, None
        try:
            for image in islice(shown, limit):
                if count >= MOST_FRAMES:  # the header declared fewer, or no number
                    check_length(path, fps, count + 1)
                shape = shape or image.shape
                yield image if image.shape == shape else cv2.resize(image, (shape[1], shape[0]),
                                                                     interpolation=cv2.INTER_AREA)
                count += 1
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: damaged after frame {count} ({error.strerror}); "
                             "repair it, or cut out the good part, e.g. with ffmpeg") from error
        duration = _duration(stream)
        if count != limit and not start and 0 < count / fps < _TRUNCATED_BELOW * duration:
            raise InputError(f"{path}: cut off: expected {duration:.2f} s, found {count / fps:.2f} s; "
                             "copy the file again from its source")
    if count == 0 and (start or end is not None):
        until = "the end" if end is None else f"{end:g} s"
        raise InputError(f"{path}: expected a frame from {start or 0:g} s to {until}, found none; "
                         f"the video lasts {length}; choose a part of it")
    if count == 0 and limit != 0:
        raise InputError(f"{path}: expected a video, found no frame in it; copy the file again from its source")


def read_video(path: str | Path, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """Read the frames of a video, see `iterate_video`, and its frame rate.

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
    return np.stack(list(iterate_video(path, max_frames))), probe_video(path).fps


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Open a file, and its first stream of moving pictures."""
    with path.open("rb") as file:
        size = picture_size(file.read(_HEAD))
    if size is not None:  # FFmpeg decodes a still picture when it opens it
        check_frame_size(path, *size)
    try:
        container = open_media(path)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video ({error.strerror}); "
                         "expected MP4, MOV, MKV, WebM, AVI or GIF") from error
    with container:
        streams = [stream for stream in container.streams.video if has_pictures(stream)]
        name = container.format.name
        if container.streams.video and not streams:
            raise InputError(f"{path}: expected a video, found sound with a cover picture; choose a video file")
        # FFmpeg renders any text file as a terminal screen ("tty"). Lists of files ("concat", "hls", "dash") may
        # name any file of this machine.
        if not streams or name in ("tty", "concat", "hls", "dash"):
            raise InputError(f"{path}: expected a video, found a file without pictures ({name}); choose a video file")
        if name.endswith("_pipe") or name == "image2" or container.metadata.get("major_brand") in STILL_BRANDS:
            raise InputError(f"{path}: expected a video, found a still picture; choose a video file")
        if streams[0].codec_context is None:
            raise InputError(f"{path}: expected a video in a known format, found pictures that FFmpeg cannot decode; "
                             "export it as H.264")
        check_frame_size(path, streams[0].width, streams[0].height)
        streams[0].thread_type = "AUTO"
        # By default the decoder conceals damage and reports no error.
        streams[0].codec_context.options = {"err_detect": "explode+bitstream+buffer+crccheck"}
        yield container, streams[0]


def _duration(stream: av.video.stream.VideoStream) -> float:
    """Declared seconds; 0 if the container does not tell."""
    return float(stream.duration * stream.time_base) if stream.duration else 0.0


def _rate(path: Path, stream: av.video.stream.VideoStream) -> float:
    """Frames per second: the mean rate, or the typical one if the durations of the first frames vary."""
    mean = float(stream.average_rate or stream.guessed_rate or 25)
    with _open_video(path) as (container, other):
        try:
            packets = islice(container.demux(other), _RATE_FRAMES)
            times = sorted(float(packet.pts * packet.time_base) for packet in packets
                           if packet.pts is not None and not packet.is_discard)
        except av.error.FFmpegError:  # the frames after this place are reported when they are read
            times = []
    steps = np.diff(times)
    typical = float(np.median(steps)) if len(steps) else 0.0
    return mean if typical <= 0 or abs(typical * mean - 1) < _SAME_RATE else 1 / typical


def _slot(seconds: float, fps: float) -> int:
    """Number of the first frame at or after a time."""
    return math.ceil(seconds * fps - 1e-6)


def _shown(path: Path, timed: Iterator[tuple[float, float, av.VideoFrame]], fps: float, start: float, wide: float
           ) -> Iterator[np.ndarray]:
    """What a player shows every 1 / fps seconds from `start` on; `wide` is the shape of a pixel.

    If the first frames cannot be decoded, the first one that can is shown instead, so that sound stays in time.
    """
    held, image, until, slot = None, None, 0.0, _slot(start, fps)

    def hold(next_slot: int) -> Iterator[np.ndarray]:
        """The frame that is shown, up to a slot; it is converted only if it is."""
        nonlocal image, slot
        for _ in range(slot, next_slot):
            image = _picture(path, held, wide) if image is None else image
            yield image
            slot += 1

    for time, seconds, frame in timed:
        wanted = round(time * fps)
        if wanted - slot > _LONGEST_HOLD * fps:
            raise InputError(f"{path}: its time stamps jump from {until:.2f} s to {time:.2f} s; repair it, e.g. with "
                             "ffmpeg")
        if held is not None:
            yield from hold(wanted)
        elif start:
            slot = max(slot, wanted)
        held, image, until = frame, None, time + seconds
    if held is not None:
        yield from hold(round(until * fps))


# Bytes that a valid packet of these codecs never contains, because the codecs escape runs of zero bytes. An
# incomplete download contains them.
_HOLE, _CODECS_WITHOUT_HOLES = bytes(16), ("h264", "hevc")


def _timed(path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream, fps: float,
           needs_times: bool) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yield time since the first frame, duration (both in seconds) and frame, from the container's position on.

    Raises:
        InputError: a packet has a hole, which decoders may fill without an error; or times are needed but missing.
    """
    whole = stream.codec_context.name in _CODECS_WITHOUT_HOLES
    count = 0
    for packet in container.demux(stream):
        if whole and packet.size and bytes(packet).find(_HOLE) >= 0:
            raise InputError(f"{path}: damaged at {float((packet.pts or 0) * stream.time_base):.2f} s: a part of the "
                             "file was never written; copy it again from its source")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise InputError(f"{path}: damaged at frame {count}; copy the file again from its source, or cut "
                                 "out the good part, e.g. with ffmpeg")
            if frame.pts is None and needs_times:
                raise InputError(f"{path}: its frames have no time stamps, so no part of it can be selected; "
                                 "use the whole video, or cut out the part, e.g. with ffmpeg")
            time = count / fps if frame.pts is None else _seconds(stream, frame)
            yield time, float(frame.duration * frame.time_base) if frame.duration else 1 / fps, frame
            count += 1


def _seconds(stream: av.video.stream.VideoStream, frame: av.VideoFrame) -> float:
    """Return a frame's display time in seconds since the first frame."""
    return float((frame.pts - (stream.start_time or 0)) * frame.time_base)


def _skip_to(path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream, seconds: float
             ) -> None:
    """Seek to a key frame before `seconds`; stay at the beginning if none can be found."""
    # Seek a second earlier, because some containers index key frames by decoding time, which precedes display time.
    key = (stream.start_time or 0) + int(max(0.0, seconds - 1) / stream.time_base)
    with _open_video(path) as (trial, other):  # without an index, the seek may land anywhere
        try:
            trial.seek(key, stream=other)
            frame = next(trial.decode(other), None)
        except av.error.FFmpegError:
            return
        if frame is None or frame.pts is None or _seconds(other, frame) > seconds:
            return
    container.seek(key, stream=stream)


def _picture(path: Path, frame: av.VideoFrame, wide: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, with square pixels and ordinary colours."""
    width, height = frame.width, frame.height
    if abs(wide - 1) > _SQUARE:
        width, height = (round(width * wide), height) if wide > 1 else (width, round(height / wide))
    check_frame_size(path, width, height)
    if frame.color_trc in HDR_TRANSFERS:
        image = to_sdr(frame.reformat(width, height, format="rgb48le").to_ndarray(), frame.color_trc)
    else:
        image = frame.reformat(width, height, format="rgb24").to_ndarray()
    # PyAV's rotation is in degrees counterclockwise, to be applied for display.
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))
