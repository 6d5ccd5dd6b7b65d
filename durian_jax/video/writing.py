"""Write video with sound: H.264 in MP4, by PyAV (FFmpeg)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from durian_jax.errors import InputError
from durian_jax.files import atomic_file
from durian_jax.video.given import existing_file, open_media

# Sound that every player accepts in an MP4 file; other sound (PCM, Vorbis, ...) is re-encoded.
_PLAYABLE_SOUND = ("aac", "mp3", "ac3")


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
        opened = open_media(existing_file(source, "a file with sound"))
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
    with open_media(source) as given:
        track = given.streams.audio[0]
        if track.codec_context.name in _PLAYABLE_SOUND:
            for packet in given.demux(track):
                if packet.dts is None or packet.pts is None:
                    continue
                if packet.pts * packet.time_base >= seconds:  # sound has no frames out of order
                    break
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
