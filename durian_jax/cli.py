"""The command line: one verb a capability, each a thin shell around a function of the library.

Whatever imports jax is imported inside the verbs, so that help is quick and XLA's flags are set in time.
"""


import click

from durian_jax import __version__
from durian_jax.data_cli import annotator, expand, masks, prepare, sheet, synthesize
from durian_jax.errors import InputError


class _Verbs(click.Group):
    """Verbs in the order they are written below; a user's mistake is one line and exit status 2."""

    def list_commands(self, ctx):
        return list(self.commands)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"durian: error: {error}", err=True)
            ctx.exit(error.status)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("durian_jax"):
                raise
            click.echo(f"durian: error: this needs {error.name}, which is not installed here: pip install durian-jax; "
                       "without JAX, `durian animate --backend torch` runs what `durian export` has written", err=True)
            ctx.exit(2)


def _sampling(command):
    """The options of every verb that samples from a checkpoint; the defaults of `diffusion.sampling.Sampling`."""
    for option in reversed((
        click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER",
                     help="The model: a shipped one by name, or a folder."),
        click.option("--steps", type=click.IntRange(1), default=1, show_default=True,
                     help="Of the sampler; more are crisper and less faithful with the shipped model."),
        click.option("--guidance", type=click.FloatRange(0), default=1.0, show_default=True,
                     help="Classifier-free guidance; 1 is none."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
                     help="Of the noise; the same seed gives the same files."),
        click.option("--sampler", type=click.Choice(["ddim", "dpm++"]), default="dpm++", show_default=True,
                     help="DDIM or DPM-Solver++(2M)."),
    )):
        command = option(command)
    return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="durian")
def main():
    """Animate a portrait while it takes over hair, glasses, beard or hat from other people.

    Start with `durian demo`, which needs neither network nor accelerator.
    """


@main.command()
@click.option("--out", default="demo", show_default=True, metavar="FOLDER", help="Where the pictures go.")
@click.option("--cases", type=click.IntRange(1), default=2, show_default=True,
              help="Transfers of each attribute.")
