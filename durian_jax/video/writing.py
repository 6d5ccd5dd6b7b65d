"""Write video with sound: H.264 in MP4, by PyAV (FFmpeg)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from durian_jax.errors import InputError
from durian_jax.files import atomic_file
from durian_jax.video.provenance import Provenance
from durian_jax.video.sound import Sound

# x264's constant rate factor by default: visually lossless.
CRF = 17
# By default the bit rate stays below this factor x (pixels per second) ** 0.75: 12 Mbit/s at 1920 x 1080 and 30 frames
# per second, 0.3 at 128 x 128 and 25. Only pictures full of noise reach it.
_LARGEST_RATE = 17.0
# Pixels that x264 keeps to look ahead: its usual 40 frames up to 1920 x 1080; larger ones would take gigabytes.
_AHEAD = 40 * 1920 * 1080
# Numbers of ISO 23091-2: primaries and transfer function of sRGB's screens, the matrix, values from 16 to 235.
_BT709, _BT601, _LIMITED = 1, 6, 1


def write_video(path: str | Path, frames: np.ndarray | Iterable[np.ndarray], fps: float,
                audio_from: str | Path | None = None, crf: int | None = None, provenance: Provenance | None = None
                ) -> None:
    """Write a video at once; see `video_writer`.

    Args:
        path, fps, audio_from, crf, provenance: see `video_writer`.
        frames: (T, H, W, 3) uint8 RGB, or an iterable of (H, W, 3) frames.

    Raises:
        InputError: there are no frames, the name or the rate is invalid, or the folder cannot be written.
    """
    with video_writer(path, fps, audio_from, crf, provenance) as write:
        for frame in frames:
            write(frame)


@contextmanager
def video_writer(path: str | Path, fps: float, audio_from: str | Path | None = None, crf: int | None = None,
                 provenance: Provenance | None = None) -> Iterator[Callable[[np.ndarray], None]]:
    """Write H.264 in MP4, frame by frame and atomically; the same input gives the same bytes on the same machine.

    H.264's 4:2:0 format needs even sides, so an odd side repeats its last row or column. One encoder thread
    and a file without dates or version strings keep the bytes equal.

    Args:
        path: output file, ending in .mp4; missing folders are created.
        fps: frames per second.
        audio_from: video or sound file. Its first sound track, if any, is heard from its first picture up to the end
            of the frames.
        crf: x264's constant rate factor, 0 (lossless) .. 51; None: `CRF`, with a limit of the bit rate that fits the
            size.
        provenance: says that the video is AI generated; give it for every result of a model. A signed video differs
            from call to call. None: the video says nothing of its origin.

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
    check_crf(crf, str(path))
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_file(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as output:
            if provenance is not None:
                output.metadata.update(provenance.metadata)
            encoder = _Encoder(output, rate, audio_from, crf)
            try:
                yield encoder.write
                if not encoder.count:
                    raise InputError(f"{path}: expected frames, found no frame to write; give at least one")
                encoder.finish()
            finally:
                encoder.close()
        if provenance is not None:
            provenance.sign(temporary, path.name)


def check_crf(crf: int | None, what: str) -> None:
    """Refuse a constant rate factor that x264 does not have; `what` names it in the error.

    Raises:
        InputError: it is not in 0 .. 51.
    """
    if crf is not None and not 0 <= crf <= 51:
        raise InputError(f"{what}: expected a constant rate factor from 0 (lossless) to 51 (worst), found {crf}; 17 "
                         "cannot be told from lossless")


class _Encoder:
    """Writes frames and sound to an open file. The first frame decides the size."""

    def __init__(self, output: av.container.OutputContainer, rate: Fraction, audio_from: str | Path | None,
                 crf: int | None):
        self._output, self._rate, self._crf = output, rate, crf
        self._stream = output.add_stream("libx264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count = 1
        # FFmpeg converts to the matrix of BT.601; players would guess another one for large pictures.
        codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range = _BT709, _BT709, _BT601, _LIMITED
        self._sound = None if audio_from is None else Sound(output, audio_from)
        self.count = 0

    def write(self, image: np.ndarray) -> None:
        if not self.count:
            self._start(*image.shape[:2])
        # One thread: several gave other bytes in about one video of a hundred.
        frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24").reformat(format="yuv420p", threads=1)
        frame.pts, frame.time_base = self.count, 1 / self._rate
        self._output.mux(self._stream.encode(frame))
        self.count += 1
        if self._sound is not None:
            self._sound.write_until(float(self.count / self._rate))

    def finish(self) -> None:
        self._output.mux(self._stream.encode())
        if self._sound is not None:
            self._sound.finish()

    def close(self) -> None:
        if self._sound is not None:
            self._sound.close()

    def _start(self, height: int, width: int) -> None:
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        options = {"crf": str(CRF if self._crf is None else self._crf), "preset": "medium", "flags": "+bitexact",
                   "x264-params": "weightp=0:weightb=0",  # its choice of weights varies for pictures of few pixels
                   "rc-lookahead": str(min(40, max(8, _AHEAD // (height * width))))}
        if self._crf is None:
            largest = round(_LARGEST_RATE * float(height * width * self._rate) ** 0.75)
            options |= {"maxrate": str(largest), "bufsize": str(largest)}
        self._stream.codec_context.options = options


def _even(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"video frame: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def there_and_back(frames: np.ndarray) -> np.ndarray:
    """Append the reversed clip, so that the result loops without a jump."""
    return np.concatenate([frames, frames[-2:0:-1]])
