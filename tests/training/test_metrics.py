"""Metrics of a run."""

import json
import subprocess
import sys

METRICS = """
import sys, numpy as np
from pathlib import Path
from durian_jax.training.metrics import MetricsWriter
writer = MetricsWriter(Path(sys.argv[1]), 0)
writer.scalars(1, {"loss": 0.5})
writer.image(1, "samples", np.zeros((4, 4, 3), np.uint8))
writer.close()
assert "torch" not in sys.modules
import torch
"""


def test_metrics_are_written_without_pytorch(tmp_path):
    """Writing metrics does not import PyTorch, and other code can still import it afterwards."""
    subprocess.run([sys.executable, "-c", METRICS, str(tmp_path)], check=True)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes() and b"PNG" in events.read_bytes()