@_sampling
def demo(out, cases, checkpoint, steps, guidance, seed, sampler):
    """Show what the shipped model does.

    Transfers, composes and interpolates attributes of held-out procedural people.

    Writes videos, a contact sheet, index.html and report.json with the distance to the exact truth.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.diffusion.sampling import Sampling
    from durian_jax.evaluation.demo import run_demo

    run_demo(out, checkpoint=checkpoint, cases=cases, sampling=Sampling(steps, guidance, seed, sampler))
    click.echo(f"open {out}/index.html")


@main.command()
@click.option("-s", "--source", required=True, metavar="PHOTO", help="The portrait to animate.")
@click.option("-d", "--driving", required=True, metavar="VIDEO", help="Whose motion it makes.")
@click.option("-a", "--attribute", "attributes", multiple=True, metavar="KIND=PHOTO",
              help="hair, glasses, beard or hat from another photo; repeat for more.")
@click.option("-o", "--out", "--output", required=True, metavar="FILE.mp4", help="The video to write.")
@click.option("--frames", type=click.IntRange(1), default=None, help="At most so many.  [default: all]")
@click.option("--size", type=click.IntRange(1), default=None,
              help="Picture size in pixels, where the model can make others.  [default: the checkpoint's]")
@_sampling
@click.option("--backend", type=click.Choice(["jax", "torch"]), default="jax", show_default=True,
              help="torch runs what `durian export` has written, and needs no JAX.")
@click.option("--device", default=None, metavar="NAME", help="For torch.  [default: a GPU if there is one]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default=None,
              help="For torch.  [default: the model's]")
def animate(source, driving, attributes, out, frames, size, checkpoint, steps, guidance, seed, sampler, backend,
            device, dtype):
    """Animate a photo by a video.

    Attributes may come from other photos.

    Writes FILE.mp4, FILE_concat.mp4 (driving | source | attributes | result, with the driving video's
    sound) and FILE.json (settings, timings, versions).

    \b
    durian animate -s me.png -d talk.mp4 -a hair=friend.png -a glasses=aunt.png -o out.mp4
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.diffusion.sampling import Sampling
    from durian_jax.inference.animate import animate_files

    report = animate_files(source, driving, attributes, out, checkpoint=checkpoint, frames=frames, size=size,
                           sampling=Sampling(steps, guidance, seed, sampler), backend=backend, device=device,
                           dtype=dtype)
    click.echo(f"{out}: {report['frames']} frames in {report['seconds']['total']:.1f} s")


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "json_path", default=None, metavar="FILE", help="Write the reports there, with all measures.")
@click.pass_context
def check(ctx, files, json_path):
    """Say what is wrong with photos and videos.

    Looks at source photos, attribute photos and driving videos before `durian animate` does: faces too
    small, blurred, turned away or hidden, cuts, a first frame that is not calm, ... and what to do. The exit
    status is 1 if a file has an error, 0 if there are warnings at most.

    \b
    durian check me.png friend.png talk.mp4
    """
    from durian_jax.files import writable_file, write_json
    from durian_jax.prepare.check import check_files, describe

    if json_path:
        writable_file(json_path, (".json",))
    reports = check_files(files)
    for report in reports:
        click.echo(describe(report))
    if json_path:
        write_json(json_path, {"files": [report.as_dict() for report in reports]})
    ctx.exit(0 if all(report.ok for report in reports) else 1)


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train(ctx, flags):
    """Train a model, or go on with a run.

    \b
    durian train --config=configs/durian.py:tiny,stage=1 --workdir=runs/tiny
    durian train --config=configs/durian.py:tiny,stage=2 --workdir=runs/tiny2 --config.total_steps=8

    Any field of the config is a flag: --config.total_steps, --config.batch_size,
    --config.checkpoint_every, --config.log_every, --config.learning_rate, --config.seed,
    --config.mesh.fsdp, ... The same command again continues from the last checkpoint in the workdir, on
    any number of devices and hosts; a larger total_steps goes on. SIGTERM saves and stops.
    The workdir gets metrics.jsonl, TensorBoard events, sample sheets and checkpoints.

    --profile=10:15 writes a trace of these steps to WORKDIR/profile. launch/ starts it on several hosts.
    """
    if not flags or "--help" in flags or "-h" in flags:
        click.echo(ctx.get_help())
        return
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.commands.config_flags import run

    run(list(flags))


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def plan(ctx, flags):
    """Say what a training run will take on TPUs.

    Compiles the run's real step for a topology, without any TPU: memory of a chip, FLOPs, collectives, and
    bounds of time that follow from them. The TPU compiler is fetched once by `durian plan --install`.

    \b
    durian plan --config=configs/durian.py:sd15,stage=1 --topology=v5e:16x16 --mesh=data=16,fsdp=16 --batch=1024
    durian plan --config=configs/durian.py:tiny,stage=1 --topology=v5e:2x2 --batch=8 --full
    durian plan --config=configs/durian.py:sd15,stage=2 --topology=v5p:4x4x4 --search --json=plan.json

    --topology is CHIP:AxB (v5e, v6e) or CHIP:AxBxC (v4, v5p). --mesh and --batch default to the config's,
    and any field of the config is a flag, as in `durian train`. The paper's size takes ten minutes and
    8 GiB: all but machine code, which --full makes too (hours, at that size). --search tries meshes, batch
    sizes and --config.remat in place of those given, and recommends one. --price=1.2 adds the cost, at so
    much a chip-hour. --json=FILE writes everything for programs.
    """
    if not flags or "--help" in flags or "-h" in flags:
        click.echo(ctx.get_help())
        return
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.commands.config_flags import run_plan

    run_plan(list(flags))


