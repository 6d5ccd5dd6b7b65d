"""`durian animate`: animate a photo by a video. Every input is checked before the model is built."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.animation.paste import Place, pasted_size
from durian_jax.animation.requests import Request, parse_attributes
from durian_jax.animation.settings import Settings
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.families import get_family
from durian_jax.files import writable_file, write_json
from durian_jax.inference.animator import Animator
from durian_jax.inference.backend import Backend
from durian_jax.prepare.annotate import FramesLeftOut, annotate_image, annotate_video
from durian_jax.prepare.client import Annotator, AnnotatorStopped
from durian_jax.prepare.track import describe_ranges
from durian_jax.progress import say
from durian_jax.versions import versions
from durian_jax.video import probe_video, read_image, video_writer


def animate_files(source: str | Path, driving: str | Path, attributes: Sequence[str], out: str | Path, *,
                  checkpoint: str | Path = "tiny", frames: int | None = None, size: int | None = None,
                  sampling: Sampling | Mapping[str, Any] | None = None, backend: str = "jax", device: str | None = None,
                  dtype: str | None = None, driven_by: str | None = None, paste_back: bool = False, audio: bool = True,
                  fps: float | None = None, crf: int | None = None, **options: Any) -> dict:
    """Animate a photo by a video.

    Writes `out`, `<out>_concat.mp4` (driving | source | attributes | result) and `<out>.json`; with `paste_back` also
    `<out>_crop.mp4`. The same arguments give the same videos. For several videos see `animate_jobs`.

    Args:
        source: photo of the identity.
        driving: video of the motion.
        attributes: "KIND=PHOTO" each.
        out: the .mp4 to write.
        checkpoint: name of a shipped checkpoint, or a folder; for the torch backend, the folder of an export.
        frames: largest number of frames of the result; None: all.
        size: side of the pictures; None: the checkpoint's. Some models make one size only.
        sampling: steps, guidance, seed and sampler; fields that are left out are the checkpoint's.
        backend: "jax" or "torch".
        device: of the torch backend, such as "cuda"; None: a GPU if there is one.
        dtype: of the torch backend; None: the precision that the model was trained in.
        driven_by: refuse models that see something else of the video, "keypoints" or "pixels"; None: take any.
        paste_back: `out` shows the whole source photo, in which the person moves (see `paste.paste_back`);
            `<out>_crop.mp4` shows the crop.
        audio: videos have the driving video's sound, if it has any.
        fps: frames per second of the result, 1 to 120; the driving video is resampled to it. None: the driving video's.
        crf: x264's constant rate factor, 0 (lossless) .. 51; None: see `video.video_writer`.
        options: of the model's family, see its `make_job` in `inference`.

    Returns:
        The content of the JSON: frames, settings, seconds and versions.

    Raises:
        InputError: anything wrong with an input, the output, the checkpoint or the device, before the model is built.
    """
    request = Request(source, driving, parse_attributes(attributes), writable_file(out, (".mp4",)))
    settings = Settings(checkpoint, frames, size, sampling, backend, device, dtype, driven_by, paste_back, audio, fps,
                        crf, options)
    with Session(settings) as session:
        session.check(request)
        inputs = session.annotate(request)
        if not paste_back:
            session.stop_annotator()
        session.load()
        return session.make(request, inputs)


@dataclass(frozen=True)
class Inputs:
    """The annotated inputs of a request.

    Attributes:
        portrait: the source photo.
        donors: kind and photo of each attribute.
        driver: the driving video.
        place: of the portrait in the whole photo, to paste it back.
    """

    portrait: Clip
    donors: list[tuple[str, Clip]]
    driver: Clip
    place: Place | None


class Session:
    """A model and an annotator that serve one request after the other: `check`, `annotate`, `load` and `make`.

    Args:
        settings: of all requests.

    Raises:
        InputError: the checkpoint or the device does not fit the settings.
    """

    def __init__(self, settings: Settings):
        self.settings, self._clock = settings, _Clock()
        self._found = settings.describe()
        self._sampling = self._found.sampling_for(settings.sampling)
        self._size = self._found.config.image_size
        self._model: tuple[Backend, dict[str, str]] | None = None
        self._annotator: ExitStack | None = None
        self._worker: Annotator | None = None
        self._readable: set[str | Path] = set()
        # Of folders and tables, one photo or video often serves several requests. Clips of videos are large.
        self._photo, self._driver = _Recent(self._annotate_photo, 8), _Recent(self._annotate_driver, 1)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_) -> None:
        self.stop_annotator()

    def check(self, request: Request) -> None:
        """Check a request as far as it takes no time.

        Raises:
            InputError: an input that is unreadable or does not fit the model, or an output that cannot be written.
        """
        writable_file(request.out, (".mp4",))
        for photo in (request.source, *request.attributes.values()):
            if photo not in self._readable:
                read_image(photo)
                self._readable.add(photo)
        settings, video = self.settings, probe_video(request.driving).at_rate(self.settings.fps)
        count = min((known for known in (settings.frames, video.declared_frames) if known), default=0)
        get_family(self._found.config.family).load("inference").check_motion(self._found.config, video.fps, count,
                                                                             **settings.options)
        for output in request.outputs(settings.paste_back):
            _check_output(output, request.inputs)

    def annotate(self, request: Request) -> Inputs:
        """Find the faces of a request that `check` has accepted.

        Raises:
            InputError: an input shows no usable face or not its attribute, or the annotator is not installed.
        """
        self._clock = _Clock()
        try:
            portrait = self._photo(str(request.source))
            donors = [(kind, self._photo(str(photo), kind)) for kind, photo in request.attributes.items()]
            driver = self._driver(str(request.driving))
        except AnnotatorStopped:
            self.stop_annotator()  # the next request starts another one
            raise
        place = self._place(request, portrait) if self.settings.paste_back else None
        self._clock.lap("annotate")
        return Inputs(portrait, donors, driver, place)

    def load(self) -> None:
        """Load the model, once.

        Raises:
            InputError: it cannot be loaded.
        """
        if self._model is None:
            self._model = self.settings.load(self._found)
        self._clock.lap("load")

    def make(self, request: Request, inputs: Inputs) -> dict:
        """Animate and write; return the content of the JSON.

        Raises:
            InputError: the model's output is not finite, or the driving video shows no eyes that the model needs.
        """
        assert self._model is not None
        settings, clock, driver, done = self.settings, self._clock, inputs.driver, 0
        model, of_backend = self._model
        with ExitStack() as files:
            sound = request.driving if settings.audio else None
            opened = lambda path: files.enter_context(video_writer(path, driver.fps, sound, settings.crf))
            write, write_concat = opened(request.crop if inputs.place else request.out), opened(request.concat)
            write_pasted = opened(request.out) if inputs.place else None
            for result in Animator(model).stream(inputs.portrait, inputs.donors, driver, sampling=self._sampling,
                                                 **settings.options):
                clock.lap("animate")
                beside = concat(driver[done:done + len(result)], inputs.portrait, inputs.donors, result)
                for frame, row in zip(result, beside, strict=True):
                    write(frame)
                    write_concat(row)
                    if inputs.place is not None and write_pasted is not None:
                        write_pasted(inputs.place.paste(frame, self.start_annotator()))
                done += len(result)
                clock.lap("write")
        clock.lap("write")
        report = {
            "frames": done,
            "settings": {"source": str(request.source), "driving": str(request.driving),
                         "attributes": {kind: str(photo) for kind, photo in request.attributes.items()},
                         "checkpoint": str(settings.checkpoint), "size": self._size, "fps": driver.fps,
                         "paste_back": settings.paste_back, "audio": settings.audio, "crf": settings.crf,
                         "backend": settings.backend, **of_backend, **asdict(self._sampling), **settings.options},
            "seconds": clock.seconds(),
            "versions": versions(),
        }
        write_json(request.report, report)
        return report

    def stop_annotator(self) -> None:
        """Stop the annotator until it is needed again."""
        if self._annotator is not None:
            self._annotator.close()
            self._annotator = self._worker = None

    def start_annotator(self) -> Annotator:
        """Return the running annotator; start one if none is running.

        Raises:
            InputError: it is not installed.
        """
        if self._worker is None:
            self._annotator = ExitStack()
            self._worker = self._annotator.enter_context(Annotator())
        return self._worker

    @staticmethod
    def _place(request: Request, portrait: Clip) -> Place:
        photo = read_image(request.source)
        size, pasted = photo.shape[:2], pasted_size(*photo.shape[:2])
        if pasted != size:
            say(f"durian: {request.out}: {pasted[1]} x {pasted[0]} pixels for a photo of {size[1]} x {size[0]}; "
                "H.264 players of phones and browsers take no larger video")
        return Place(photo, portrait)

    def _annotate_photo(self, path: str, *known: str) -> Clip:
        if not known:
            return annotate_image(path, self._size, annotator=self.start_annotator())
        return annotate_image(path, self._size, known=known, annotator=self.start_annotator())

    def _annotate_driver(self, path: str) -> Clip:
        """The driving clip. A frame without a face is an error: a gap would separate motion and sound."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FramesLeftOut)  # the error below names them
            clip, skipped = annotate_video(path, self._size, self.settings.frames, annotator=self.start_annotator(),
                                           fps=self.settings.fps)
        if skipped:
            raise InputError(f"{path}: no face found in frames {describe_ranges(skipped)}; expected one in every "
                             "frame; cut these frames out, or stop before them with --frames")
        return clip


