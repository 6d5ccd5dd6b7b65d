"""`durian import`."""

import click

from durian_jax.commands.config_flags import config_command, read_config
from durian_jax.interruption import stoppable


@config_command("import", config_help="Import into the model of this training config, for example of an ablation, and "
                "refuse parts that do not fit; see below.  [default: a model that fits the parts]")
@click.option("--base", default=None, metavar="FOLDER|ID",
              help="Stable Diffusion 1.5, with unet/ and vae/; or 3.5 Medium, with transformer/ and vae/.")
@click.option("--unet", default=None, metavar="FOLDER|ID", help="A UNet2DConditionModel.  [default: that of --base]")
@click.option("--transformer", default=None, metavar="FOLDER|ID",
              help="An SD3Transformer2DModel.  [default: that of --base]")
@click.option("--vae", default=None, metavar="FOLDER|ID",
              help="An AutoencoderKL or AutoencoderTiny.  [default: that of --base]")
@click.option("--motion", default=None, metavar="FOLDER|ID",
              help="An AnimateDiff MotionAdapter (v2 or v3).  [default: fresh motion modules]")
@click.option("--image-encoder", default=None, metavar="FOLDER|ID",
              help="A CLIP image encoder, for example ViT-L/14.  [default: no image embedding]")
@click.option("--identity-model", default=None, metavar="FILE.onnx",
              help="An ArcFace network; PRNet attends to its embedding of the portrait.  [default: CLIP's embedding]")
@click.option("--out", required=True, metavar="FOLDER", help="Checkpoint to write.")
@click.option("--size", type=click.IntRange(8), default=None,
              help="Picture size in pixels.  [default: the config's, or 512]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True,
              help="Precision of the file: 13 GB (1.5) or 11 GB (3.5 Medium) in float32, half of that in the others.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint in FOLDER.")
@stoppable(lambda out, **_: f"{out} is unchanged, complete downloads are kept; repeat the command to start again")
def import_weights(config, overrides, base, unet, transformer, vae, motion, image_encoder, identity_model, out, size,
                   dtype, overwrite):
    """Make an initial checkpoint from pretrained parts.

    Parts are folders in the layout of diffusers and transformers, or hub ids (owner/repository, or
    owner/repository:folder), which are downloaded. A U-Net or a transformer decides the model's family. Every tensor
    must fit; the error lists tensors that do not.

    \b
    durian import --base stable-diffusion-v1-5/stable-diffusion-v1-5 \\
        --motion guoyww/animatediff-motion-adapter-v1-5-2 \\
        --image-encoder openai/clip-vit-large-patch14 --out data/start
    durian import --base stabilityai/stable-diffusion-3.5-medium --dtype bfloat16 --out data/start
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.convert.import_files import import_files

    like = None
    if config is not None or overrides:
        from durian_jax.training.config import RunConfig

        like = RunConfig.read(read_config(config, overrides)).description
    parts = {"unet": unet, "transformer": transformer, "vae": vae, "motion": motion, "image_encoder": image_encoder}
    model = import_files(out, parts, base=base, identity_model=identity_model, size=size, dtype=dtype, like=like,
                         overwrite=overwrite)
    click.echo(f"{out}: a checkpoint for {model.image_size} px and {model.max_frames} frames; train it with "
               f"--config.init_from={out}")