@main.command("import", context_settings={"ignore_unknown_options": True})
@click.option("--base", default=None, metavar="FOLDER|ID", help="Stable Diffusion 1.5, with unet/ and vae/ in it.")
@click.option("--unet", default=None, metavar="FOLDER|ID", help="A UNet2DConditionModel.  [default: that of --base]")
@click.option("--vae", default=None, metavar="FOLDER|ID",
              help="An AutoencoderKL or AutoencoderTiny.  [default: that of --base]")
@click.option("--motion", default=None, metavar="FOLDER|ID",
              help="An AnimateDiff MotionAdapter (v2 or v3).  [default: fresh motion modules]")
@click.option("--image-encoder", default=None, metavar="FOLDER|ID",
              help="A CLIP, such as ViT-L/14.  [default: no image embedding]")
@click.option("--identity-model", default=None, metavar="FILE.onnx",
              help="An ArcFace network whose embedding of the portrait PRNet is to attend to.  [default: CLIP's]")
@click.option("--out", required=True, metavar="FOLDER", help="The checkpoint to write.")
@click.option("--size", type=click.IntRange(8), default=None, help="Picture size in pixels.  [default: 512]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True,
              help="Of the file: 13 GB, or half of that.")
@click.option("--config", default=None, metavar="FILE.py:PRESET,...",
              help="Make this config's model, an ablation say, and refuse parts that do not fit it.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint in FOLDER.")
def import_(base, unet, vae, motion, image_encoder, identity_model, out, size, dtype, config, overwrite):
    """Make an initial checkpoint from pretrained parts.

    Parts are folders as diffusers and transformers save them, or hub ids (owner/repository, or
    owner/repository:folder), which are fetched. Every tensor must fit; what does not is listed.

    \b
    durian import --base stable-diffusion-v1-5/stable-diffusion-v1-5 \\
        --motion guoyww/animatediff-motion-adapter-v1-5-2 \\
        --image-encoder openai/clip-vit-large-patch14 --out data/start
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.convert.import_files import import_files

    unet, vae = unet or base, vae or base
    for name, value in (("unet", unet), ("vae", vae)):
        if value is None:
            raise InputError(f"import: expected --{name}, or --base that has one; found neither")
    model = import_files(out, unet=unet, vae=vae, motion=motion, image_encoder=image_encoder,
                         identity_model=identity_model, size=size, dtype=dtype, config=config, overwrite=overwrite)
    click.echo(f"{out}: a checkpoint for {model.image_size} px and {model.max_frames} frames; train it with "
               f"--config.init_from={out}")


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def encode(ctx, flags):
    """Encode training samples once, not in every step.

    \b
    durian encode --config=configs/durian.py:sd15,stage=1 --config.init_from=data/start \\
        --config.source.clips=data/mine --samples=100000 --out=data/encoded
    durian train --config=configs/durian.py:sd15,stage=1 --config.init_from=data/start \\
        --config.source.samples=data/encoded --workdir=runs/sd1

    Writes samples with latents and embeddings instead of pictures, augmented as the config says: ask for
    many. A killed call goes on when it is repeated. --part=0/4 (optional) makes every fourth file, for
    several machines.
    """
    if not flags or "--help" in flags or "-h" in flags:
        click.echo(ctx.get_help())
        return
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.training.encode import run

    run(list(flags))


@main.command()
@click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER",
              help="The model: a shipped one by name, or a folder.")
@click.option("--out", required=True, metavar="FOLDER", help="Where the export goes.")
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp16", show_default=True,
              help="Of the files.")
@click.option("--overwrite", is_flag=True, help="Replace FOLDER.")
def export(checkpoint, out, dtype, overwrite):
    """Write a checkpoint for PyTorch.

    In diffusers' layout: its classes load the U-Nets and the autoencoder where they fit, and
    `durian animate --backend torch` and `durian_jax.torch` run all of it without JAX. A training run's
    export/ holds the averaged weights (EMA), and so does this.

    \b
    durian export --checkpoint runs/tiny2/export --out exported
    durian animate --backend torch --checkpoint exported -s me.png -d talk.mp4 -o out.mp4
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.convert.exporter import export_checkpoint

    export_checkpoint(checkpoint, out, dtype, overwrite)
    click.echo(f"{out}: run it with durian animate --backend torch --checkpoint {out}, or compare it with "
               f"JAX by durian verify {out} --checkpoint {checkpoint}")


