"""The PyTorch pipeline of SVDP computes the same as JAX, in both modes and every branch of guidance."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Sampling
from durian_jax.diffusion.noise import frame_noise
from durian_jax.errors import InputError
from durian_jax.evaluation.metrics import psnr
from durian_jax.evaluation.parity import verify_export
from durian_jax.inference.animator import Animator
from durian_jax.inference.generate import generate_segment
from durian_jax.models.mmdit.places import token_codes
from durian_jax.models.parameters import variables
from durian_jax.models.svdp.places import NOISY
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.torch import DurianPipeline, SVDPPipeline
from tests.helpers.exports import REFUSE_JAX
from tests.helpers.models import random_batch

KINDS = ("one_way", "joint", "one_way_sd", "joint_sd")
BRANCHES = range(4)
SIZE = 32  # H = W in pixels


def assert_equal(theirs: np.ndarray, ours: np.ndarray, tolerance: float = 1e-4) -> None:
    """Check that the relative difference, by Euclidean norms, is small."""
    ours = np.asarray(ours)
    assert np.linalg.norm(theirs - ours) < tolerance * np.linalg.norm(ours)


def batch_of(checkpoint: Checkpoint, attributes: int = 2, history: int = 2, clips: int = 4) -> dict[str, np.ndarray]:
    """A batch whose clips use both attributes, one of them or none; half of the clips have no history."""
    batch = random_batch(checkpoint.config, clips=clips, attributes=attributes, history=history)
    batch["attribute_valid"] = np.float32([[1, 1], [1, 0], [0, 1], [0, 0]])[:clips, :attributes]
    batch["history_valid"] = np.float32([1, 0, 1, 0])[:clips]
    return batch


@partial(jax.jit, static_argnames="config")
def predictions(params, batch, latents, config) -> list[jax.Array]:
    """JAX's prediction of every branch at diffusion time 500, and of the last one without video attention."""
    def run(m):
        branches = m.branches(m.condition(batch))
        predict = lambda i, temporal: m.denoise(latents, jnp.full(latents.shape[:2], 500.0), branches[i], temporal)
        return [*(predict(i, True) for i in BRANCHES), predict(3, False)]
    return config.create().apply(variables(params), method=run)


# Weights of two attributes in three frames.
BLENDS = [[0.3, 0.7], [0.5, 0.5], [1, 0]]


@pytest.mark.parametrize("kind, weights", [*((kind, None) for kind in KINDS), ("one_way", BLENDS),
                                           ("joint_sd", BLENDS), ("joint_sd", [[1, -1]] * 3)])
def test_every_branch_predicts_the_same(exported, kind, weights):
    """With composition or interpolation, with attributes and history that only some clips have."""
    checkpoint, folder = exported(kind)
    batch = batch_of(checkpoint)
    if weights is not None:
        batch["attribute_weights"] = np.tile(np.float32([weights]), (4, 1, 1))
    side = checkpoint.config.latent_size
    latents = np.tile(frame_noise(3, range(3), (side, side, 4)), (4, 1, 1, 1, 1)).astype(np.float32)
    expected = predictions(checkpoint.params, batch, latents, checkpoint.config)
    pipeline = SVDPPipeline.from_pretrained(folder)
    with torch.inference_mode():
        condition = pipeline.condition(batch, pipeline.references(batch), [*BRANCHES, 3])
        for branch, temporal, ours in zip(condition, [True] * 4 + [False], expected, strict=True):
            theirs = pipeline.model.denoise(pipeline.to_tensor(latents), 500.0, branch, temporal)
            assert_equal(theirs.movedim(-3, -1).numpy(), ours, 1e-5)
    found = np.stack(expected)
    for one, other in zip(found, found[1:], strict=False):
        assert np.linalg.norm(one - other) > 1e-2 * np.linalg.norm(one)


