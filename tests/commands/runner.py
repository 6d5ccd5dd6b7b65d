"""Runs the program in this process."""

from click.testing import CliRunner, Result

from durian_jax.commands.main import main


def durian(*arguments) -> Result:
    """Run `durian` with these arguments, converted to text."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def options_of(verb: str) -> dict:
    """Return the options of a verb: name -> click option."""
    return {option.name: option for option in main.get_command(None, verb).params}
