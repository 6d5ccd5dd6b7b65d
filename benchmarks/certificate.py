"""Run `durian verify` at the paper's size with random weights; it makes docs/certificate.json.

    python -m benchmarks.certificate --out docs/certificate.json     15 minutes on two cores, 20 GiB of memory

All tensors are random, also tensors that training initialises with zeros. Otherwise some parts would have no effect.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from durian_jax import runtime
from durian_jax.configs import load_config
from durian_jax.files import writable_file, write_json
from durian_jax.models.family import ModelConfig
from durian_jax.progress import progress_bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="picture size in pixels")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="denoising steps of the clip")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    options = parser.parse_args()
    if options.out:
        writable_file(options.out, (".json",))
    runtime.configure()
    from durian_jax.checkpoints.weights import write_checkpoint
    from durian_jax.convert.exporter import export_checkpoint
    from durian_jax.evaluation.parity import describe, verify_export
    from durian_jax.training.config import RunConfig

    found = RunConfig.read(load_config("sd15,stage=2")).description
    with tempfile.TemporaryDirectory() as temporary:  # 14 GB
        folder = Path(temporary)
        write_checkpoint(folder / "checkpoint", found, random_tensors(found.config), "bfloat16")
        export_checkpoint(folder / "checkpoint", folder / "export", "bf16")
        report = verify_export(folder / "export", folder / "checkpoint", frames=options.frames, size=options.size,
                               steps=options.steps)
    print(describe(report))
    if options.out:
        write_json(options.out, {**report, "checkpoint": "random weights of sd15"})
    sys.exit(not report["passed"])


def random_tensors(config: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yield path and values: kernels that preserve variance, scales around 1, biases around 0."""
    from durian_jax.models.parameters import param_shapes

    rng = np.random.default_rng(0)
    for path, wanted in progress_bar(sorted(param_shapes(config).items()), desc="drawing weights", unit="tensor"):
        x = rng.standard_normal(wanted.shape, np.float32)
        if path.endswith("kernel"):
            yield path, x / np.float32(math.sqrt(math.prod(wanted.shape[:-1])))
        else:
            yield path, np.float32(path.endswith("scale")) + np.float32(0.1) * x


if __name__ == "__main__":
    main()
