"""durian.json of an export."""

import json

import pytest

from durian_jax.convert.bundle import read_bundle
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.torch import DurianPipeline
from tests.helpers.exports import edit_bundle


def test_a_bundle_describes_the_checkpoint(exported):
    checkpoint, folder = exported("small")
    values = json.loads((folder / "durian.json").read_text())
    assert values["model"]["family"] == "durian"
    assert values["sampling"] == {"steps": 2, "guidance_scale": 1.5, "sampler": "dpm++"}
    assert read_bundle(folder) == (checkpoint.description, "fp32")


def test_a_bundle_of_version_0_1_is_read(exported, export_copy):
    """It has no family and no sampling."""
    values = json.loads((export_copy / "durian.json").read_text())
    del values["sampling"], values["model"]["family"]
    (export_copy / "durian.json").write_text(json.dumps(values))
    checkpoint, pipeline = exported("small")[0], DurianPipeline.from_pretrained(export_copy)
    assert (pipeline.config, pipeline.objective) == (checkpoint.config, checkpoint.objective)
    assert pipeline.sampling == Sampling()


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": 2}, "expected format 1, found 2"), ({"model": {"depth": 3}}, "unknown fields"),
    ({"model": {"reference_mode": "single"}}, "only JAX runs"),
    ({"model": {"attribute_capacity": 0.5}}, "runs in JAX only"), ({"files": 3}, "is damaged"),
    ({"model": {"unet": {"channels": [8], "attention": [True], "heads": [0]}}}, "is damaged"),
    ({"dtype": "int8"}, "unknown dtype"), ({"files": {}}, "denoising_unet.* not listed"),
    ({"files": {"../x": ""}}, "../x.* lead out of it")])
def test_bundles_that_cannot_be_used_are_refused(export_copy, changes, message):
    edit_bundle(export_copy, **changes)
    with pytest.raises(InputError, match=message):
        read_bundle(export_copy)
