"""`durian plan`."""

import click

from durian_jax.commands.config_flags import config_command, read_config
from durian_jax.commands.options import json_option
from durian_jax.errors import InputError
from durian_jax.interruption import stoppable


@config_command()
@click.option("--topology", default=None, metavar="CHIP:AxB[xC]",
              help="TPU slice: CHIP:AxB for v5e and v6e, CHIP:AxBxC for v4 and v5p.")
@click.option("--mesh", default=None, metavar="AXIS=SIZE,...", help="Device mesh.  [default: the config's]")
@click.option("--batch", type=click.IntRange(1), default=None, help="Batch size.  [default: the config's]")
@click.option("--full", is_flag=True,
              help="Compile to machine code, too. At the size of the paper this takes hours.")
@click.option("--search", is_flag=True,
              help="Try meshes, batch sizes and --config.remat instead of the given ones, and recommend one.")
@click.option("--price", type=click.FloatRange(0, min_open=True), default=None,
              help="Price per chip-hour; adds the cost of the run.")
@json_option("Write the plan to this file.")
@click.option("--install", is_flag=True, help="Install the TPU compiler and exit.")
@stoppable(lambda **_: "no plan was written; repeat the command to start again")
def plan(config, overrides, topology, mesh, batch, full, search, price, json_path, install):
    """Predict what a training run needs on TPUs.

    Compiles the step of the run for a TPU slice, on this machine and without a TPU. Prints memory per chip,
    FLOPs, collectives, and lower bounds of the time per step. Install the TPU compiler once with
    `durian plan --install`. At the size of the paper a plan takes ten minutes and 8 GiB.

    \b
    durian plan --config=sd15,stage=1 --topology=v5e:16x16 --mesh=data=16,fsdp=16 --batch=1024
    durian plan --config=tiny,stage=1 --topology=v5e:2x2 --batch=8 --full
    durian plan --config=sd15,stage=2 --topology=v5p:4x4x4 --search --json=plan.json
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.files import writable_file
    from durian_jax.hardware.chips import parse_topology
    from durian_jax.planning import tpu_compiler

    if install:
        click.echo(tpu_compiler.install_compiler())
        return
    if topology is None:
        raise InputError("durian plan needs --topology; for example --topology=v5e:16x16")
    if search and (full or mesh or batch):
        raise InputError("--search chooses mesh and batch itself, and makes no machine code: leave --mesh, --batch and "
                         "--full out")
    parse_topology(topology)  # before JAX is imported
    if json_path:
        writable_file(json_path, (".json",))
    settings = read_config(config, overrides)
    from durian_jax.planning import plan as planning

    if mesh:
        settings.mesh = planning.parse_mesh(mesh)
    if batch:
        settings.batch_size = batch
    if search:
        found, tried = planning.search(settings, topology, name=config,
                                       report=lambda p: print(planning.summary(p), flush=True))
        if found is None:
            raise InputError(f"none of the {len(tried)} tried fits {topology}: take a chip with more memory, smaller "
                             "pictures or fewer frames")
        click.echo("\nrecommended:")
    else:
        found = planning.plan(settings, topology, full=full, name=config)
    click.echo(planning.describe(found, price))
    if json_path:
        planning.write_plan(json_path, found)