@pytest.fixture(scope="module")
def people():
    """A portrait, two photos of hair, and eleven frames of a driver."""
    photo = lambda index: render(sample_person("validation", index, require=("hair",)), still(), SIZE)
    return photo(0), [("hair", photo(1)), ("hair", photo(2))], render(
        sample_person("validation", 3), sample_motion("validation", 3, 11), SIZE)


class Recorder:
    """A backend that keeps the latents of another one."""

    def __init__(self, backend):
        self.config, self.sampling, self.identity_encoder = backend.config, backend.sampling, None
        self.backend, self.latents = backend, []

    def references(self, batch):
        return self.backend.references(batch)

    def generate_segment(self, *args, **options):
        made = self.backend.generate_segment(*args, **options)
        self.latents.append(made.latents)
        return made


@pytest.mark.parametrize("kind", ["one_way", "joint_sd"])
def test_both_backends_make_the_same_long_video(exported, people, kind):
    """Segments that continue with history latents, signal fusion of all branches, two attributes interpolated."""
    checkpoint, folder = exported(kind)
    portrait, attributes, driving = people
    backends = Recorder(SVDPPipeline.from_pretrained(folder)), Recorder(Animator(checkpoint).backend)
    theirs, ours = (Animator(backend).animate(portrait, attributes, driving, interpolate=0.4,
                                              sampling=Sampling(2, (2.0, 2.5, 1.5), seed=3)) for backend in backends)
    assert theirs.shape == (11, SIZE, SIZE, 3) and len(backends[0].latents) == 3
    for one, other in zip(*(backend.latents for backend in backends), strict=True):
        assert_equal(one, other)
    assert np.abs(theirs.astype(int) - ours).max() <= 1
    assert ours.std() > 5, "flat pictures"


def test_a_call_takes_options_and_seeds(exported, people):
    portrait, _, driving = people
    pipeline = SVDPPipeline.from_pretrained(exported("one_way")[1])
    call = partial(pipeline, portrait, [], driving[:4], steps=1)
    expected = Animator(pipeline).animate(portrait, [], driving[:4], sampling=Sampling(1, (1.0, 2.0, 1.0), seed=4),
                                          absolute=True, regions=("mouth",))
    found = call(guidance_scale=(1.0, 2.0, 1.0), seed=4, absolute=True, regions=("mouth",))
    np.testing.assert_array_equal(found, expected)
    assert (call(seed=5) != call(seed=4)).any()


def test_empty_history_is_no_history(exported):
    checkpoint, folder = exported("one_way")
    batch = random_batch(checkpoint.config, clips=1, history=0)
    sampling = Sampling(1, (1.0, 2.0, 1.0))
    made = [backend.generate_segment(batch, sampling) for backend in
            (SVDPPipeline.from_pretrained(folder), Animator(checkpoint).backend)]
    assert_equal(made[0].latents, made[1].latents)
    without = {name: x for name, x in batch.items() if not name.startswith("history")}
    np.testing.assert_array_equal(
        made[0].latents, SVDPPipeline.from_pretrained(folder).generate_segment(without, sampling).latents)


@pytest.mark.parametrize("scales, runs", [((1, 1, 1), [3]), ((2, 2, 1), [0, 2, 3]), ((2, 2.5, 1.5), [0, 1, 2, 3]),
                                          ((0, 0, 0), [0]), ((1, 0, 0), [1])])
def test_branches_without_weight_are_not_run(exported, scales, runs):
    """And what only they see is not computed."""
    pipeline = SVDPPipeline.from_pretrained(exported("joint")[1])
    calls = Counter()
    pipeline.model.transformer.register_forward_hook(lambda *_: calls.update(["transformer"]))
    pipeline.model.vae.encoder.register_forward_hook(lambda _, images, __: calls.update({"encoded": len(images[0])}))
    batch = random_batch(pipeline.config, clips=1, history=2)
    references = pipeline.references(batch)
    calls.clear()
    pipeline.generate_segment(batch, Sampling(2, scales), references=references)
    frames = 3 * (max(runs) >= 2) + 2 * (max(runs) >= 3)
    assert calls == Counter({"transformer": 2 * len(runs), **({"encoded": frames} if frames else {})})


