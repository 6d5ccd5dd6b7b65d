"""`durian verify`: JAX and PyTorch run the same model on the same clip, compared block by block and end to end.

A step is looked at as the pipelines make it, with both halves of the guidance. Relative errors are
|theirs - ours| / |ours|, both as Euclidean norms over a whole output. Both sides compute in float32 with the weights as
the export has them: a checkpoint in float32 is rounded to the export's dtype first.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from tqdm import tqdm

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, read_config
from durian_jax.convert.bundle import read_bundle, replace_files
from durian_jax.convert.exporter import NUMPY_TYPES
from durian_jax.convert.names import module_name, unet_rules
from durian_jax.diffusion import sampler_table
from durian_jax.diffusion.noise import frame_noise
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation.metrics import psnr
from durian_jax.files import writable_folder, write_json
from durian_jax.images import to_float
from durian_jax.inference.durian import reference_batch
from durian_jax.inference.generate import generate
from durian_jax.inference.size import at_size
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian, select_references
from durian_jax.models.parameters import variables
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.tensor_files import copy_with_metadata, weight_files
from durian_jax.torch import DurianPipeline
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
        checkpoint: name of a shipped one, or a folder.
        frames: F of the clip, a procedural person who takes over another's hair.
        size: H = W of the pictures; None: the model's.
        steps: of the finished clip.

    Returns:
        passed, max_relative_error (of a denoising step), psnr (of the finished videos, dB, at most 100),
        rows (name, max_abs_error, relative_error of every block), and what it was found with.

    Raises:
        InputError: a damaged export, a checkpoint of another model, or more frames than the model knows.
    """
    folder = Path(folder)
    config, objective, dtype = read_bundle(folder)
    writable_folder(folder)
    known, known_objective, _ = read_config(checkpoint)
    if (known, known_objective) != (config, objective):
        raise InputError(f"{folder} is no export of {checkpoint}: {_difference(config, known)} differ; name the "
                         "checkpoint that it was made from")
    if frames > config.max_frames:
        raise InputError(f"frames: expected at most {config.max_frames}, which the model knows, found {frames}")
    wide = at_size(replace(config, dtype="float32"), size, str(checkpoint))
    sampling = Sampling(steps, _GUIDANCE)
    noise = frame_noise(0, range(frames), (wide.latent_size, wide.latent_size, wide.codec.latent_channels))
    # One after the other: never the weights of both in memory.
    with tqdm(total=4, desc="verifying", unit="run") as bar:
        as_exported = lambda _, x: jnp.asarray(x.astype(NUMPY_TYPES[dtype]).astype(np.float32))
        ours = replace(load_checkpoint(checkpoint, "stored", place=as_exported), config=wide)
        batch = example(ours, frames)
        # Else GPUs and TPUs multiply float32 in less than float32.
        with jax.default_matmul_precision("highest"):
            expected = _jax_outputs(ours, batch, noise)
            bar.update()
            video = generate(ours, batch, sampling)
            bar.update()
        del ours
        jax.clear_caches()
        theirs = DurianPipeline.from_pretrained(folder, "float32", wide.image_size)
        found = _torch_outputs(theirs, batch, noise)
        bar.update()
        quality = psnr(theirs.generate(batch, sampling)[0], video[0])
        bar.update()
    if expected.keys() != found.keys():
        raise InputError(f"{folder}: blocks differ: {sorted(expected.keys() ^ found.keys())}; export it again")
    rows = [_row(name, found[name], expected[name]) for name in sorted(expected)]
    # Not max(), which would pass over a NaN.
    worst = float(np.max([row["relative_error"] for row in rows if row["name"].startswith("prediction")]))
    report = {
        "passed": bool(worst <= MAX_RELATIVE_ERROR and quality >= MIN_PSNR), "max_relative_error": worst,
        "psnr": float(quality), "limits": {"max_relative_error": MAX_RELATIVE_ERROR, "psnr": MIN_PSNR},
        "checkpoint": str(checkpoint), "dtype": dtype, "size": wide.image_size, "frames": frames, "steps": steps,
        "guidance_scale": _GUIDANCE, "date": datetime.now(UTC).date().isoformat(), "versions": versions(), "rows": rows,
    }
    denoiser = weight_files(folder / "denoising_unet")[0]
    metadata = {f"parity.{name}": str(report[name])
                for name in ("passed", "max_relative_error", "psnr", "size", "frames", "date")}
    replace_files(folder, {denoiser.relative_to(folder).as_posix(): lambda out: copy_with_metadata(
        denoiser, out, metadata), REPORT_FILE: lambda out: write_json(out, report)})
    return report


def describe(report: dict[str, Any]) -> str:
    """The report as a table."""
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


def example(checkpoint: Checkpoint, frames: int) -> dict[str, np.ndarray]:
    """A batch of one clip: a procedural person takes over another's hair, and moves like a third."""
    size = checkpoint.config.image_size
    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), size)
    driving = render(sample_person("benchmark", 2), sample_motion("benchmark", 2, frames), size)
    return {**reference_batch(checkpoint, [(photo(0), [("hair", photo(1))])]),
            "frames": to_float(driving.frames)[None], "keypoints": driving.keypoints[None]}


