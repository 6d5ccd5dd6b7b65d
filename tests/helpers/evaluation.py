"""Recorded clips, a stand-in model and files of evaluations for the tests of evaluation."""

from unittest.mock import create_autospec

import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.data.synthesize import synthesize
from durian_jax.diffusion import Objective
from durian_jax.evaluation import transfer
from durian_jax.evaluation.columns import SUITES
from durian_jax.evaluation.suites.run import BUILDERS
from durian_jax.evaluation.transfer import SUMMARY_KEYS, summarize
from durian_jax.files import write_json
from durian_jax.images import to_uint8
from durian_jax.inference.generate import generate
from durian_jax.models.durian.config import DurianConfig

SIZE = 64  # H = W in pixels


def record_clips(folder):
    """Write six procedural clips of five frames into the folder."""
    synthesize(folder, "validation", 6, 5, SIZE, workers=0)


def use_blank_model(monkeypatch, program):
    """Make a program (a module) use a model that returns the blanked portrait.

    Returns:
        A list that collects, for each call of the model, the shapes of its batch.
    """
    batches = []

    def blank(checkpoint, batch, sampling):
        batches.append({name: value.shape for name, value in batch.items()})
        return np.repeat(to_uint8(batch["portrait"])[:, None], batch["keypoints"].shape[1], 1)
    checkpoint = Checkpoint(DurianConfig(image_size=SIZE, max_frames=6), Objective(), {})
    monkeypatch.setattr(transfer, "generate", create_autospec(generate, side_effect=blank))
    monkeypatch.setattr(program, "load_checkpoint", lambda _: checkpoint)
    monkeypatch.setattr(program, "read_description", lambda _: checkpoint.description)
    return batches


def write_evaluation(path, better=0.0, suites=("light", "pairs"), cases=3, frames=2, **settings):
    """Write a file as `durian evaluate --suite` does, with random scores and without pictures.

    Args:
        better: is added to every score.
        settings: further settings.
    """
    rng = np.random.default_rng(7)
    rows = {name: [*BUILDERS[name].rows(1, 1, SIZE, "validation")] for name in suites}
    keys = {name: (*SUMMARY_KEYS, *(column.key for column in SUITES[name].columns)) for name in suites}
    scores = {name: {row: [{key: rng.uniform(1, 30) + better for key in keys[name]} for _ in range(cases)]
                     for row in rows[name]} for name in suites}
    same = {name: BUILDERS[name].reference is not None for name in suites}
    write_json(path, {"settings": {"benchmark": "suites", "suites": suites, "cases": cases, "frames": frames,
                                   "split": "validation", "size": SIZE, **settings},
                      "suites": {name: {"same_people": same[name], "scores": scores[name],
                                        "summary": summarize(scores[name], keys[name], same[name])} for name in suites},
                      "seconds": 3.5, "versions": {"durian-jax": "0.1.0"}})
