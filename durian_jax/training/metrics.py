"""Metrics of a run: metrics.jsonl for programs, TensorBoard for people."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import jax
import numpy as np

from durian_jax.files import write_text
from durian_jax.hardware.chips import CHIPS

# Matrix products per second of a chip, in bfloat16, by JAX's name of it (the makers' figures).
_TPUS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p",
         "TPU v6 lite": "v6e", "TPU v6e": "v6e"}
PEAK_FLOPS = {**{name: CHIPS[chip].flops for name, chip in _TPUS.items()}, "NVIDIA A100": 312e12,
              "NVIDIA H100": 989e12, "NVIDIA H200": 989e12}


def peak_flops(device_kind: str) -> float | None:
    """Peak of a chip, or None where it is not known (a CPU)."""
    known = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


class Clock:
    """How a run spends its time.

    Attributes:
        flops: of the model in one step, on all chips together.
    """

    def __init__(self, devices: list):
        self.flops, self._devices = 0, devices
        self._began = self._since = time.monotonic()
        self._waited = self._steps = 0
        self._productive = self._away = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that waits for data."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    @contextmanager
    def away(self) -> Iterator[None]:
        """A block that is no training: a sample sheet, a checkpoint."""
        before = time.monotonic()
        yield
        self._away += time.monotonic() - before

    def read(self, steps: int) -> dict[str, float]:
        """Figures of the steps since the last reading.

        Returns:
            seconds_per_step; data_seconds_per_step, of waiting for batches; tflops_per_second, by all chips; mfu, their
            share of the chips' peak, where that is known; goodput, the share of the time since the start in which steps
            were made and not compiled, restored, saved or waited for.
        """
        now = time.monotonic()
        seconds = now - self._since - self._away
        per_second = self.flops * steps / seconds
        if self._steps:  # the first reading's time has compiling in it
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
    """Writes one JSON object a logged step, and the same numbers and pictures to TensorBoard.

    Args:
        workdir: folder of the run.
        step: steps that the run starts from; later lines, left by a killed run, will be written again
            and are removed.
        active: False writes nothing: of several processes, one does.
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
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:  # a line that was cut by the kill
                break
        write_text(self._path, "".join(kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log numbers after `step` updates."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture (H, W, 3) uint8."""
        if self._file is not None:
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._board.close()


def _summary_writer(folder: Path, purge_step: int):
    """A writer to TensorBoard, which does without PyTorch: to import it takes seconds where it is installed."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # importing it fails, for which tensorboardX is prepared
    try:
        from tensorboardX import SummaryWriter
    finally:
        if absent:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=purge_step)


def bar_in_logs() -> dict:
    """Options of tqdm: where standard error goes to a log, which shows whole lines only, a line every ten seconds."""
    if sys.stderr is not sys.__stderr__ or sys.stderr.isatty():  # a notebook, which has its own, draws a bar
        return {}
    return {"file": _Lines(), "mininterval": 10}


class _Lines:
    """Standard error, with what would be written over what was there before on a line of its own."""

    def write(self, text: str) -> None:
        for line in text.replace("\r", "\n").splitlines():
            if line.strip():
                sys.stderr.write(line.rstrip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Tracing:
    """Writes a trace of some steps, for TensorBoard's profiler or Perfetto.

    Args:
        folder: for the trace.
        steps: first and last step; None: no trace.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self._folder, self._steps, self._running = folder, steps, False

    def __enter__(self) -> "Tracing":
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def step(self, step: int) -> AbstractContextManager:
        """The block that is the step."""
        if self._steps is None or not self._steps[0] <= step <= self._steps[1]:
            return nullcontext()
        if not self._running:
            # Without Python's own calls: tracing them in all threads has crashed runs that load data in threads.
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def end(self, step: int, values: dict[str, jax.Array]) -> None:
        """After a step: the trace of the last one waits for what it has computed."""
        if self._running and step == self._steps[1]:
            jax.block_until_ready(values)
            jax.profiler.stop_trace()
            self._running = False
