"""Time per guided denoising step and per clip, and peak memory: ours in JAX, ours in PyTorch, and a PyTorch baseline.

    python -m benchmarks.animate                               the paper's size at 256 px, 4 frames, on this CPU
    python -m benchmarks.animate --dtype float32               on a CPU without bfloat16
    python -m benchmarks.animate --device cuda --size 512 --frames 16 --steps 20
    python -m benchmarks.animate --rows usual compiled --markdown docs/pytorch.md
    python -m benchmarks.animate --count --size 256 512 --frames 4 16      count operations only, on any machine

The baseline ("usual") implements reference attention as published code does, on diffusers' UNetMotionModel. It repeats
the reference features for every frame, concatenates them with the frame's own features and projects both at every step.
Both guidance branches attend to references and run as one batch. Cross-attention to image embeddings is general. Each
later PyTorch row adds one optimization. Weights are random, because speed does not depend on them.

Each row runs in its own process, so that memory is measured per row. The speed of a shared machine varies over time.
Rows therefore run in turn, `--rounds` times. Step times are medians over all rounds. A row is compared with the first
row of the same round. A clip is timed in the first round only.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.sections import replace_section
from durian_jax.configs import load_config
from durian_jax.files import write_text
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.family import model_config
from durian_jax.training.metrics import peak_flops

GUIDANCE = 3.5

# Name -> label in the tables.
ROWS = {
    "usual": "baseline: reference attention as published",
    "shared": "ours in PyTorch: reference keys and values projected once per clip",
    "unconditional": "+ no reference attention in the unconditional branch",
    "constant": "+ cross-attention to one embedding computed once per clip",
    "channels_last": "+ channels-last memory layout",
    "compiled": "+ torch.compile, block by block",
    "jax": "ours in JAX",
}

# Rows that differ in their number of operations.
COUNTED = ("usual", "shared", "unconditional", "constant")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="one or more, in pixels")
    parser.add_argument("--frames", type=int, nargs="+", default=[4], help="one or more")
    parser.add_argument("--dtype", nargs="+", choices=("bfloat16", "float16", "float32"), default=["bfloat16"],
                        help="one or more, of weights and activations")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps per clip")
    parser.add_argument("--repeats", type=int, default=1, help="timed steps per process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", type=Path, help="write the table to this existing file")
    parser.add_argument("--heading", default="Measured", help="section of the file that the table replaces")
    parser.add_argument("--count", action="store_true", help="count the operations of four rows, measure no time")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        options.size, options.frames, options.dtype = options.size[0], options.frames[0], options.dtype[0]
        print(json.dumps((jax_row if options.row == "jax" else torch_row)(options)))
        return
    if min(options.steps, options.repeats, options.rounds) < 1:
        parser.error("--steps, --repeats and --rounds: expected at least 1")
    if "float16" in options.dtype and "jax" in options.rows and not options.count:
        parser.error("--dtype float16: the row jax needs bfloat16 or float32; leave it out with --rows")
    if options.markdown and not options.markdown.is_file():
        parser.error(f"--markdown {options.markdown}: expected an existing file, found none")
    text = counts(options) if options.count else speeds(options)
    print(text)
    if options.markdown:
        write_text(options.markdown, replace_section(options.markdown.read_text(), options.heading, text))


def counts(options) -> str:
    """Count TFLOPs per guided step; return Markdown."""
    lines = ["| px, frames | " + " | ".join(ROWS[row] for row in COUNTED) + " | ratio |",
             "|---" * (len(COUNTED) + 2) + "|"]
    for size, frames in itertools.product(options.size, options.frames):
        setting = {"size": size, "frames": frames, "dtype": "bfloat16"}
        found = [in_process({"row": row, **setting}, options, False)["flops"] for row in COUNTED]
        lines.append(f"| {size}, {frames} | " + " | ".join(f"{x / 1e12:.2f}" for x in found)
                     + f" | {found[0] / found[-1]:.2f} |")
    return "\n".join([f"`{command_line()}`: TFLOPs per guided step.", "", *lines, ""])


def command_line() -> str:
    return shlex.join(["python", "-m", "benchmarks.animate", *sys.argv[1:]])


def speeds(options) -> str:
    """Run every row in its own process, in turn; return Markdown."""
    found = []
    for size, frames, dtype in itertools.product(options.size, options.frames, options.dtype):
        setting = {"size": size, "frames": frames, "dtype": dtype}
        rounds = []
        for number in range(options.rounds):
            rounds.append([in_process({"row": row, **setting}, options, number == 0) for row in options.rows])
        found += [merged({"row": row, **setting}, results, [results[0] for results in rounds])
                  for row, results in zip(options.rows, zip(*rounds, strict=True), strict=True)]
    return table(found, options)


def in_process(setting: dict, options, with_clip: bool) -> dict:
    more = {**setting, "steps": options.steps if with_clip else 0, "repeats": options.repeats,
            "device": "meta" if options.count else options.device}
    done = subprocess.run([sys.executable, "-m", "benchmarks.animate",
                           *(part for name, value in more.items() for part in (f"--{name}", str(value)))],
                          check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print({**setting, **result}, flush=True)
    return result


def merged(setting: dict, results: Sequence[dict], bases: Sequence[dict]) -> dict:
    """Merge the rounds of one row: median step time, and median speed-up over the base row of the same round."""
    middle = lambda result: statistics.median(result["seconds"])
    return {**setting, **results[0], "step": statistics.median(x for result in results for x in result["seconds"]),
            "faster": statistics.median(middle(base) / middle(result)
                                        for base, result in zip(bases, results, strict=True))}


def table(found: list[dict], options) -> str:
    """Return Markdown; speed-ups are relative to the first row of the same setting and round.

    If there is only one row, its label stands above the table.
    """
    rows = []
    for values in found:
        rate = f"{values['flops'] / values['step'] / 1e12:.2f}" if values.get("flops") else ""
        peak = peak_flops(values["device"])
        share = f" ({values['flops'] / values['step'] / peak:.0%})" if peak and rate else ""
        rows.append({
            "": ROWS[values["row"]], "px, frames, dtype": f"{values['size']}, {values['frames']}, {values['dtype']}",
            "guided step, s": f"{values['step']:.3f}", "speed-up": f"{values['faster']:.2f}",
            "clip, s": f"{values['clip']:.1f}", "peak GiB": f"{values['memory']:.1f}", "TFLOP/s": rate + share})
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "jax"))
    about = f"Guided steps per clip: {options.steps}; rounds: {options.rounds}; {found[0]['device']}; {versions}; " \
            f"{date.today()}."
    if len(options.rows) == 1:
        about = f'Row: "{rows[0][""]}". {about}'
        for row in rows:
            del row[""], row["speed-up"]
    header, *lines = (f"| {' | '.join(cells)} |" for cells in (rows[0], *(row.values() for row in rows)))
    return "\n".join([f"`{command_line()}`", "", about, "", header, "|---" * len(rows[0]) + "|", *lines, ""])


def paper_model(options) -> DurianConfig:
    return replace(model_config(load_config("sd15,stage=2").model.to_dict()), image_size=options.size)


def example_batch(config: DurianConfig, frames: int) -> dict[str, np.ndarray]:
    """Return a procedural clip with one attribute as a batch."""
    from durian_jax.inference.references import make_references
    from durian_jax.synthetic import render, sample_motion, sample_person, still

    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), config.image_size)
    driving = render(sample_person("benchmark", 2), sample_motion("benchmark", 2, frames), config.image_size)
    references = make_references(photo(0), [("hair", photo(1))])
    return {**{name: x[None] for name, x in references.items()}, "keypoints": driving.keypoints[None]}


def timed(call, repeats: int = 1, finish=lambda: None, warm_up: bool = True) -> list[float]:
    """Return the seconds of each call; with `warm_up`, make one untimed call first."""
    seconds = []
    for _ in range(repeats + warm_up):
        start = time.perf_counter()
        call()
        finish()
        seconds.append(time.perf_counter() - start)
    return seconds[warm_up:]


def jax_row(options) -> dict:
    if options.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    from durian_jax import runtime

    runtime.configure()
    import jax
    import jax.numpy as jnp

    from durian_jax.checkpoints.weights import Checkpoint
    from durian_jax.diffusion import Objective
    from durian_jax.diffusion.sampling import Sampling
    from durian_jax.inference.generate import generate
    from durian_jax.models.parameters import param_shapes

    config = replace(paper_model(options), dtype=options.dtype)
    pattern = 0.02 * np.random.default_rng(0).standard_normal(1 << 20, np.float32)
    params = {path: jnp.asarray(np.resize(pattern, x.shape), config.dtype) for path, x in param_shapes(config).items()}
    checkpoint = Checkpoint(config, Objective("stable_diffusion", "epsilon", region_weight=0.0), params)
    batch = example_batch(config, options.frames)
    run = lambda steps: generate(checkpoint, batch, Sampling(steps, GUIDANCE))
    # Two runs differ by two steps only, so their difference excludes references and decoding.
    steps = max(options.steps, 1)
    short, long = partial(run, steps), partial(run, steps + 2)
    short(), long()
    pairs = [(timed(short, warm_up=False)[0], timed(long, warm_up=False)[0]) for _ in range(options.repeats)]
    stats = jax.devices()[0].memory_stats() or {}
    memory = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"seconds": [(b - a) / 2 for a, b in pairs], "clip": pairs[0][0], "memory": memory / 2**30,
            "device": device_name(jax.devices()[0].device_kind)}


def torch_row(options) -> dict:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from durian_jax.checkpoints.description import Description
    from durian_jax.diffusion import Objective, Sampling
    from durian_jax.diffusion.guidance import active_branches
    from durian_jax.pytorch.durian.model import Durian
    from durian_jax.pytorch.durian.pipeline import Condition
    from durian_jax.torch import DurianPipeline

    config, row, dtype = paper_model(options), options.row, getattr(torch, options.dtype)
    torch.manual_seed(0)
    model = random_model(lambda: Durian(config), dtype, options.device)
    objective = Objective("stable_diffusion", "epsilon", region_weight=0.0)
    pipeline = DurianPipeline(model, Description(config, objective))
    pipeline.to(options.device, channels_last=row in ("channels_last", "compiled"))
    batch = example_batch(config, options.frames)
    with torch.inference_mode():
        encoded = model.encode_references(*(pipeline.to_tensor(batch[name]) for name in (
            "portrait", "portrait_mask", "attributes", "attribute_masks")))
        features, context = [model.portrait_features(encoded), model.attribute_features(encoded)], \
            encoded.attribute_embeddings
        references = model.project_references(*features, context)
        keypoints = pipeline.keypoint_features(batch["keypoints"])
        sites = model.select(references, batch["attribute_valid"])
        side, frames = config.latent_size, options.frames
        noise = torch.randn(frames, config.codec.latent_channels, side, side, device=options.device)
        if row in ("shared", "unconditional"):
            sites = [replace(site, cross=general_cross(block.attn2, context)) for site, block in
                     zip(sites, model.denoising_unet.sites(), strict=True)]
        if row == "usual":
            usual = UsualWay(config, model, [torch.cat(pair, 1) for pair in zip(*features, strict=True)], context,
                             keypoints)
            step = partial(usual, noise.to(dtype))
        else:
            moments = torch.full((2 * frames,), 500.0, device=noise.device)
            guided = [replace(site, guided=row != "shared") for site in sites]
            step = partial(model.denoising_unet, torch.cat([noise] * 2).to(dtype), moments, frames=frames,
                           bias=torch.cat([keypoints] * 2), sites=guided, temporal=True)
        on_gpu = options.device.startswith("cuda")
        finish = torch.cuda.synchronize if on_gpu else lambda: None
        with FlopCounterMode(display=False, custom_mapping=cpu_attention()) as counter:
            step()  # also warms up
        if options.device == "meta":
            return {"flops": counter.get_total_flops()}
        if row == "compiled":  # after counting, because the FLOP counter prevents compilation
            pipeline.compile()
        seconds = timed(step, options.repeats, finish, warm_up=on_gpu or row == "compiled")

        def clip():
            found = pipeline.references(batch)
            latents = noise
            if row == "usual":
                for _ in range(options.steps):
                    step()
            else:
                sampling = Sampling(options.steps, GUIDANCE)
                active, scales = active_branches(sampling.scales(config.guidance))
                condition = Condition(keypoints, model.select(found, batch["attribute_valid"]), active)
                latents = pipeline.sample(noise, condition, sampling, scales, frames=frames, temporal=True)
            pipeline.decode(latents)

        whole = timed(clip, finish=finish, warm_up=on_gpu)[0] if options.steps else None
    memory = torch.cuda.max_memory_allocated() if on_gpu else \
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    return {"seconds": seconds, "clip": whole, "memory": memory / 2**30, "flops": counter.get_total_flops(),
            "device": device_name(name)}


def cpu_attention() -> dict:
    """Return a FLOP formula for attention on CPUs, which PyTorch's counter lacks."""
    import torch
    from torch.utils.flop_counter import sdpa_flop_count

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)}


