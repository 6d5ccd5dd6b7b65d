"""Time and memory at the papers' sizes on this machine, compared with diffusers' networks in the same run.

    python -m benchmarks.full_size                 all rows; 40 minutes on two cores, 30 GB of disk, 24 GB of memory
    python -m benchmarks.full_size --rows animate diffusers-bfloat16 --folder /data/bench
    python -m benchmarks.full_size --rows svdp-step diffusers-sd3     the second paper's size alone

diffusers and transformers make the pretrained parts with random weights, and `durian import` imports them. Time and
memory do not depend on the values. Each row runs in its own process; its memory is the largest resident set. The first
call includes compilation, the second does not.
"""

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

SIZE, FRAMES = 256, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--folder", help="keep the weights in this folder; default: a temporary folder")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(ROWS[options.row][1](Path(options.folder))))
        return
    folder = Path(options.folder or tempfile.mkdtemp(prefix="durian-bench-"))
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "torch", "diffusers"))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {versions}; {SIZE} px, "
          f"{FRAMES} frames")
    print(f"{'':58s} {'first s':>8s} {'then s':>8s} {'GiB':>6s}")
    try:
        rows = with_imports(options.rows, folder)
        for row in rows:
            seconds, gibibytes = run_alone(row, folder)
            then = f"{seconds[1]:8.1f}" if len(seconds) > 1 else " " * 8
            print(f"{ROWS[row][0]:58s} {seconds[0]:8.1f} {then} {gibibytes:6.1f}", flush=True)
    finally:
        if not options.folder:
            shutil.rmtree(folder)


def with_imports(rows: list[str], folder: Path) -> list[str]:
    """Make the parts that the rows need, and put before each family's rows the import that is missing."""
    found = []
    for row in ROWS:
        if row not in rows:
            continue
        second = row in SECOND
        if not (folder / ("transformer" if second else "image_encoder")).is_dir():
            (make_sd3_parts if second else make_parts)(folder)
        importer, start = ("svdp-import", "sd35m") if second else ("import", "start")
        if importer not in (*rows, *found) and not (folder / start / "config.json").is_file():
            found.append(importer)
        found.append(row)
    return found


def run_alone(row: str, folder: Path) -> tuple[list[float], float]:
    """Run a row in its own process; return the seconds of its calls and the peak memory in GiB."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.full_size", "--row", row, "--folder", str(folder)],
                               stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"row {row}: ended with status {status}; see its output above, or free memory")
    return json.loads(output.strip().splitlines()[-1]), usage.ru_maxrss / 2**20


def timed(call, repeats: int = 2) -> list[float]:
    """Return the seconds of each call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def make_parts(folder: Path) -> None:
    """Save random weights of Stable Diffusion 1.5's U-Net and autoencoder, AnimateDiff v2 and CLIP ViT-L/14."""
    from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    UNet2DConditionModel(cross_attention_dim=768).save_pretrained(folder / "unet")
    MotionAdapter().save_pretrained(folder / "motion_adapter")
    AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                  down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
                  ).save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
        projection_dim=768)).save_pretrained(folder / "image_encoder")


def make_sd3_parts(folder: Path) -> None:
    """Save random bfloat16 weights of Stable Diffusion 3.5 Medium's transformer and autoencoder."""
    import torch
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    torch.set_default_dtype(torch.bfloat16)
    SD3Transformer2DModel(num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=384,
                          qk_norm="rms_norm", dual_attention_layers=tuple(range(13))
                          ).save_pretrained(folder / "transformer")
    AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
                  down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                  scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
                  ).save_pretrained(folder / "vae")


# --- rows ---------------------------------------------------------------------------------------------

def import_row(folder: Path) -> list[float]:
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.convert.import_files import import_files

    parts = {name: str(folder) for name in ("unet", "vae", "motion", "image_encoder")}
    return timed(lambda: import_files(folder / "start", parts, size=SIZE, dtype="bfloat16", overwrite=True), repeats=1)


def animate_row(folder: Path) -> list[float]:
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.diffusion import Sampling
    from durian_jax.inference.animator import Animator
    from durian_jax.synthetic import render, sample_motion, sample_person, still

    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), SIZE)
    driving = render(sample_person("benchmark", 3), sample_motion("benchmark", 3, FRAMES), SIZE)
    animator = Animator(folder / "start")
    return timed(lambda: animator.animate(photo(0), [("hair", photo(1))], driving, sampling=Sampling(steps=1)))


def diffusers_row(dtype: str):
    def row(folder: Path) -> list[float]:
        import torch
        from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

        kind = getattr(torch, dtype)
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=kind)
        model = UNetMotionModel.from_unet2d(unet, MotionAdapter.from_pretrained(folder / "motion_adapter",
                                                                                torch_dtype=kind)).to(kind)
        del unet
        side = SIZE // 8
        latents, context = torch.randn(1, 4, FRAMES, side, side, dtype=kind), torch.randn(FRAMES, 1, 768, dtype=kind)
        with torch.inference_mode():
            return timed(lambda: model(latents, 500, context))
    return row


def svdp_import_row(folder: Path) -> list[float]:
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.convert.import_files import import_files

    parts = {name: str(folder) for name in ("transformer", "vae")}
    return timed(lambda: import_files(folder / "sd35m", parts, size=SIZE, dtype="bfloat16", overwrite=True), repeats=1)


