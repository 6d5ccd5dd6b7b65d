"""Sound of a video, for another video that shows the same moments: AAC, by PyAV (FFmpeg)."""

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from durian_jax.errors import InputError
from durian_jax.video.given import existing_file, open_media

# Sampling rates of AAC (ISO 14496-3, table 1.18) in Hz.
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_BIT_RATES = {"mono": 96_000, "stereo": 160_000}  # bits per second
# Time stamps of some containers are rounded; sound that they shift by less than this many seconds has no gap.
_ROUNDED = 0.02


class DamagedSound(UserWarning):
    """Warning: a part of the sound could not be read; it is silent."""


class Sound:
    """Copies the first readable sound track of a file into an open output, as AAC.

    The sound begins with the pictures of its file: what a player plays with the first picture comes first, whatever
    the two tracks' first time stamps are. Gaps of the track become silence. So sample n lies at n / rate seconds. All
    sound is encoded again, because packets can neither be cut nor moved by less than their length.

    Args:
        output: container to write into, before its first packet.
        path: video or sound file.

    Raises:
        InputError: the file is missing or unreadable.
    """

    def __init__(self, output: av.container.OutputContainer, path: str | Path):
        self._path, self._output = path, output
        self._given = _open(path)
        # FFmpeg has no decoder for some tracks of phones.
        self._track = next((track for track in self._given.streams.audio if track.codec_context is not None), None)
        if self._track is None:
            return
        codec = self._track.codec_context
        self._rate = codec.sample_rate if codec.sample_rate in _RATES else 48000
        self._layout = "mono" if codec.channels == 1 else "stereo"
        self._stream = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self._stream.codec_context.bit_rate = _BIT_RATES[self._layout]
        self._stream.codec_context.options = {"flags": "+bitexact"}
        self._blocks = self._continuous()
        self._pending = np.zeros((0, self._stream.codec_context.channels), np.float32)
        self._written, self._damaged = 0, False

    def write_until(self, seconds: float) -> None:
        """Write the sound up to a time of the output; it ends earlier if the file's sound does."""
        if self._track is None:
            return
        end = round(seconds * self._rate)
        while self._written < end:
            if not len(self._pending):
                block = next(self._blocks, None)
                if block is None:
                    return
                self._pending = block
            part, self._pending = np.split(self._pending, [end - self._written])
            self._encode(part)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._track is not None and self._written:
            self._output.mux(self._stream.encode())

    def close(self) -> None:
        """Close the file."""
        self._given.close()

    def _encode(self, samples: np.ndarray) -> None:
        """Encode (n, channels) samples."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._written, Fraction(1, self._rate)
        self._output.mux(self._stream.encode(frame))
        self._written += len(samples)

    def _continuous(self) -> Iterator[np.ndarray]:
        """Yield the samples (n, channels) from the first picture on, without gaps."""
        position, started = 0, False
        for first, samples in self._placed():
            if started and (first is None or abs(first - position) <= _ROUNDED * self._rate):
                first = position
            first = position if first is None else first
            while first > position:
                silence = min(first - position, self._rate)
                yield np.zeros((silence, samples.shape[1]), np.float32)
                position += silence
            samples = samples[position - first:]
            if len(samples):
                yield samples
                position, started = position + len(samples), True

    def _placed(self) -> Iterator[tuple[int | None, np.ndarray]]:
        """Yield the number of the first sample, counted from the first picture, and samples (n, channels)."""
        start, resampler, given = _first_moment(self._given), None, None
        for frame in self._decoded():
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if kind != given:
                resampler, given = av.AudioResampler("fltp", self._layout, self._rate), kind
            try:
                parts = resampler.resample(frame)
            except av.error.FFmpegError:
                self._warn(self._written / self._rate)
                continue
            for part in parts:
                first = None if part.pts is None else round((part.pts * part.time_base - start) * self._rate)
                yield first, part.to_ndarray().T
        for part in resampler.resample(None) if resampler else ():
            yield None, part.to_ndarray().T

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yield the frames of the track that can be read."""
        try:
            for packet in self._given.demux(self._track):
                try:
                    yield from packet.decode()
                except av.error.FFmpegError:
                    self._warn(float((packet.pts or 0) * self._track.time_base))
        except av.error.FFmpegError:
            self._warn(self._written / self._rate)

    def _warn(self, seconds: float) -> None:
        """Warn once."""
        if not self._damaged:
            self._damaged = True
            warnings.warn(f"{self._path}: the sound is damaged from {seconds:.2f} s on; damaged parts are silent",
                          DamagedSound, stacklevel=2)


def has_pictures(stream: av.stream.Stream) -> bool:
    """Whether a stream holds moving pictures, and not the cover of music."""
    return stream.type == "video" and not stream.disposition & av.stream.Disposition.attached_pic


def _first_moment(given: av.container.InputContainer) -> Fraction:
    """Time stamp of the first picture in seconds, or of the first sound if there are no pictures."""
    stream = next((stream for stream in given.streams if has_pictures(stream)), given.streams.audio[0])
    return Fraction((stream.start_time or 0) * stream.time_base)


def _open(path: str | Path) -> av.container.InputContainer:
    try:
        return open_media(existing_file(path, "a file with sound"))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: expected a file with sound, found an unreadable file ({error.strerror}); choose "
                         "another file") from error