def _jax_outputs(checkpoint: Checkpoint, batch: dict[str, np.ndarray], noise: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> value at every block of one guided denoising step; channels last.

    A block, residual, of attention or of motion, is looked at behind its first normalisation.
    """
    config, objective = checkpoint.config, checkpoint.objective

    def step(m: Durian, batch, noise):
        times = jnp.full(batch["keypoints"].shape[:2], _middle_time(objective))
        references = m.project_references(m.references_of(batch))
        selection = select_references(config, batch["attribute_valid"])
        keypoints, clean = m.encode_keypoints(batch["keypoints"]), m.encode(batch["frames"])
        noisy = objective.noise_schedule.add_noise(clean, noise, times)
        moment = objective.noise_schedule.timesteps(times)
        return {
            "latents": clean, "keypoint features": keypoints, "pictures": m.decode(clean),
            "prediction with references": m.denoise(noisy, moment, keypoints, references, selection, temporal=True),
            "prediction without references": m.denoise(noisy, moment, keypoints, temporal=True)}

    @jax.jit
    def run(params, batch, noise):
        return Durian(config).apply(variables(params), batch, noise, method=step, mutable=["intermediates"],
                                    capture_intermediates=lambda module, _: module.name == "norm1")

    fields = {name: jnp.asarray(x, jnp.float32) for name, x in batch.items()}
    outputs, captured = run(checkpoint.params, fields, jnp.asarray(noise)[None])
    rules = unet_rules(config.unet)
    for path, calls in flatten_dict(captured["intermediates"], sep="/").items():
        network, _, module = path.removesuffix("/__call__").partition("/")
        if network in _NETWORKS:
            for name, x in zip(_call_names(_NETWORKS[network]), calls, strict=True):
                outputs[f"{name}, {module_name(module, rules)}"] = x
    return {name: np.asarray(x) for name, x in outputs.items()}


@torch.inference_mode()
def _torch_outputs(pipeline: DurianPipeline, batch: dict[str, np.ndarray], noise: np.ndarray) -> dict[str, np.ndarray]:
    """The same in PyTorch."""
    model, schedule, frames = pipeline.model, pipeline.objective.noise_schedule, len(noise)
    time, outputs = _middle_time(pipeline.objective), {}

    def look(name: str, path: str):
        def hook(module, inputs, x):
            for call, part in zip(_call_names(name), x.chunk(len(_call_names(name))), strict=True):
                outputs[f"{call}, {path}"] = _channels_last(part)
        return hook

    hooks = [module.register_forward_hook(look(name, path)) for name in _NETWORKS.values()
             for path, module in model.get_submodule(name).named_modules() if path.endswith(".norm1")]
    images = lambda x: torch.tensor(x).movedim(-1, -3)
    references = pipeline.project_references(batch)
    clean, keypoints = model.encode(images(batch["frames"][0])), pipeline.keypoint_features(batch["keypoints"])
    alpha, sigma = (float(x) for x in schedule(time))
    moments = torch.full((2 * frames,), float(schedule.timesteps(time)))
    sites = [replace(site, guided=True) for site in model.select(references, batch["attribute_valid"])]
    twice = lambda x: torch.cat([x, x])
    guided, free = model.denoising_unet(twice(alpha * clean + sigma * images(noise)), moments, frames=frames,
                                        bias=twice(keypoints), sites=sites, temporal=True).chunk(2)
    for hook in hooks:
        hook.remove()
    found = {"latents": clean, "keypoint features": keypoints, "pictures": model.decode(clean),
             "prediction with references": guided, "prediction without references": free}
    return {**outputs, **{name: _channels_last(x) for name, x in found.items()}}


# Our networks -> the export's.
_NETWORKS = {"portrait_reference": "portrait_reference", "attribute_reference": "attribute_reference",
             "denoiser": "denoising_unet"}


def _call_names(network: str) -> list[str]:
    """What a network's calls in one step are called, in their order; in PyTorch they are parts of one batch."""
    return ["denoiser with references", "denoiser without references"] if network == "denoising_unet" \
        else [network.replace("_", " ")]


def _channels_last(x: torch.Tensor) -> np.ndarray:
    return (x.movedim(1, -1) if x.ndim == 4 else x).numpy()


def _middle_time(objective) -> np.float32:
    """A time between noise and picture, one that the sampler would use."""
    return sampler_table(objective.noise_schedule, "ddim", 2)[0][1]


def _row(name: str, theirs: np.ndarray, ours: np.ndarray) -> dict[str, Any]:
    difference = theirs.astype(np.float64).reshape(-1) - ours.astype(np.float64).reshape(-1)
    scale = max(float(np.linalg.norm(ours.astype(np.float64))), 1e-12)
    return {"name": name, "max_abs_error": float(np.abs(difference).max()),
            "relative_error": float(np.linalg.norm(difference)) / scale}


def _difference(one: DurianConfig, other: DurianConfig) -> str:
    first, second = one.to_dict(), other.to_dict()
    return ", ".join(name for name in first if first[name] != second.get(name)) or "their objectives"