@main.command()
@click.argument("folder", metavar="EXPORT")
@click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER", help="What was exported.")
@click.option("--frames", type=click.IntRange(1), default=4, show_default=True, help="Of the clip.")
@click.option("--size", type=click.IntRange(1), default=None, help="Picture size.  [default: the model's]")
@click.option("--steps", type=click.IntRange(1), default=4, show_default=True, help="Of the finished clip.")
@click.option("--json", "json_path", default=None, metavar="FILE", help="Write the report there.")
@click.pass_context
def verify(ctx, folder, checkpoint, frames, size, steps, json_path):
    """Prove that an export is the same model.

    Runs JAX and PyTorch in float32 on the same clip and noise, with the weights as the export has them
    (rounded to its dtype): every block of a guided denoising step, and the finished video. Writes the errors
    into the export (parity.json, and the metadata of the denoiser's file). The exit status is 1 if one step
    differs by more than 1e-4, or the videos by less than 40 dB.
    """
    from durian_jax import runtime

    runtime.configure()
    import durian_jax.torch  # noqa: F401 - first: it says what is missing
    from durian_jax.evaluation.parity import describe, verify_export
    from durian_jax.files import writable_file, write_json

    if json_path:
        writable_file(json_path, (".json",))
    report = verify_export(folder, checkpoint, frames=frames, size=size, steps=steps)
    click.echo(describe(report))
    if json_path:
        write_json(json_path, report)
    ctx.exit(0 if report["passed"] else 1)


@main.command()
@_sampling
@click.option("--benchmark", type=click.Choice(["synthetic", "reconstruction"]), default="synthetic",
              show_default=True, help="synthetic: cross-identity transfers whose exact answer is rendered; "
              "reconstruction: recorded people get their own attribute back.")
@click.option("--clips", default=None, metavar="FOLDER",
              help="For reconstruction: records of people held out of training.")
@click.option("--cases", type=click.IntRange(1), default=64, show_default=True,
              help="Transfers of each attribute.")
@click.option("--frames", type=click.IntRange(1), default=1, show_default=True, help="Length of each clip.")
@click.option("--json", "json_path", default=None, metavar="FILE", help="Write the summary there.")
@click.option("--sheet", default=None, metavar="FILE.png", help="Draw a contact sheet there.")
@click.option("--sheet-cases", type=click.IntRange(1), default=5, show_default=True,
              help="Cases of each attribute on the sheet.")
def evaluate(checkpoint, steps, guidance, seed, sampler, benchmark, clips, cases, frames, json_path, sheet,
             sheet_cases):
    """Measure a model on known answers.

    Means and 95 % confidence intervals of L1, PSNR, SSIM (whole frame and attribute region) and sharpness,
    beside two baselines: the unchanged portrait, and the attribute's pixels pasted by its keypoints.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.diffusion.sampling import Sampling
    from durian_jax.evaluation.report import evaluate_checkpoint

    click.echo(evaluate_checkpoint(
        checkpoint, benchmark=benchmark, clips=clips, cases=cases, frames=frames,
        sampling=Sampling(steps, guidance, seed, sampler),
        json_path=json_path, sheet_path=sheet, sheet_cases=sheet_cases))


for verb in (prepare, synthesize, expand, sheet, masks, annotator):
    main.add_command(verb)

if __name__ == "__main__":
    main()