def test_one_way_conditions_run_once(exported, people):
    """Source and attributes once per video, driver and history once per segment."""
    portrait, attributes, driving = people
    pipeline = SVDPPipeline.from_pretrained(exported("one_way")[1])
    transformer, calls = pipeline.model.transformer, []

    def spied(name):
        method = getattr(transformer, name)
        def spy(group, *rest):
            calls.append((name, group.tokens.shape[1]))
            return method(group, *rest)
        return spy
    for name in ("condition_keys", "history_keys"):
        setattr(transformer, name, spied(name))
    Animator(pipeline).animate(portrait, attributes, driving, sampling=Sampling(3, 2.0))
    source, attribute, driver, history = (("condition_keys", 1), ("condition_keys", 2), ("condition_keys", 4),
                                          ("history_keys", 2))
    assert calls == [source, attribute, driver, driver, history, driver, history]


@pytest.mark.parametrize("kind", ["one_way", "joint_sd"])
def test_offload_and_chunks_change_nothing(exported, kind):
    checkpoint, folder = exported(kind)
    batch, sampling = random_batch(checkpoint.config, clips=1, history=2), Sampling(2, 2.0)
    expected = SVDPPipeline.from_pretrained(folder).generate(batch, sampling)
    pipeline = SVDPPipeline.from_pretrained(folder).to("cpu", offload=True)
    pipeline.decode_chunk = 2
    on_device, used = set(), set()
    for name, network in pipeline.model.named_children():
        network.to = lambda *_, name=name: on_device.symmetric_difference_update({name})
        for module in network.modules():
            module.register_forward_pre_hook(lambda *_, name=name: used.add((name, name in on_device)))
    found = pipeline.generate(batch, sampling, references=pipeline.references(batch))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert used == {("transformer", True), ("vae", True)} and not on_device


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_close(exported, kind, dtype):
    checkpoint, folder = exported(kind)
    batch = batch_of(checkpoint)
    half = SVDPPipeline.from_pretrained(folder, dtype)
    assert half.dtype == getattr(torch, dtype)
    expected = SVDPPipeline.from_pretrained(folder).generate(batch, Sampling(1))
    assert psnr(half.generate(batch, Sampling(1)), expected) > 25


