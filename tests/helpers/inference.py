"""Photos of procedural people, and a backend that records its calls, for the tests of inference."""

from dataclasses import dataclass, field

import numpy as np

from durian_jax.diffusion import Sampling
from durian_jax.faces.clip import Clip
from durian_jax.inference.backend import Segment
from durian_jax.models.durian.config import DurianConfig
from durian_jax.synthetic import render, sample_person, still

SIZE = 64  # H = W in pixels


def photo(index: int, *kinds: str, **pose: float) -> Clip:
    """Return a person who wears these kinds, and no hat unless it is one of them."""
    person = sample_person("validation", index, require=kinds)
    return render(person if "hat" in kinds else person.without("hat"), still(**pose), size=SIZE)


@dataclass
class RecordingBackend:
    """A backend (`inference.backend.Backend`) that records its calls and returns grey frames.

    Attributes:
        calls: batch and keyword arguments of every call of `generate`.
        shared: batch of every call of `references`, which returns "references of call 0", and so on.
    """

    config: DurianConfig = DurianConfig(image_size=SIZE, max_frames=8)
    sampling: Sampling = Sampling(steps=7)
    identity_encoder: None = None
    calls: list[tuple[dict, dict]] = field(default_factory=list)
    shared: list[dict] = field(default_factory=list)

    def references(self, batch):
        self.shared.append(batch)
        return f"references of call {len(self.shared) - 1}"

    def generate_segment(self, batch, sampling, *, first_frame=0, references=None, temporal=None):
        self.calls.append((batch, {"sampling": sampling, "first_frame": first_frame, "references": references,
                                   "temporal": temporal}))
        shape = batch["keypoints"].shape[:2]
        return Segment(np.full((*shape, SIZE, SIZE, 3), 100 + len(self.calls), np.uint8),
                       np.full((*shape, 2, 2, 4), len(self.calls), np.float32))
