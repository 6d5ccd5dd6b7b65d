"""Settings of sampling."""

import json

import numpy as np
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
    with pytest.raises(InputError, match="^steps: expected an integer from 1 to 1000, found 0$"):
        defaults.changed({"steps": 0})
    with pytest.raises(InputError, match="unknown fields 'step'; did you mean steps?"):
        defaults.changed({"step": 5})


def test_bent_weights_are_even_steps_for_an_s_curve():
    weights = np.float32([[1, 0], [0.75, 0.25], [0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(Sampling().bent(weights), weights)
    bent = Sampling(blend_bend=0.5).bent(weights)
    np.testing.assert_allclose(bent[:, 1], [0, 0.25 + 0.5 / (2 * np.pi), 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(bent.sum(1), 1, atol=1e-6)
    three = Sampling(blend_bend=0.5).bent(np.float32([[0.2, 0.3, 0.5], [0.25, 0.75, -1]]))
    np.testing.assert_allclose(three[0].sum(), 1, atol=1e-6)
    np.testing.assert_allclose(three[1], [*bent[1, ::-1], -1], atol=1e-6)


@pytest.mark.parametrize("scale", [3.5, (2.0, 2.5, 1.0)])
def test_defaults_are_all_fields_but_the_seed_and_survive_json(scale):
    sampling = Sampling(20, scale, 7, "ddim")
    values = json.loads(json.dumps(sampling.defaults()))
    assert set(values) == {"steps", "guidance_scale", "sampler", "noise", "blend_bend"}
    assert Sampling(**values) == sampling.changed({"seed": 0})
    assert hash(Sampling(**values)) == hash(sampling.changed({"seed": 0}))


@pytest.mark.parametrize("values, words", [
    ({"steps": 0}, "steps: expected an integer from 1 to 1000, found 0"), ({"steps": 1001}, "steps"),
    ({"steps": True}, "steps: .* found True"), ({"steps": 1.5}, "steps"), ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed: expected an integer from 0 to 4294967295"),
    ({"blend_bend": 1.0}, "blend_bend: expected a finite number from 0 to 0.95"),
    ({"noise": "video"}, "noise: expected a text that is one of frame, clip, none, found 'video'"),
    ({"sampler": "euler"}, "sampler: expected a text that is one of ddim, dpm\\+\\+, found 'euler'"),
    ({"guidance_scale": -1.0}, "guidance_scale: expected a finite number from 0 to 100 or a list of 1 to 16 entries"),
    ({"guidance_scale": (2.0, -1.0)}, r"guidance_scale\[1\]: expected a finite number from 0 to 100, found -1.0"),
    ({"guidance_scale": ()}, "guidance_scale"), ({"guidance_scale": float("nan")}, "guidance_scale.*found nan"),
    ({"guidance_scale": (2.0, float("inf"))}, r"guidance_scale\[1\].*found inf"),
    ({"guidance_scale": 1e30}, "1e\\+30")])
def test_bad_settings_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        Sampling(**values)