def random_model(make, dtype, device: str):
    """Make a module with random weights, without its slow initialisation."""
    import torch

    with torch.device("meta"):
        model = make()
    model = model.to(dtype).to_empty(device=device)
    # Repeat one pattern, because drawing billions of values takes minutes.
    pattern = 0.02 * torch.randn(1 << 20, device=device, dtype=dtype)
    for x in model.parameters():
        for part in x.data.view(-1).split(len(pattern)):
            part.copy_(pattern[:len(part)])
    for name, x in model.named_buffers():
        x.copy_(torch.arange(x.numel()).view(x.shape) if name.endswith("position_ids") else torch.zeros_like(x))
    return model.eval().requires_grad_(False)


def general_cross(attn, context):
    """Project keys and values for cross-attention that is computed for every token."""
    from durian_jax.pytorch.durian.attention import Blend, split_heads

    key, value = split_heads(attn.to_k(context), attn.heads), split_heads(attn.to_v(context), attn.heads)
    return (Blend(key, value, None, None),)


class UsualWay:
    """One guided step of the baseline, on diffusers' UNetMotionModel and its attention processors.

    Args:
        config: sizes.
        model: our model, which provides the weights.
        features: (B, G, N, C) reference features of every attention site.
        context: (B, A, D) image embeddings.
        keypoint_features: (F, C_0, h, w), added to the first features of both guidance branches.
    """

    def __init__(self, config: DurianConfig, model, features, context, keypoint_features):
        import torch
        import torch.nn.functional as F
        from diffusers import UNetMotionModel

        from durian_jax.convert import sizes

        class ConcatenatedReferences:
            """Attention processor that projects frame tokens and reference tokens together."""

            def __init__(self, reference):
                self.reference = reference.flatten(1, 2)

            def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
                reference = self.reference.expand(len(hidden_states), -1, -1)
                both = torch.cat([hidden_states, reference], 1)
                heads = lambda x: x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                mixed = F.scaled_dot_product_attention(heads(attn.to_q(hidden_states)), heads(attn.to_k(both)),
                                                       heads(attn.to_v(both)))
                return attn.to_out[0](mixed.transpose(1, 2).flatten(2))

        values = sizes.motion_unet_json(config.unet, config.codec.latent_channels, config.latent_size,
                                        config.temporal_heads, config.max_frames)
        with torch.device("meta"):
            self.unet = UNetMotionModel(**{name: x for name, x in values.items() if not name.startswith("_")})
        self.unet.load_state_dict(model.denoising_unet.state_dict(), assign=True)
        self.unet.eval()
        blocks = [site.transformer_blocks[0] for level in (*self.unet.down_blocks, self.unet.mid_block,
                                                           *self.unet.up_blocks)
                  for site in getattr(level, "attentions", ())]
        for block, reference in zip(blocks, features, strict=True):
            block.attn1.set_processor(ConcatenatedReferences(reference))
        self.unet.conv_in.register_forward_hook(
            lambda module, inputs, x: x + torch.cat([keypoint_features] * (len(x) // len(keypoint_features))))
        frames = len(keypoint_features)
        self.context = torch.cat([torch.zeros_like(context), context]).repeat_interleave(frames, 0)

    def __call__(self, noisy):
        import torch

        clip = noisy.transpose(0, 1)[None]
        return self.unet(torch.cat([clip] * 2), 500, self.context).sample


def device_name(name: str) -> str:
    if "cpu" not in name.lower():
        return name
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else ""
    return f"{os.cpu_count()} cores, {cpu or platform.machine()}"


if __name__ == "__main__":
    main()
