"""`python -m durian_jax`: the program `durian`."""

from durian_jax.commands.main import program

if __name__ == "__main__":
    program()
