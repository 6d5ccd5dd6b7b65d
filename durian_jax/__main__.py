"""`python -m durian_jax`: the program `durian`."""

from durian_jax.commands.main import main

if __name__ == "__main__":
    main(prog_name="durian")
