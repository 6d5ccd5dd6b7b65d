"""Metrics and progress bars of a run."""

import io
import json
import subprocess
import sys

from tqdm import tqdm

from durian_jax.training.metrics import bar_in_logs

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


def test_a_progress_bar_in_a_log_writes_whole_lines(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert bar_in_logs() == {}, "a notebook replaces sys.stderr and draws the bar itself"
    monkeypatch.setattr(sys, "__stderr__", log)
    with tqdm(total=2, desc="stage 1", **{**bar_in_logs(), "mininterval": 0}) as bar:
        bar.update()
        bar.update()
    lines = log.getvalue().split("\n")
    assert len(lines) >= 3 and lines.pop() == "" and "\r" not in log.getvalue()
    assert all(line.startswith("stage 1: ") for line in lines) and "2/2" in lines[-1]