def svdp_step_row(folder: Path) -> list[float]:
    """One denoising step of all four branches of a segment with history, with the pictures' encoding and decoding."""
    from durian_jax import runtime

    runtime.configure()
    import numpy as np

    from durian_jax.checkpoints.weights import load_checkpoint
    from durian_jax.diffusion import Sampling
    from durian_jax.inference.generate import generate_segment

    checkpoint = load_checkpoint(folder / "sd35m")
    side, history = checkpoint.config.latent_size, checkpoint.config.history
    rng = np.random.default_rng(0)
    masks = np.zeros((1, FRAMES, SIZE, SIZE, 1), np.float32)
    masks[:, :, SIZE // 3:2 * SIZE // 3, SIZE // 3:2 * SIZE // 3] = 1
    batch = {"portrait": rng.uniform(-1, 1, (1, SIZE, SIZE, 3)), "portrait_mask": np.zeros((1, SIZE, SIZE, 1)),
             "attributes": np.zeros((1, 0, SIZE, SIZE, 3)), "attribute_masks": np.zeros((1, 0, SIZE, SIZE, 1)),
             "attribute_valid": np.zeros((1, 0)), "driving_masks": masks,
             "driving_regions": rng.uniform(-1, 1, (1, FRAMES, SIZE, SIZE, 3)) * masks,
             "history_latents": rng.normal(size=(1, history, side, side, checkpoint.config.codec.latent_channels)),
             "history_valid": np.ones(1)}
    sampling = Sampling(steps=1, guidance_scale=(2.0, 2.5, 1.5), sampler="ddim")

    def call():
        segment = generate_segment(checkpoint, batch, sampling, first_frame=history)
        if segment.images.shape != (1, FRAMES, SIZE, SIZE, 3) or not np.isfinite(segment.latents).all():
            raise SystemExit("the step has failed")
    return timed(call)


def sd3_row(folder: Path) -> list[float]:
    """diffusers' transformer on the canvas [source | frame | driver] of each frame: one branch, no video attention."""
    import torch
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.bfloat16)
    side = SIZE // 8
    draw = lambda *shape: torch.randn(*shape, dtype=torch.bfloat16)
    with torch.inference_mode():
        return timed(lambda: model(draw(FRAMES, 16, side, 3 * side), draw(FRAMES, 128, 4096), draw(FRAMES, 2048),
                                   torch.full((FRAMES,), 500)))


def train_row(stage: str, halved: bool = False, encoded: bool = False):
    def row(folder: Path) -> list[float]:
        from durian_jax import runtime

        runtime.configure()
        import jax
        import numpy as np

        from durian_jax.configs import load_config
        from durian_jax.models.parameters import param_shapes
        from durian_jax.training.config import RunConfig
        from durian_jax.training.initialization import initial_params
        from durian_jax.training.optimizer import make_optimizer
        from durian_jax.training.state import create_state
        from durian_jax.training.step import make_train_step

        config = load_config(f"sd15,stage={stage}")
        config.batch_size, config.model.image_size, config.data.frames = 1, SIZE, FRAMES if stage == "2" else 1
        config.source.samples = "encoded" if encoded else ""  # decides the fields of the batch; no file is read
        if halved:
            config.model.unet.channels = tuple(width // 2 for width in config.model.unet.channels)
        else:
            config.init_from = str(folder / "start")
        run = RunConfig.read(config)
        optimizer = make_optimizer(run)
        make_state = lambda params: create_state(params, run.recipe.trains, optimizer, run.frozen_dtype)
        batch = {name: np.zeros(shape, dtype) for name, (shape, dtype) in run.batch_shapes().items()}
        batch["attribute_valid"][:] = 1
        # Compile before the state exists, because compilation itself needs gigabytes.
        start = time.perf_counter()
        step = make_train_step(run, optimizer)
        step = step.lower(jax.eval_shape(make_state, param_shapes(run.model)), batch).compile()
        compiling = time.perf_counter() - start
        gc.collect()
        state = make_state(initial_params(run))

        def call():
            nonlocal state
            state, metrics = step(state, batch)
            if not np.isfinite(jax.device_get(metrics["loss"])):
                raise SystemExit("the loss is not finite")
        first, then = timed(call)
        return [compiling + first, then]
    return row


ROWS = {
    "import": ("durian import, to bfloat16", import_row),
    "animate": ("durian: encode, one step, decode, bfloat16", animate_row),
    "diffusers-bfloat16": ("diffusers UNetMotionModel: one forward, bfloat16", diffusers_row("bfloat16")),
    "diffusers-float32": ("diffusers UNetMotionModel: one forward, float32", diffusers_row("float32")),
    "stage2": ("durian: a training step of stage 2, remat full", train_row("2")),
    "stage2-encoded": ("durian: the same from encoded samples", train_row("2", encoded=True)),
    "stage1-half": ("durian: a training step of stage 1, half the channels", train_row("1", halved=True)),
    "stage1-half-encoded": ("durian: the same from encoded samples", train_row("1", halved=True, encoded=True)),
    "svdp-import": ("durian import of sd35m, to bfloat16", svdp_import_row),
    "svdp-step": ("sd35m: encode, a step of four branches, decode, bfloat16", svdp_step_row),
    "diffusers-sd3": ("diffusers SD3Transformer2DModel: one branch, bfloat16", sd3_row),
}
# Rows of the second family, which has parts of its own.
SECOND = {"svdp-import", "svdp-step", "diffusers-sd3"}


if __name__ == "__main__":
    main()
