"""The program `durian`."""

import os
import signal
import sys
import warnings
from contextlib import suppress
from importlib import import_module

import click

from durian_jax.errors import InputError
from durian_jax.files import is_disk_full
from durian_jax.installation import install_command
from durian_jax.interruption import exit_status
from durian_jax.versions import __version__

# Verb -> module of this package, with the command under the same name. Help lists the verbs in this order.
VERBS = {verb: verb for verb in (
    "demo", "animate", "reenact", "check", "timeline", "attribute", "provenance", "train", "plan", "import", "encode",
    "export", "verify", "evaluate", "compare", "prepare", "synthesize", "expand", "sheet", "masks", "annotator")}
VERBS["import"] = "import_weights"


class _Verbs(click.Group):
    """Imports a verb's module when the verb is used or listed; prints an InputError, and each warning, as one line."""

    def list_commands(self, ctx):
        return list(VERBS)

    def get_command(self, ctx, name):
        if name not in VERBS:
            return None
        return getattr(import_module(f"durian_jax.commands.{VERBS[name]}"), VERBS[name])

    def invoke(self, ctx):
        before, warnings.showwarning = warnings.showwarning, _show_warning
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"durian: error: {error}", err=True)
            ctx.exit(error.status)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("durian_jax"):
                raise
            click.echo(f"durian: error: this needs {error.name}, which is not installed; run {install_command()}; "
                       "without JAX, `durian animate --backend torch` runs an export of `durian export`", err=True)
            ctx.exit(2)
        except Exception as error:
            if not is_disk_full(error):
                raise
            click.echo("durian: error: a file could not be written: the disk is full, or a quota is used up "
                       f"({' '.join(str(error).split())[:300]}); free some space and repeat the command", err=True)
            ctx.exit(2)
        finally:
            warnings.showwarning = before


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning as one line, above a progress bar if there is one."""
    text = f"durian: warning: {' '.join(str(message).split())}"
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        click.echo(text, err=True)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="durian")
def main():
    """Animate a portrait and give it hair, glasses, a beard or a hat from other photos.

    Start with `durian demo`, which needs neither network nor accelerator.
    """


def program() -> None:
    """Run `main` as a program.

    A command that Ctrl-C or SIGTERM has stopped exits at once: threads that compile or compute outside of Python can
    abort a regular exit.
    """
    try:
        main(prog_name="durian")
    except SystemExit as end:
        if end.code not in [exit_status(number) for number in (signal.SIGINT, signal.SIGTERM)]:
            raise
        from multiprocessing import active_children

        for child in active_children():
            child.terminate()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(end.code)


if __name__ == "__main__":
    program()
