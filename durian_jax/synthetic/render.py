"""Render a person and a motion to frames, masks and keypoints."""

from dataclasses import replace

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, Driver, attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic.accessories import paint_beard, paint_glasses, paint_hat, paint_moustache, paint_temples
from durian_jax.synthetic.colours import mix
from durian_jax.synthetic.face import Face
from durian_jax.synthetic.figure import paint_body, paint_eyes, paint_head, paint_mouth
from durian_jax.synthetic.geometry import project
from durian_jax.synthetic.hair import paint_back, paint_front
from durian_jax.synthetic.motion import Motion
from durian_jax.synthetic.person import Identity, Person
from durian_jax.synthetic.sketch import LABEL, Sketch


def render(person: Person, motion: Motion, size: int = 128) -> Clip:
    """Render a moving person.

    Args:
        person: identity and worn attributes.
        motion: T frames of motion.
        size: height and width of the frames in pixels, at least 16.

    Returns:
        A clip of T frames with the keypoints of the drawn face. Its masks mark the pixels that a visible
        attribute covers by half or more.

    Raises:
        InputError: `size` is below 16.
    """
    if size < 16:
        raise InputError(f"procedural frames: expected at least 16 px per side, found {size}; raise the size")
    face = Face(person.identity, motion)
    sketch = compose(person, face)
    # Supersampling makes edges smooth: 3 x, or 2 x from 256 px.
    zoom = 3 if size < 256 else 2
    frames = np.empty((len(motion), size, size, 3), np.uint8)
    masks = np.zeros((len(motion), size, size), np.uint8)
    canvases = sketch.paint(_backdrop(person.identity, size * zoom), motion)
    for index, canvas in enumerate(canvases):
        small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
        frames[index] = small[..., :3]
        labels = canvas[..., 3]
        for kind in person.attributes:
            share = cv2.resize(cv2.compare(labels, LABEL[kind], cv2.CMP_EQ), (size, size),
                               interpolation=cv2.INTER_AREA)
            masks[index] |= (share > 127).astype(np.uint8) * attribute_bit(kind)
    keypoints = project(face.keypoints(), motion)
    return Clip(frames, keypoints, masks, motion.fps, person.name)


def add_driver(clip: Clip, driver: Person, motion: Motion) -> Clip:
    """Return a rendered clip with a driver: another person, rendered with the same motion and size."""
    drawn = render(driver, motion, clip.frames.shape[1])
    return replace(clip, driver=Driver(drawn.frames, drawn.keypoints, driver.name))


def compose(person: Person, face: Face) -> Sketch:
    """Return all strokes of a person, from back to front."""
    identity, sketch = person.identity, Sketch()
    hair, glasses, beard, hat = (person.attributes.get(kind) for kind in ATTRIBUTE_KINDS)

    def paint(label, function, *arguments):
        sketch.label = label
        function(sketch, face, *arguments)

    if hair:
        paint("hair", paint_back, hair, hat is not None)
    paint("", paint_body, identity)
    paint("", paint_head, identity)
    if beard:
        paint("beard", paint_beard, beard)
    paint("", paint_mouth, identity)
    if beard:
        paint("beard", paint_moustache, beard)
    paint("", paint_eyes, identity)
    if glasses:
        paint("glasses", paint_temples, glasses)
    if hair:
        paint("hair", paint_front, hair, hat is not None)
    if glasses:
        paint("glasses", paint_glasses, glasses)
    if hat:
        paint("hat", paint_hat, hat)
    return sketch


def _backdrop(identity: Identity, size: int) -> np.ndarray:
    """Return (S, S, 4) uint8: a vertical gradient of two colours, with or without a pale disc."""
    v = np.linspace(0, 1, size)[:, None]
    rows = (1 - v) * np.array(identity.background) + v * np.array(identity.background_low)
    canvas = np.zeros((size, size, 4), np.uint8)
    canvas[..., :3] = np.round(rows)[:, None]
    if identity.backdrop == "disc":
        tone = mix(mix(identity.background, identity.background_low, 0.5), (255, 255, 255), 0.3)
        centre = (round(0.5 * size), round(0.47 * size))
        cv2.circle(canvas, centre, round(0.42 * size), (*tone, 0), -1)
    return canvas
