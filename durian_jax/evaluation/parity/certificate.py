"""`durian verify`: run one model in JAX and in PyTorch on the same clip; compare blocks and finished videos.

A denoising step is compared as the pipelines compute it, with all branches of guidance. Relative errors are
|theirs - ours| / |ours|, both as Euclidean norms over a whole output. Both sides compute in float32 with the weights of
the export: a checkpoint in float32 is rounded to the export's dtype first.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.convert.bundle import read_bundle, replace_files
from durian_jax.convert.exporter import NUMPY_TYPES
from durian_jax.diffusion import Objective, Sampling, sampler_table
from durian_jax.diffusion.noise import frame_noise
from durian_jax.errors import InputError
from durian_jax.evaluation.metrics import psnr
from durian_jax.families import get_family
from durian_jax.files import check_folder, write_json
from durian_jax.inference.generate import generate
from durian_jax.inference.size import at_size
from durian_jax.models.family import ModelConfig
from durian_jax.progress import progress_bar
from durian_jax.tensor_files import copy_with_metadata, weight_files
from durian_jax.versions import versions

# Largest relative error of one denoising step, smallest PSNR of the finished videos in dB.
MAX_RELATIVE_ERROR, MIN_PSNR = 1e-4, 40.0

REPORT_FILE = "parity.json"
_GUIDANCE = 2.0


def verify_export(folder: str | Path, checkpoint: str | Path, *, frames: int = 4, size: int | None = None,
                  steps: int = 4) -> dict[str, Any]:
    """Compare an export with its checkpoint, and write the result into the export.

    Args:
        folder: of the export.
        checkpoint: name of a shipped checkpoint, or a folder.
        frames: F of the clip.
        size: H = W of the pictures; None: the model's.
        steps: number of steps of the finished clip.

    Returns:
        passed, max_relative_error (of a denoising step), psnr (of the finished videos, dB, at most 100),
        rows (name, max_abs_error, relative_error of every block), the settings and the versions.

    Raises:
        InputError: a damaged export, a checkpoint of another model, or more frames than the model takes.
    """
    folder = Path(folder)
    found, dtype = read_bundle(folder)
    check_folder(folder)
    known = read_description(checkpoint)
    if (known.config, known.objective) != (found.config, found.objective):
        raise InputError(f"{folder} is no export of {checkpoint}: {_difference(found.config, known.config)} differ; "
                         "name the checkpoint that was exported")
    config = found.config
    if frames > config.max_frames:
        raise InputError(f"frames: expected at most {config.max_frames}, which the model takes, found {frames}")
    family = get_family(config.family)
    parity = family.load("parity")
    wide = at_size(replace(config, dtype="float32"), size, str(checkpoint))
    sampling = Sampling(steps, _GUIDANCE)
    noise = frame_noise(0, range(frames), (wide.latent_size, wide.latent_size, wide.codec.latent_channels))
    # One after the other: the weights of both are never in memory at the same time.
    with progress_bar(total=4, desc="verifying", unit="run") as bar:
        as_exported = lambda _, x: jnp.asarray(x.astype(NUMPY_TYPES[dtype]).astype(np.float32))
        ours = replace(load_checkpoint(checkpoint, "stored", place=as_exported), config=wide)
        batch = parity.example(ours, frames)
        # By default, GPUs and TPUs multiply float32 in lower precision.
        with jax.default_matmul_precision("highest"):
            expected = parity.jax_outputs(ours, batch, noise, middle_time(found.objective))
            bar.update()
            video = generate(ours, batch, sampling)
            bar.update()
        del ours
        jax.clear_caches()
        theirs = family.load("pytorch").from_pretrained(folder, "float32", wide.image_size)
        outputs = parity.torch_outputs(theirs, batch, noise, middle_time(found.objective))
        bar.update()
        quality = psnr(theirs.generate(batch, sampling)[0], video[0])
        bar.update()
    if expected.keys() != outputs.keys():
        raise InputError(f"{folder}: blocks differ: {sorted(expected.keys() ^ outputs.keys())}; export it again")
    rows = [_row(name, outputs[name], expected[name]) for name in sorted(expected)]
    # np.max instead of max(), which would skip a NaN.
    worst = float(np.max([row["relative_error"] for row in rows if row["name"].startswith("prediction")]))
    report = {
        "passed": bool(worst <= MAX_RELATIVE_ERROR and quality >= MIN_PSNR), "max_relative_error": worst,
        "psnr": float(quality), "limits": {"max_relative_error": MAX_RELATIVE_ERROR, "psnr": MIN_PSNR},
        "checkpoint": str(checkpoint), "dtype": dtype, "size": wide.image_size, "frames": frames, "steps": steps,
        "guidance_scale": _GUIDANCE, "date": datetime.now(UTC).date().isoformat(), "versions": versions(), "rows": rows,
    }
    denoiser = weight_files(folder / parity.DENOISER)[0]
    metadata = {f"parity.{name}": str(report[name])
                for name in ("passed", "max_relative_error", "psnr", "size", "frames", "date")}
    replace_files(folder, {denoiser.relative_to(folder).as_posix(): lambda out: copy_with_metadata(
        denoiser, out, metadata), REPORT_FILE: lambda out: write_json(out, report)})
    return report


def describe(report: dict[str, Any]) -> str:
    """Format the report as a table."""
    width = max(len(row["name"]) for row in report["rows"])
    lines = [f"{'':{width}}{'largest error':>15}{'relative':>12}"]
    lines += [f"{row['name']:{width}}{row['max_abs_error']:15.2e}{row['relative_error']:12.2e}"
              for row in report["rows"]]
    limits = report["limits"]
    lines.append(f"one denoising step: {report['max_relative_error']:.2e} relative (at most "
                 f"{limits['max_relative_error']:.0e}); finished videos: {report['psnr']:.1f} dB (at least "
                 f"{limits['psnr']:.0f})")
    lines.append("the same model" if report["passed"] else "NOT the same model")
    return "\n".join(lines)


def middle_time(objective: Objective) -> np.float32:
    """A time between noise and picture that the sampler would use."""
    return sampler_table(objective.noise_schedule, "ddim", 2, objective.time_shift)[0][1]


def _row(name: str, theirs: np.ndarray, ours: np.ndarray) -> dict[str, Any]:
    difference = theirs.astype(np.float64).reshape(-1) - ours.astype(np.float64).reshape(-1)
    scale = max(float(np.linalg.norm(ours.astype(np.float64))), 1e-12)
    return {"name": name, "max_abs_error": float(np.abs(difference).max()),
            "relative_error": float(np.linalg.norm(difference)) / scale}


def _difference(one: ModelConfig, other: ModelConfig) -> str:
    first, second = one.to_dict(), other.to_dict()
    return ", ".join(name for name in first if first[name] != second.get(name)) or "their objectives"