def concat(driving: Clip, portrait: Clip, attributes: Sequence[tuple[str, Clip]],
           result: np.ndarray) -> np.ndarray:
    """(T, H, n W, 3): driving | source | every attribute | result; photos stand still."""
    photos = [portrait, *(photo for _, photo in attributes)]
    stills = [np.broadcast_to(photo.frames, result.shape) for photo in photos]
    return np.concatenate([driving.frames, *stills, result], axis=2)


def _check_output(output: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse an output that cannot be written or that is one of the inputs."""
    writable_file(output)
    for given in inputs:
        if output.exists() and output.samefile(given):
            raise InputError(f"output {output} would replace the input {given}; choose another output name")


class _Recent:
    """Remembers what a function has returned or refused for its last arguments."""

    def __init__(self, function: Callable[..., Clip], count: int):
        self._function, self._count = function, count
        self._known: dict[tuple, Clip | InputError] = {}

    def __call__(self, *arguments: str) -> Clip:
        if arguments not in self._known:
            while len(self._known) >= self._count:
                del self._known[next(iter(self._known))]
            try:
                self._known[arguments] = self._function(*arguments)
            except AnnotatorStopped:
                raise
            except InputError as error:
                self._known[arguments] = error
        known = self._known[arguments]
        if isinstance(known, InputError):
            raise known
        return known


class _Clock:
    """Measures the seconds of each part of the work."""

    def __init__(self):
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name], self._last = self._laps.get(name, 0.0) + now - self._last, now

    def seconds(self) -> dict[str, float]:
        return {**self._laps, "total": time.perf_counter() - self._start}
