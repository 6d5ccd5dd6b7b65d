"""`durian animate`: from files to files. Every input is looked at before the model starts."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.files import writable_file, write_json
from durian_jax.inference.animator import Animator
from durian_jax.inference.generate import generate
from durian_jax.prepare.annotate import annotate_image, annotate_video, describe_ranges
from durian_jax.prepare.client import Annotator
from durian_jax.versions import versions
from durian_jax.video import probe_video, read_image, write_video


def animate_files(source: str | Path, driving: str | Path, attributes: Sequence[str], out: str | Path, *,
                  checkpoint: str | Path = "tiny", frames: int | None = None, size: int | None = None,
                  steps: int | None = None, guidance_scale: float | None = None, seed: int = 0) -> dict:
    """Animates a photo by a video.

    Writes `out`, `<out>_concat.mp4` (driving | source | attributes | result, with the driving video's
    sound) and `<out>.json`. The same arguments give the same videos.

    Args:
        source: photo of the identity.
        driving: video of the motion.
        attributes: "KIND=PHOTO" each.
        out: the .mp4 to write.
        checkpoint: name of a shipped one, or a folder.
        frames: at most so many; None takes all.
        size: side of the pictures; None takes the checkpoint's, which is the only one it can make.
        steps, guidance_scale, seed: of the sampler; None takes its defaults.

    Returns:
        What the JSON holds: frames, settings, seconds and versions.

    Raises:
        InputError: anything wrong with an input or the output, before the model starts.
    """
    clock = _Clock()
    out = writable_file(out, (".mp4",))
    requests = parse_attributes(attributes)
    for photo in (source, *requests.values()):
        read_image(photo)
    probe_video(driving)
    animator = Animator(checkpoint)
    if size is not None and size != animator.size:
        raise InputError(f"size {size}: the checkpoint {checkpoint} makes pictures of {animator.size} x "
                         f"{animator.size} pixels; leave --size out or name another checkpoint")
    clock.lap("load")

    with Annotator() as annotator:
        portrait = annotate_image(source, animator.size, annotator=annotator)
        donors = [(kind, annotate_image(photo, animator.size, known=(kind,), annotator=annotator))
                  for kind, photo in requests.items()]
        driver = _annotate_driving(driving, animator.size, frames, annotator)
    clock.lap("annotate")

    options = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed}
    result = animator.animate(portrait, donors, driver, **options)
    clock.lap("animate")

    write_video(out, result, driver.fps)
    write_video(out.with_name(f"{out.stem}_concat.mp4"), concat(driver, portrait, donors, result), driver.fps,
                audio_from=driving)
    clock.lap("write")
    report = {
        "frames": len(result),
        "settings": {"source": str(source), "driving": str(driving),
                     "attributes": {kind: str(photo) for kind, photo in requests.items()},
                     "checkpoint": str(checkpoint), "size": animator.size, "fps": driver.fps, "seed": seed,
                     **{name: generate.__kwdefaults__[name] if options[name] is None else options[name]
                        for name in ("steps", "guidance_scale")}},
        "seconds": clock.seconds(),
        "versions": versions(),
    }
    write_json(out.with_suffix(".json"), report)
    return report


def parse_attributes(attributes: Sequence[str]) -> dict[str, str]:
    """["hair=a.png", ...] -> {"hair": "a.png", ...} in the given order.

    Raises:
        InputError: no "KIND=PHOTO", an unknown kind, or a kind given twice.
    """
    requests = {}
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


def _annotate_driving(path: str | Path, size: int, frames: int | None, annotator: Annotator) -> Clip:
    """The driving clip; a gap would tear motion and sound apart, so it is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the gaps are named below
        clip, skipped = annotate_video(path, size, frames, annotator=annotator)
    if skipped:
        raise InputError(f"{path}: no face found in frames {describe_ranges(skipped)}; expected one in every "
                         "frame; cut those frames out, or stop before them with --frames")
    return clip


class _Clock:
    """Seconds of each part of the work."""

    def __init__(self):
        self._start = self._last = time.perf_counter()
        self._laps = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now

    def seconds(self) -> dict[str, float]:
        return {**self._laps, "total": time.perf_counter() - self._start}
