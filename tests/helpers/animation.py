"""Stand-ins for the annotator and the model of `animate_files` and `animate_jobs`."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from durian_jax.animation import files
from durian_jax.checkpoints import weights
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.images import to_uint8
from durian_jax.inference import generate as generate_module
from durian_jax.inference.backend import Segment
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.unet.config import UNetConfig
from durian_jax.prepare.attribute_file import is_attribute_file
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.video import read_image

SIZE, FRAMES = 64, 5
# A model of any size. Its sampling differs from the defaults of `Sampling`.
CHECKPOINT = Checkpoint(DurianConfig(image_size=SIZE, max_frames=8, unet=UNetConfig(positions=False)), Objective(), {},
                        sampling=Sampling(steps=3, guidance_scale=2.0, sampler="ddim"))


def stand_in(monkeypatch) -> SimpleNamespace:
    """Replace the annotator and the model, which returns the blanked portrait; return their calls.

    `photos`, `videos` and `sampled` list the calls; `annotators` and `loads` count the starts. Set `missing` to the
    ranges of driving frames in which no face is found; `chosen` lists the choices of faces and gaps. Photos of `SIZE`
    pixels are their own crops. Attribute files are read.
    """
    made = SimpleNamespace(photos=[], videos=[], missing=[], sampled=[], batches=[], chosen=[], annotators=0, loads=0)

    read = files.annotate_image

    class FakeAnnotator:
        def __init__(self):
            made.annotators += 1

        def turn(self, image):
            return 0

        def person(self, image):
            return np.full(image.shape[:2], 255, np.uint8)

    def annotate_image(path, size, known=(), annotator=None, face="largest"):
        made.photos.append((path, size, known))
        made.chosen.append(face)
        if is_attribute_file(path):
            return read(path, size, known=known)
        clip = render(sample_person("validation", len(made.photos), require=("hair",)).without("hat"), still(), size)
        picture = read_image(path)
        if picture.shape[0] == size:
            clip = replace(clip, frames=picture[None], box=np.float32([[size / 2, size / 2, size]]))
        return clip

    def annotate_video(path, size, frames, annotator=None, face="largest", gaps="skip", fps=None, masker="default"):
        assert masker is None, "drivers need no masks"
        made.videos.append(path)
        made.chosen += [face, gaps]
        count = min(FRAMES, frames or FRAMES)
        clip = render(sample_person("validation", 7), sample_motion("validation", 7, count), size)
        return replace(clip, fps=fps or clip.fps), made.missing

    def load_checkpoint(_):
        made.loads += 1
        return CHECKPOINT

    def generate(checkpoint, batch, sampling, **options):
        made.sampled.append((checkpoint, sampling))
        made.batches.append(batch)
        images = np.repeat(to_uint8(batch["portrait"])[:, None], batch["keypoints"].shape[1], 1)
        return Segment(images, np.zeros((*images.shape[:2], 2, 2, 4), np.float32))
    monkeypatch.setattr(files, "Annotator", FakeAnnotator)
    monkeypatch.setattr(files, "annotate_image", annotate_image)
    monkeypatch.setattr(files, "annotate_video", annotate_video)
    monkeypatch.setattr(weights, "read_description", lambda _: CHECKPOINT.description)
    monkeypatch.setattr(weights, "load_checkpoint", load_checkpoint)
    monkeypatch.setattr(generate_module, "generate_segment", generate)
    return made
