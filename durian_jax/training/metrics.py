"""Metrics of a run: metrics.jsonl for programs, TensorBoard for people."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import jax
import numpy as np

from durian_jax.files import parse_json, write_text
from durian_jax.hardware.chips import CHIPS

# JAX's name of a chip -> FLOPs per second of its bfloat16 matrix products, as published by the manufacturer.
_TPUS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p",
         "TPU v6 lite": "v6e", "TPU v6e": "v6e"}
PEAK_FLOPS = {**{name: CHIPS[chip].flops for name, chip in _TPUS.items()}, "NVIDIA A100": 312e12,
              "NVIDIA H100": 989e12, "NVIDIA H200": 989e12}


def peak_flops(device_kind: str) -> float | None:
    """Return the peak FLOPs per second of a chip, or None if it is unknown (for example a CPU)."""
    known = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


class Clock:
    """Measurement of how a run spends its time.

    Attributes:
        flops: FLOPs of the model per step, summed over all chips.
    """

    def __init__(self, devices: list):
        self.flops, self._devices = 0, devices
        self._began = self._since = time.monotonic()
        self._waited = self._steps = 0
        self._productive = self._away = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as waiting for data."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    @contextmanager
    def away(self) -> Iterator[None]:
        """Count the block as time outside of training, for example a sample sheet or a checkpoint."""
        before = time.monotonic()
        yield
        self._away += time.monotonic() - before

    def read(self, steps: int) -> dict[str, float]:
        """Return the speed of the steps since the last reading.

        Args:
            steps: number of steps since the last reading.

        Returns:
            seconds_per_step: time per step, without `away` blocks.
            data_seconds_per_step: time per step spent waiting for batches.
            tflops_per_second: of all chips together.
            mfu: tflops_per_second as a share of the chips' peak, only if the peak is known.
            goodput: share of the time since the start spent on steps, not on compiling, restoring, saving or waiting.
        """
        now = time.monotonic()
        seconds = now - self._since - self._away
        per_second = self.flops * steps / seconds
        if self._steps:  # the first reading includes compilation
            self._productive += seconds - self._waited
        values = {"seconds_per_step": seconds / steps, "data_seconds_per_step": self._waited / steps,
                  "tflops_per_second": per_second / 1e12, "goodput": self._productive / (now - self._began)}
        peak = peak_flops(self._devices[0].device_kind)
        if peak is not None:
            values["mfu"] = per_second / (peak * len(self._devices))
        self._since, self._waited, self._away = now, 0.0, 0.0
        self._steps += steps
        return values


class MetricsWriter:
    """Writer of one JSON object per logged step, and of the same numbers and pictures to TensorBoard.

    Args:
        workdir: folder of the run.
        step: step that the run starts from. Later lines of a killed run are removed, because the run writes
            them again.
        active: False writes nothing. Only one process of a run is active.
    """

    def __init__(self, workdir: Path, step: int, active: bool = True):
        self._file = None
        if not active:
            return
        self._path = workdir / "metrics.jsonl"
        self._truncate(step)
        self._file = self._path.open("a", buffering=1)
        self._board = _summary_writer(workdir / "tensorboard", step + 1)

    def _truncate(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(errors="replace").splitlines():
            # A killed run may have cut a line.
            with suppress(ValueError, KeyError, TypeError):
                if parse_json(line)["step"] <= step:
                    kept.append(line + "\n")
        write_text(self._path, "".join(kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log numbers after `step` updates."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an (H, W, 3) uint8 picture."""
        if self._file is not None:
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
            self._board.close()


def _summary_writer(folder: Path, purge_step: int):
    """Return a TensorBoard writer. Hide PyTorch from it, because importing PyTorch takes seconds."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # makes `import torch` fail, which tensorboardX handles
    try:
        from tensorboardX import SummaryWriter
    finally:
        if absent:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=purge_step)


class Tracing:
    """Context that writes a trace of some steps, for TensorBoard's profiler or Perfetto.

    Args:
        folder: output folder of the trace.
        steps: first and last traced step. None writes no trace.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self._folder, self._steps, self._running = folder, steps, False

    def __enter__(self) -> "Tracing":
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def step(self, step: int) -> AbstractContextManager:
        """Return the context in which the step must run."""
        if self._steps is None or not self._steps[0] <= step <= self._steps[1]:
            return nullcontext()
        if not self._running:
            # Do not trace Python calls: tracing all threads crashed runs that load data in threads.
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def end(self, step: int, values: dict[str, jax.Array]) -> None:
        """Stop the trace after its last step, once `values` of this step are computed."""
        if self._running and step == self._steps[1]:
            jax.block_until_ready(values)
            jax.profiler.stop_trace()
            self._running = False
