"""`durian animate`: animate a photo by a video. Every input is checked before the model is built."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.checkpoints.description import Description
from durian_jax.convert.bundle import read_bundle
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.families import get_family
from durian_jax.files import together, writable_file, write_json
from durian_jax.inference.animator import Animator
from durian_jax.inference.backend import Backend
from durian_jax.inference.family import check_driven_by, check_options
from durian_jax.inference.size import at_size
from durian_jax.prepare.annotate import FramesLeftOut, annotate_image, annotate_video
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.track import describe_ranges
from durian_jax.versions import versions
from durian_jax.video import probe_video, read_image, video_writer

# Programs that can run a model.
BACKENDS = ("jax", "torch")


def animate_files(source: str | Path, driving: str | Path, attributes: Sequence[str], out: str | Path, *,
                  checkpoint: str | Path = "tiny", frames: int | None = None, size: int | None = None,
                  sampling: Sampling | Mapping[str, Any] | None = None, backend: str = "jax", device: str | None = None,
                  dtype: str | None = None, driven_by: str | None = None, **options: Any) -> dict:
    """Animate a photo by a video.

    Writes `out`, `<out>_concat.mp4` (driving | source | attributes | result, with the driving video's sound) and
    `<out>.json`. The same arguments give the same videos.

    Args:
        source: photo of the identity.
        driving: video of the motion.
        attributes: "KIND=PHOTO" each.
        out: the .mp4 to write.
        checkpoint: name of a shipped checkpoint, or a folder; for the torch backend, the folder of an export.
        frames: largest number of frames; None: all.
        size: side of the pictures; None: the checkpoint's. Some models make one size only.
        sampling: steps, guidance, seed and sampler; fields that are left out are the checkpoint's.
        backend: one of `BACKENDS`.
        device: of the torch backend, such as "cuda"; None: a GPU if there is one.
        dtype: of the torch backend; None: the precision that the model was trained in.
        driven_by: refuse models that see something else of the video, "keypoints" or "pixels"; None: take any.
        options: of the model's family, see its `make_job` in `inference`.

    Returns:
        The content of the JSON: frames, settings, seconds and versions.

    Raises:
        InputError: anything wrong with an input, the output, the checkpoint or the device, before the model is built.
    """
    clock = _Clock()
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if backend == "jax" and (device or dtype):
        raise InputError("device and dtype are for backend='torch'; JAX takes its default device and the model's dtype")
    out = writable_file(out, (".mp4",))
    concat_out, report_out = out.with_name(f"{out.stem}_concat.mp4"), out.with_suffix(".json")
    requests = parse_attributes(attributes)
    # What needs neither JAX nor PyTorch comes first, because importing them takes seconds.
    for photo in (source, *requests.values()):
        read_image(photo)
    video = probe_video(driving)
    for output in (out, concat_out, report_out):
        _check_output(output, (source, driving, *requests.values()))
    found = _describe(checkpoint, backend, device)
    found = replace(found, config=at_size(found.config, size, str(checkpoint)))
    model_size, sampling = found.config.image_size, found.sampling_for(sampling)
    if driven_by is not None:
        check_driven_by(found.config, driven_by, str(checkpoint))
    check_options(found.config, options)
    count = min((known for known in (frames, video.declared_frames) if known), default=0)
    get_family(found.config.family).load("inference").check_motion(found.config, video.fps, count, **options)

    with Annotator() as annotator:
        portrait = annotate_image(source, model_size, annotator=annotator)
        donors = [(kind, annotate_image(photo, model_size, known=(kind,), annotator=annotator))
                  for kind, photo in requests.items()]
        driver = _annotate_driving(driving, model_size, frames, annotator)
    clock.lap("annotate")

    model, place = _load(checkpoint, found, backend, device, dtype)
    clock.lap("load")
    done = 0
    with together() as place_of:
        with video_writer(place_of(out), driver.fps) as write, \
                video_writer(place_of(concat_out), driver.fps, driving) as write_concat:
            for result in Animator(model).stream(portrait, donors, driver, sampling=sampling, **options):
                clock.lap("animate")
                beside = concat(driver[done:done + len(result)], portrait, donors, result)
                for frame, row in zip(result, beside, strict=True):
                    write(frame)
                    write_concat(row)
                done += len(result)
                clock.lap("write")
        clock.lap("write")
        report = {
            "frames": done,
            "settings": {"source": str(source), "driving": str(driving),
                         "attributes": {kind: str(photo) for kind, photo in requests.items()},
                         "checkpoint": str(checkpoint), "size": model_size, "fps": driver.fps, "backend": backend,
                         **place, **asdict(sampling), **options},
            "seconds": clock.seconds(),
            "versions": versions(),
        }
        write_json(place_of(report_out), report)
    return report


def _describe(checkpoint: str | Path, backend: str, device: str | None) -> Description:
    """The description of a model that can run here."""
    if backend == "torch":
        import durian_jax.pytorch  # noqa: F401 - names a missing package

        found, _ = read_bundle(checkpoint)
        from durian_jax.pytorch.device import choose_device  # imports PyTorch, which takes seconds

        choose_device(device)
        return found
    from durian_jax.checkpoints.weights import read_description

    return read_description(checkpoint)


def _load(checkpoint: str | Path, found: Description, backend: str, device: str | None, dtype: str | None
          ) -> tuple[Backend, dict[str, str]]:
    """The model, and the settings of its backend for the report."""
    if backend == "torch":
        family = get_family(found.config.family).load("pytorch")
        pipeline = family.from_pretrained(checkpoint, dtype, found.config.image_size).to(device)
        return pipeline, {"device": str(pipeline.device), "dtype": str(pipeline.dtype)}
    from durian_jax.checkpoints.weights import load_checkpoint
    from durian_jax.inference.generate import JaxBackend

    return JaxBackend(replace(load_checkpoint(checkpoint), config=found.config)), {}


def parse_attributes(attributes: Sequence[str]) -> dict[str, str]:
    """Parse ["hair=a.png", ...] to {"hair": "a.png", ...} in the given order.

    Raises:
        InputError: not "KIND=PHOTO", an unknown kind, or a kind given twice.
    """
    requests: dict[str, str] = {}
    for text in attributes:
        kind, sign, photo = text.partition("=")
        if not sign or not photo:
            raise InputError(f"attribute {text!r}: expected KIND=PHOTO, such as hair=person.png")
        attribute_bit(kind)
        if kind in requests:
            raise InputError(f"attribute {kind} is given twice ({requests[kind]} and {photo}); choose one")
        requests[kind] = photo
    return requests


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


def _annotate_driving(path: str | Path, size: int, frames: int | None, annotator: Annotator) -> Clip:
    """The driving clip. A frame without a face is an error: a gap would separate motion and sound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FramesLeftOut)  # the error below names them
        clip, skipped = annotate_video(path, size, frames, annotator=annotator)
    if skipped:
        raise InputError(f"{path}: no face found in frames {describe_ranges(skipped)}; expected one in every "
                         "frame; cut these frames out, or stop before them with --frames")
    return clip


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