def test_names_and_values_are_those_of_sd3(exported):
    """diffusers' unmodified transformer takes the weights, and predicts the same for a noisy frame alone."""
    checkpoint, folder = exported("joint_sd")
    model, config = SVDPPipeline.from_pretrained(folder).model, checkpoint.config.mmdit
    theirs = SD3Transformer2DModel(
        sample_size=8, patch_size=config.patch, in_channels=4, num_layers=config.layers,
        attention_head_dim=config.head_width, num_attention_heads=config.heads, joint_attention_dim=config.text_dim,
        caption_projection_dim=config.width, pooled_projection_dim=config.pooled_dim, out_channels=4,
        pos_embed_max_size=config.canvas_size, dual_attention_layers=tuple(range(config.dual_layers)),
        qk_norm="rms_norm").eval()
    weights = model.transformer.state_dict()
    own = {name for name in weights if name.split(".")[0] in ("video_blocks", "mask_embedding", "group_embedding")}
    missing, unexpected = theirs.load_state_dict({name: x for name, x in weights.items() if name not in own},
                                                 strict=False)
    assert missing == ["pos_embed.pos_embed"] and not unexpected
    # Both codes of the place are sinusoidal, with other steps; the group embedding is added to ours.
    middle = slice((config.canvas_size - 4) // 2, (config.canvas_size + 4) // 2)
    table = theirs.pos_embed.pos_embed.view(config.canvas_size, config.canvas_size, -1)
    code = torch.from_numpy(token_codes(config, [NOISY], (4, 4))) + weights["group_embedding"][0]
    table[middle, middle] = code.view(4, 4, -1)
    latents = torch.from_numpy(frame_noise(0, range(2), (4, 8, 8)))
    with torch.inference_mode():
        expected = theirs(latents, torch.zeros(2, config.text_tokens, config.text_dim),
                          torch.zeros(2, config.pooled_dim), torch.full((2,), 400.0)).sample
        found = model.transformer(latents[None], 400.0, NOISY)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_other_sizes_and_families_are_refused(exported):
    checkpoint, folder = exported("one_way")
    with pytest.raises(InputError, match="pictures of 32 x 32 pixels only"):
        SVDPPipeline.from_pretrained(folder, size=64)
    with pytest.raises(InputError, match="expected an export for DurianPipeline, found one for SVDPPipeline"):
        DurianPipeline.from_pretrained(folder)
    with pytest.raises(InputError, match="5 frames at once exceed the 4"):
        SVDPPipeline.from_pretrained(folder).generate(random_batch(checkpoint.config, clips=1, frames=5))
    # A canvas has room for larger frames.
    canvas = SVDPPipeline.from_pretrained(exported("one_way_sd")[1], size=64)
    assert canvas.generate(random_batch(canvas.config, clips=1, frames=1)).shape == (1, 1, 64, 64, 3)


@pytest.mark.parametrize("kind", ["one_way", pytest.param("joint_sd", marks=pytest.mark.slow)])
def test_the_certificate_is_written(exported, tmp_path, kind):
    checkpoint, folder = exported(kind)
    report = verify_export(shutil.copytree(folder, tmp_path / "copy"), checkpoint.path, frames=2, steps=1)
    assert report["passed"] and report["max_relative_error"] < 1e-5
    rows = {row["name"]: row["relative_error"] for row in report["rows"]}
    assert max(rows.values()) < 1e-5
    alone = "driver alone" if kind == "one_way" else "history beside"
    assert {"prediction with history", "with source, video_blocks.1", f"{alone}, transformer_blocks.0"} <= set(rows)


@pytest.mark.slow
def test_compiled_blocks_are_the_same(exported, monkeypatch):
    checkpoint, folder = exported("one_way")
    batch, sampling = random_batch(checkpoint.config, clips=1, history=2), Sampling(1, 2.0)
    expected = SVDPPipeline.from_pretrained(folder).generate(batch, sampling)
    graphs = []

    def backend(graph, inputs):  # in place of Inductor, which needs a C++ compiler
        graphs.append(graph)
        return graph
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    found = SVDPPipeline.from_pretrained(folder).compile().generate(batch, sampling)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(graphs) >= 2, "joint blocks and video blocks"


WITHOUT_JAX = REFUSE_JAX + """
import numpy as np
from durian_jax.diffusion import Sampling
from durian_jax.torch import SVDPPipeline

pipeline = SVDPPipeline.from_pretrained(sys.argv[1])
made = pipeline.generate_segment(dict(np.load(sys.argv[2])), Sampling(2, 2.0, seed=3))
np.save(sys.argv[3], made.latents)
assert not [name for name in sys.modules if name.split(".")[0] in ("jax", "flax")]
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one_way", "joint_sd"])
def test_exports_run_without_jax(exported, tmp_path, kind):
    checkpoint, folder = exported(kind)
    batch = batch_of(checkpoint)
    np.savez(tmp_path / "batch.npz", **batch)
    subprocess.run([sys.executable, "-c", WITHOUT_JAX, folder, tmp_path / "batch.npz", tmp_path / "latents.npy"],
                   check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert_equal(np.load(tmp_path / "latents.npy"),
                 generate_segment(checkpoint, batch, Sampling(2, 2.0, seed=3)).latents)
