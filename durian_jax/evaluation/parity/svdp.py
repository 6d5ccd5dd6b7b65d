"""SVDP's blocks in JAX and in PyTorch, for the parity certificate."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.images import to_float
from durian_jax.inference.family import motion_batch
from durian_jax.inference.svdp import transfer_batch
from durian_jax.models.parameters import variables
from durian_jax.models.svdp.config import SVDPConfig
from durian_jax.models.svdp.model import SVDP
from durian_jax.pytorch.svdp.pipeline import SVDPPipeline
from durian_jax.synthetic import render, sample_motion, sample_person, still

# Folder of the denoiser in an export.
DENOISER = "transformer"

# The branches of guidance: u, s, d, p of the paper.
_BRANCHES = ("without conditions", "with source", "with driver", "with history")
# In "one_way", pictures that go through the blocks before.
_ALONE = ("source alone", "attributes alone", "driver alone", "history alone")
# In "joint", history frames go through the joint blocks after the others.
_HISTORY = "history beside"

# Our blocks -> the export's.
_BLOCKS = {"blocks": "transformer_blocks", "video_blocks": "video_blocks"}


def example(checkpoint: Checkpoint, frames: int) -> dict[str, np.ndarray]:
    """A batch of one clip: a procedural person with another person's hair, a third one as driver, and history."""
    size, history = checkpoint.config.image_size, checkpoint.config.history
    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), size)
    clip = render(sample_person("benchmark", 2), sample_motion("benchmark", 2, history + frames), size)
    driving = clip[history:]
    pictures = to_float(clip.frames)[None]
    portrait, attributes = photo(0), [("hair", photo(1))]
    references = transfer_batch(checkpoint, [(portrait, attributes)])
    motion = motion_batch(checkpoint.config, references, [(portrait, attributes, driving, driving.keypoints)])
    return {**references, **motion,
            "frames": pictures[:, history:], "history": pictures[:, :history], "history_valid": np.ones(1, np.float32)}


def jax_outputs(checkpoint: Checkpoint, batch: dict[str, np.ndarray], noise: np.ndarray, time: np.float32
                ) -> dict[str, np.ndarray]:
    """Name -> output of every block of one denoising step in every branch; channels last."""
    config, objective = checkpoint.config, checkpoint.objective

    def step(m: SVDP, batch, noise):
        clean = m.encode(batch["frames"])
        times = jnp.full(clean.shape[:2], time)
        noisy = objective.noise_schedule.add_noise(clean, noise, times)
        moment = objective.noise_schedule.timesteps(times)
        condition = m.condition(batch, m.references(batch))
        branches, pictures = m.branches(condition), m.decode(clean, temporal=True)
        return {"latents": clean, "pictures": pictures, "finished pictures": m.finished(pictures, condition)} | {
            f"prediction {name}": m.denoise(noisy, moment, branch, temporal=True)
            for name, branch in zip(_BRANCHES, branches, strict=True)}

    @jax.jit
    def run(params, batch, noise):
        outputs, captured = config.create().apply(
            variables(params), batch, noise, method=step, mutable=["intermediates"],
            capture_intermediates=lambda module, method: method == "__call__" and _kind(module.name) in _BLOCKS)
        for path, calls in flatten_dict(captured["intermediates"], sep="/").items():
            kind, _, number = path.split("/")[1].rpartition("_")
            for name, (x, *_) in zip(_calls(config, kind, int(number)), calls, strict=True):
                if _is_compared(config, name, int(number)):
                    outputs[f"{name}, {_BLOCKS[kind]}.{number}"] = x
        return outputs

    fields = {name: jnp.asarray(x, jnp.float32) for name, x in batch.items()}
    return {name: np.asarray(x) for name, x in run(checkpoint.params, fields, jnp.asarray(noise)[None]).items()}


@torch.inference_mode()
def torch_outputs(pipeline: SVDPPipeline, batch: dict[str, np.ndarray], noise: np.ndarray, time: np.float32
                  ) -> dict[str, np.ndarray]:
    """The same in PyTorch."""
    model, schedule, config = pipeline.model, pipeline.objective.noise_schedule, pipeline.config
    outputs: dict[str, np.ndarray] = {}

    def look(kind: str, number: int):
        names: Iterator[str] = (name for name in _calls(config, kind, number) if _is_compared(config, name, number))
        def hook(module, inputs, found):
            outputs[f"{next(names)}, {_BLOCKS[kind]}.{number}"] = found[0].numpy()
        return hook

    hooks = [block.register_forward_hook(look(kind, number)) for kind, theirs in _BLOCKS.items()
             for number, block in enumerate(model.transformer.get_submodule(theirs))]
    condition = pipeline.condition(batch, pipeline.references(batch), range(len(_BRANCHES)))
    clean = pipeline.encode(batch["frames"])
    alpha, sigma = (float(x) for x in schedule(time))
    noisy = alpha * clean + sigma * torch.tensor(noise).movedim(-1, -3)
    pictures = model.decode(clean.flatten(0, 1), clean.shape[1])[None]
    finished = pipeline.finished(pictures, condition)
    found = {"latents": clean, "pictures": pictures, "finished pictures": finished} | {
        f"prediction {name}": model.denoise(noisy, float(schedule.timesteps(time)), branch, temporal=True)
        for name, branch in zip(_BRANCHES, condition, strict=True)}
    for hook in hooks:
        hook.remove()
    return {**outputs, **{name: x.movedim(-3, -1).numpy() for name, x in found.items()}}


def _kind(name: str | None) -> str:
    """The name of a JAX module without its number."""
    return (name or "").rpartition("_")[0]


def _calls(config: SVDPConfig, kind: str, number: int) -> list[str]:
    """Names of the calls of block `number` in one step, in JAX's order."""
    last = number == config.mmdit.layers - 1
    if kind == "video_blocks":
        return [*_ALONE[3:], *_BRANCHES] if config.mode == "one_way" else [*_BRANCHES]
    if config.mode == "joint":
        return [*_BRANCHES] if last else [*_BRANCHES, _HISTORY]
    return [*(_ALONE[:3] if last else _ALONE), *_BRANCHES]


def _is_compared(config: SVDPConfig, name: str, number: int) -> bool:
    """Whether PyTorch makes this call: where nothing reads a block's result, it computes only its keys."""
    return name not in _ALONE or number < config.mmdit.layers - 1
