"""Durian's blocks in JAX and in PyTorch, for the parity certificate."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.convert.names import module_name, unet_rules
from durian_jax.images import to_float
from durian_jax.inference.durian import transfer_batch
from durian_jax.models.durian.model import Durian
from durian_jax.models.parameters import variables
from durian_jax.pytorch.durian.pipeline import DurianPipeline
from durian_jax.synthetic import render, sample_motion, sample_person, still

# Folder of the denoiser in an export.
DENOISER = "denoising_unet"

# Our networks -> the export's.
_NETWORKS = {"portrait_reference": "portrait_reference", "attribute_reference": "attribute_reference",
             "denoiser": DENOISER}


def example(checkpoint: Checkpoint, frames: int) -> dict[str, np.ndarray]:
    """A batch of one clip: a procedural person gets another person's hair, and moves like a third one."""
    size = checkpoint.config.image_size
    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), size)
    driving = render(sample_person("benchmark", 2), sample_motion("benchmark", 2, frames), size)
    return {**transfer_batch(checkpoint, [(photo(0), [("hair", photo(1))])]),
            "frames": to_float(driving.frames)[None], "keypoints": driving.keypoints[None]}


def jax_outputs(checkpoint: Checkpoint, batch: dict[str, np.ndarray], noise: np.ndarray, time: np.float32
                ) -> dict[str, np.ndarray]:
    """Name -> output of every block of one guided denoising step; channels last.

    A residual, attention or motion block is compared behind its first normalisation.
    """
    config, objective = checkpoint.config, checkpoint.objective

    def step(m: Durian, batch, noise):
        times = jnp.full(batch["keypoints"].shape[:2], time)
        clean, condition = m.encode(batch["frames"]), m.condition(batch)
        noisy = objective.noise_schedule.add_noise(clean, noise, times)
        moment = objective.noise_schedule.timesteps(times)
        free, guided = m.branches(condition)
        return {
            "latents": clean, "keypoint features": condition.keypoint_features,
            "pictures": m.decode(clean, temporal=True),
            "prediction with references": m.denoise(noisy, moment, guided, temporal=True),
            "prediction without references": m.denoise(noisy, moment, free, temporal=True)}

    @jax.jit
    def run(params, batch, noise):
        return config.create().apply(variables(params), batch, noise, method=step, mutable=["intermediates"],
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
def torch_outputs(pipeline: DurianPipeline, batch: dict[str, np.ndarray], noise: np.ndarray, time: np.float32
                  ) -> dict[str, np.ndarray]:
    """The same in PyTorch."""
    model, schedule, frames = pipeline.model, pipeline.objective.noise_schedule, len(noise)
    outputs: dict[str, np.ndarray] = {}

    def look(name: str, path: str):
        def hook(module, inputs, x):
            for call, part in zip(_call_names(name), x.chunk(len(_call_names(name))), strict=True):
                outputs[f"{call}, {path}"] = _channels_last(part)
        return hook

    hooks = [module.register_forward_hook(look(name, path)) for name in _NETWORKS.values()
             for path, module in model.get_submodule(name).named_modules() if path.endswith(".norm1")]
    images = lambda x: torch.tensor(x).movedim(-1, -3)
    references = pipeline.references(batch)
    clean, keypoints = model.encode(images(batch["frames"][0])), pipeline.keypoint_features(batch["keypoints"])
    alpha, sigma = (float(x) for x in schedule(time))
    moments = torch.full((2 * frames,), float(schedule.timesteps(time)))
    sites = [replace(site, guided=True) for site in model.select(references, batch["attribute_valid"])]
    twice = lambda x: torch.cat([x, x])
    guided, free = model.denoising_unet(twice(alpha * clean + sigma * images(noise)), moments, frames=frames,
                                        bias=twice(keypoints), sites=sites, temporal=True).chunk(2)
    for hook in hooks:
        hook.remove()
    found = {"latents": clean, "keypoint features": keypoints, "pictures": model.decode(clean, frames),
             "prediction with references": guided, "prediction without references": free}
    return {**outputs, **{name: _channels_last(x) for name, x in found.items()}}


def _call_names(network: str) -> list[str]:
    """Names of a network's calls in one step, in their order; in PyTorch they are parts of one batch."""
    return ["denoiser with references", "denoiser without references"] if network == DENOISER \
        else [network.replace("_", " ")]


def _channels_last(x: torch.Tensor) -> np.ndarray:
    return (x.movedim(1, -1) if x.ndim == 4 else x).numpy()
