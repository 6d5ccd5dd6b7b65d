"""`durian animate`: animate a photo by a video. Every input is checked before the model is built."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from durian_jax.animation.paste import Place, pasted_size
from durian_jax.animation.requests import Request, parse_attributes
from durian_jax.animation.settings import Settings
from durian_jax.annotator import Annotator
from durian_jax.checkpoints.description import Description
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.families import get_family
from durian_jax.files import together, writable_file, write_json
from durian_jax.images import turned
from durian_jax.inference.animator import Animator
from durian_jax.inference.backend import Backend
from durian_jax.inference.references import Attributes, with_photos
from durian_jax.prepare.annotate import annotate_image, annotate_video, check_photo
from durian_jax.prepare.track import describe_ranges
from durian_jax.progress import say
from durian_jax.versions import versions
from durian_jax.video import Provenance, check_length, probe_video, read_image, video_writer
from durian_jax.video.signing import can_sign, load_signer

Result = TypeVar("Result")


def animate_files(source: str | Path, driving: str | Path, attributes: Sequence[str], out: str | Path, *,
                  checkpoint: str | Path = "tiny", frames: int | None = None, size: int | None = None,
                  sampling: Sampling | Mapping[str, Any] | None = None, backend: str = "jax", device: str | None = None,
                  dtype: str | None = None, driven_by: str | None = None, paste_back: bool = False, audio: bool = True,
                  fps: float | None = None, crf: int | None = None, face: str = "largest",
                  driving_face: str = "largest", gaps: str = "bridge", timeline: str | Path | None = None,
                  c2pa_cert: str | Path | None = None, c2pa_key: str | Path | None = None, **options: Any) -> dict:
    """Animate a photo by a video.

    Writes `out`, `<out>_concat.mp4` (driving | source | attributes | result) and `<out>.json`; with `paste_back` also
    `<out>_crop.mp4`. The same arguments give the same videos, unless they are signed. All videos say that they are AI
    generated, see `video.provenance`. For several videos see `animate_jobs`.

    Args:
        source: photo of the identity.
        driving: video of the motion.
        attributes: "KIND=PHOTO", "KIND=none" or "KIND=PHOTO,PHOTO@WEIGHT" each, see `requests.parse_attributes`; a file
            of `save_attribute` may stand for a photo.
        out: the .mp4 to write.
        checkpoint: name of a shipped checkpoint, or a folder; for the torch backend, the folder of an export.
        frames: largest number of frames of the result; None: all.
        size: side of the pictures; None: the checkpoint's. Some models make one size only.
        sampling: steps, guidance, seed, sampler and noise; fields that are left out are the checkpoint's.
        backend: "jax" or "torch".
        device: of the torch backend, such as "cuda"; None: a GPU if there is one.
        dtype: of the torch backend; None: the precision that the model was trained in.
        driven_by: refuse models that see something else of the video, "keypoints" or "pixels"; None: take any.
        paste_back: `out` shows the whole source photo, in which the person moves (see `paste.paste_back`);
            `<out>_crop.mp4` shows the crop.
        audio: videos have the driving video's sound, if it has any.
        fps: frames per second of the result, 1 to 120; the driving video is resampled to it. None: the driving video's.
        crf: x264's constant rate factor, 0 (lossless) .. 51; None: see `video.video_writer`.
        face, driving_face: of several faces in the photo, and of several people in the video, "largest", "left",
            "right", or the number, counted from the left from 1.
        gaps: of frames without a face in the video: "bridge" moves the face on within half a second and refuses longer
            gaps, "hold" lets it stand still in them.
        timeline: file of one more attribute, which changes over time, see `animation.timeline`.
        c2pa_cert, c2pa_key: PEM files of a certificate chain and its private key, which sign a C2PA manifest in each
            video; None: no manifest. See `video.signing.load_signer`.
        options: of the model's family, see its `make_job` in `inference`.

    Returns:
        The content of the JSON: frames, settings, seconds and versions.

    Raises:
        InputError: anything wrong with an input, the output, the checkpoint or the device, before the model is built.
    """
    request = Request(source, driving, parse_attributes(attributes, timeline=timeline), writable_file(out, (".mp4",)))
    settings = Settings(checkpoint, frames, size, sampling, backend, device, dtype, driven_by, paste_back, audio, fps,
                        crf, face, driving_face, gaps, c2pa_cert, c2pa_key, options)
    session = Session(settings)
    session.check(request)
    inputs = session.annotate(request)
    session.load()
    return session.make(request, inputs)


@dataclass(frozen=True)
class Inputs:
    """The annotated inputs of a request.

    Attributes:
        portrait: the source photo.
        donors: kind and photo of each attribute, see `inference.references.make_references`.
        driver: the driving video.
        faceless: its frames without a face, as (first, last + 1) ranges.
        place: of the portrait in the whole photo, to paste it back.
        warnings: the texts of the warnings about the inputs.
    """

    portrait: Clip
    donors: list[tuple[str, Clip | None]]
    driver: Clip
    faceless: list[tuple[int, int]]
    place: Place | None
    warnings: tuple[str, ...] = ()


class Session:
    """A model and an annotator that serve one request after the other: `check`, `annotate`, `load` and `make`.

    Args:
        settings: of all requests.
    """

    def __init__(self, settings: Settings):
        self.settings, self._clock = settings, _Clock()
        self._found: Description | None = None
        self._model: tuple[Backend, dict[str, str]] | None = None
        self._readable: set[tuple[str, str | Path]] = set()
        # Of folders and tables, one photo or video often serves several requests. Clips of videos are large.
        self._photo, self._driver = _Recent(self._annotate_photo, 8), _Recent(self._annotate_driver, 1)

    @cached_property
    def annotator(self) -> Annotator:
        """The annotator, loaded when it is first used."""
        return Annotator()

    @cached_property
    def provenance(self) -> Provenance:
        """What the videos say of their origin.

        Raises:
            InputError: the certificate or its key cannot sign.
        """
        return Provenance(self.settings.checkpoint, load_signer(self.settings.c2pa_cert, self.settings.c2pa_key))

    def describe(self) -> Description:
        """Return the description of the model, see `Settings.describe`. The first call takes seconds."""
        if self._found is None:
            self._found = self.settings.describe()
        return self._found

    def load_annotator(self) -> None:
        """Load the annotator now.

        Raises:
            InputError: its models are missing.
        """
        _ = self.annotator  # loads it

    def check(self, request: Request) -> None:
        """Check a request as far as it takes no time. What needs neither JAX nor PyTorch comes first.

        Raises:
            InputError: an input that is unreadable or does not fit the model, or an output that cannot be written; or
                the checkpoint or the device does not fit the settings.
        """
        writable_file(request.out, (".mp4",))
        worn = [(kind, photo) for kind, wanted in request.attributes.items() for photo in wanted.photos]
        for kind, photo in (("", request.source), *worn):
            if (kind, photo) not in self._readable:
                check_photo(photo, (kind,) if kind else None)
                self._readable.add((kind, photo))
        settings, video = self.settings, probe_video(request.driving).at_rate(self.settings.fps)
        check_length(request.driving, video.fps, video.declared_frames, settings.frames)
        for output in request.outputs(settings.paste_back):
            _check_output(output, request.inputs)
        count = min((known for known in (settings.frames, video.declared_frames) if known), default=0)
        _ = self.provenance  # reads and tries the certificate
        config = self.describe().config
        get_family(config.family).load("inference").check_motion(config, video.fps, count, **settings.options)

    def annotate(self, request: Request) -> Inputs:
        """Find the faces of a request that `check` has accepted.

        Raises:
            InputError: an input shows no usable face or not its attribute, or the annotator is not installed.
        """
        self._clock = _Clock()
        portrait, texts = self._photo(str(request.source))
        donors: list[tuple[str, Clip | None]] = []
        for kind, wanted in request.attributes.items():
            for photo in wanted.photos:
                donor, more = self._photo(str(photo), kind)
                donors.append((kind, donor))
                texts += more
            if not wanted.photos:
                donors.append((kind, None))
                if not portrait.mask(kind).any():
                    texts += (f"{request.source}: no {kind} found, so there is none to take away",)
                    say(f"durian: {texts[-1]}")
        (driver, faceless), more = self._driver(str(request.driving))
        place = self._place(request, portrait) if self.settings.paste_back else None
        self._clock.lap("annotate")
        return Inputs(portrait, donors, driver, faceless, place, texts + more)

    def load(self) -> None:
        """Load the model, once.

        Raises:
            InputError: it cannot be loaded.
        """
        if self._model is None:
            self._model = self.settings.load(self.describe())
            if self.provenance.signer is None and can_sign():
                say("durian: the videos get plain metadata and no C2PA manifest, because no certificate is given "
                    "(--c2pa-cert, --c2pa-key)")
        self._clock.lap("load")

    def make(self, request: Request, inputs: Inputs) -> dict:
        """Animate and write; return the content of the JSON.

        Raises:
            InputError: the model's output is not finite, or the driving video shows no eyes that the model needs. All
                outputs appear together at the end; after an error, earlier ones are unchanged.
        """
        assert self._model is not None
        settings, clock, driver, done = self.settings, self._clock, inputs.driver, 0
        (model, _), sampling = self._model, self.describe().sampling
        with together() as place_of:
            with ExitStack() as files:
                sound = request.driving if settings.audio else None
                opened = lambda path: files.enter_context(video_writer(place_of(path), driver.fps, sound,
                                                                       settings.crf, self.provenance))
                write, write_concat = opened(request.crop if inputs.place else request.out), opened(request.concat)
                write_pasted = opened(request.out) if inputs.place else None
                for result in Animator(model).stream(inputs.portrait, inputs.donors, driver, sampling=sampling,
                                                     **self._options(request, driver)):
                    clock.lap("animate")
                    beside = concat(driver[done:done + len(result)], inputs.portrait, inputs.donors, result)
                    for frame, row in zip(result, beside, strict=True):
                        write(frame)
                        write_concat(row)
                        if inputs.place is not None and write_pasted is not None:
                            write_pasted(inputs.place.paste(frame, self.annotator))
                    done += len(result)
                    clock.lap("write")
            clock.lap("write")
            report = {
                "frames": done, "frames_without_a_face": describe_ranges(inputs.faceless),
                "warnings": list(inputs.warnings),
                "settings": self._used(request, driver.fps),
                "provenance": self.provenance.report,
                "seconds": clock.seconds(),
                "versions": versions(),
            }
            write_json(place_of(request.report), report)
        return report

    def _used(self, request: Request, fps: float) -> dict[str, Any]:
        """The settings, for the JSON."""
        assert self._model is not None
        settings = self.settings
        return {"source": str(request.source), "driving": str(request.driving),
                "attributes": request.described,
                "checkpoint": str(settings.checkpoint), "size": self._size, "fps": fps, "face": settings.face,
                "driving_face": settings.driving_face, "gaps": settings.gaps, "paste_back": settings.paste_back,
                "audio": settings.audio, "crf": settings.crf, "backend": settings.backend, **self._model[1],
                **asdict(self.describe().sampling), **settings.options}

    def _options(self, request: Request, driver: Clip) -> dict[str, Any]:
        """Options of the model's family for a request."""
        blend = request.interpolate(len(driver), driver.fps)
        return dict(self.settings.options) if blend is None else {**self.settings.options, "interpolate": blend}

    @property
    def _size(self) -> int:
        return self.describe().config.image_size

    def _place(self, request: Request, portrait: Clip) -> Place:
        photo = read_image(request.source)
        photo = turned(photo, self.annotator.turn(photo))
        size, pasted = photo.shape[:2], pasted_size(*photo.shape[:2])
        if pasted != size:
            say(f"durian: {request.out}: {pasted[1]} x {pasted[0]} pixels for a photo of {size[1]} x {size[0]}; "
                "H.264 players of phones and browsers take no larger video")
        return Place(photo, portrait)

    def _annotate_photo(self, path: str, *known: str) -> tuple[Clip, tuple[str, ...]]:
        """Return the clip and the warnings' texts."""
        if not known:
            return _noted(annotate_image, path, self._size, annotator=self.annotator, face=self.settings.face)
        return _noted(annotate_image, path, self._size, known=known, annotator=self.annotator)

    def _annotate_driver(self, path: str) -> tuple[tuple[Clip, list[tuple[int, int]]], tuple[str, ...]]:
        """Return the clip with its frames without a face, and the warnings' texts."""
        settings = self.settings
        return _noted(annotate_video, path, self._size, settings.frames, annotator=self.annotator,
                      face=settings.driving_face, gaps=settings.gaps, fps=settings.fps, masker=None)


