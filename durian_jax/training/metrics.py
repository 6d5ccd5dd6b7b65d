"""Metrics of a run: metrics.jsonl for programs, TensorBoard for people."""

import json
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from durian_jax.files import write_text


class MetricsWriter:
    """Writes one JSON object a logged step, and the same numbers and pictures to TensorBoard.

    Args:
        workdir: folder of the run.
        step: steps that the run starts from; later lines, left by a killed run, will be written again
            and are removed.
    """

    def __init__(self, workdir: Path, step: int):
        self._path = workdir / "metrics.jsonl"
        self._truncate(step)
        self._file = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def _truncate(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:  # a line that was cut by the kill
                break
        write_text(self._path, "".join(kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log numbers after `step` updates."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture (H, W, 3) uint8."""
        self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        self._board.close()
