"""Options that several verbs share."""


import pytest

from durian_jax.commands.options import sampling_argument
from durian_jax.diffusion import SAMPLERS
from durian_jax.diffusion.sampling import NOISES, Sampling
from tests.commands.runner import durian, options_of


@pytest.mark.parametrize("verb", ["demo", "animate", "evaluate"])
def test_the_checkpoint_has_the_defaults_of_the_sampler(verb):
    options = options_of(verb)
    for name in ("steps", "guidance", "sampler", "noise"):
        assert options[name].default is None and "[default: the checkpoint's]" in options[name].help
    assert options["seed"].default == 0 and options["seed"].show_default
    assert tuple(options["sampler"].type.choices) == SAMPLERS
    assert tuple(options["noise"].type.choices) == NOISES


def test_only_given_options_change_the_sampling():
    assert sampling_argument(None, None, 0, None, None) == {"seed": 0}
    given = sampling_argument(7, 0.0, 3, "ddim", "clip")
    assert given == {"steps": 7, "guidance_scale": 0.0, "seed": 3, "sampler": "ddim", "noise": "clip"}
    assert Sampling(**given) == Sampling(7, 0.0, 3, "ddim", "clip")


def test_guidance_is_one_number_or_several():
    scales = options_of("demo")["guidance"].type
    assert scales.convert("2.5", None, None) == 2.5 and scales.convert("1,2.5", None, None) == (1.0, 2.5)


def test_values_out_of_range_are_refused():
    for wrong in ("-1", "much", "nan", "2,-1", ""):
        result = durian("demo", f"--guidance={wrong}")
        assert result.exit_code == 2 and "expected numbers of at least 0" in result.stderr
    for option in ("--steps=0", "--seed=-1", f"--seed={2**32}", "--sampler=euler"):
        assert durian("demo", option).exit_code == 2