def concat(driving: Clip, portrait: Clip, attributes: Attributes, result: np.ndarray) -> np.ndarray:
    """(T, H, n W, 3): driving | source | every attribute | result; photos stand still."""
    photos = [portrait, *(photo for _, photo in with_photos(attributes))]
    stills = [np.broadcast_to(photo.frames, result.shape) for photo in photos]
    return np.concatenate([driving.frames, *stills, result], axis=2)


def _check_output(output: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse an output that cannot be written or that is one of the inputs."""
    writable_file(output)
    for given in inputs:
        if output.exists() and output.samefile(given):
            raise InputError(f"output {output} would replace the input {given}; choose another output name")


def _noted(function: Callable[..., Result], *arguments: Any, **options: Any) -> tuple[Result, tuple[str, ...]]:
    """Return what a function returns, and the text of each warning; the warnings are shown as usual."""
    given: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always", UserWarning)
            result = function(*arguments, **options)
    finally:
        for one in given:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return result, tuple(" ".join(str(one.message).split()) for one in given if issubclass(one.category, UserWarning))


class _Recent(Generic[Result]):
    """Remembers what a function has returned or refused for its last arguments."""

    def __init__(self, function: Callable[..., Result], count: int):
        self._function, self._count = function, count
        self._known: dict[tuple, Result | InputError] = {}

    def __call__(self, *arguments: str) -> Result:
        if arguments not in self._known:
            while len(self._known) >= self._count:
                del self._known[next(iter(self._known))]
            try:
                self._known[arguments] = self._function(*arguments)
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
