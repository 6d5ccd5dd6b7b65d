"""Settings of sampling."""

import json

import pytest

from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError


def test_one_scale_is_for_all_branches_and_several_are_for_one_each():
    names = ("source", "motion", "history")
    assert Sampling(guidance_scale=2.0).scales(names) == (2.0, 2.0, 2.0)
    assert Sampling(guidance_scale=(2.0, 2.5, 1.0)).scales(names) == (2.0, 2.5, 1.0)
    assert Sampling().scales(()) == ()
    with pytest.raises(InputError, match="one number, or one for each of source, motion, history, found 2"):
        Sampling(guidance_scale=(2.0, 2.5)).scales(names)


def test_changed_replaces_what_the_user_gave():
    defaults = Sampling(steps=20, guidance_scale=3.5, sampler="ddim")
    assert defaults.changed(None) == defaults.changed({}) == defaults
    assert defaults.changed({"steps": 5, "seed": 1}) == Sampling(5, 3.5, 1, "ddim")
    assert defaults.changed(Sampling(seed=2)) == Sampling(seed=2)
    with pytest.raises(InputError, match=r"expected 1\.\.1000 steps"):
        defaults.changed({"steps": 0})


@pytest.mark.parametrize("scale", [3.5, (2.0, 2.5, 1.0)])
def test_defaults_are_all_fields_but_the_seed_and_survive_json(scale):
    sampling = Sampling(20, scale, 7, "ddim")
    values = json.loads(json.dumps(sampling.defaults()))
    assert set(values) == {"steps", "guidance_scale", "sampler"}
    assert Sampling(**values) == sampling.changed({"seed": 0})
    assert hash(Sampling(**values)) == hash(sampling.changed({"seed": 0}))


@pytest.mark.parametrize("values", [
    {"steps": 0}, {"guidance_scale": -1.0}, {"guidance_scale": (2.0, -1.0)}, {"guidance_scale": ()}, {"seed": -1},
    {"seed": 2**32}, {"sampler": "euler"}, {"steps": 1001}, {"guidance_scale": float("nan")},
    {"guidance_scale": (2.0, float("inf"))}, {"guidance_scale": 1e30}])
def test_bad_settings_are_refused(values):
    with pytest.raises(InputError, match=r"sampling: expected 1\.\.1000 steps, guidance scales in 0\.\.100"):
        Sampling(**values)
