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
    assert values["sampling"] == {"steps": 2, "guidance_scale": 1.5, "sampler": "dpm++", "noise": "frame",
                                  "blend_bend": 0.0}
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
    ({"format": 2}, "format: expected 1, found 2.*update durian-jax"), ({"format": "1"}, "format: .* found '1'"),
    ({"version": 1}, "version: expected a text"), ({"objective": None}, "objective: expected an object of fields"),
    ({"dtype": None}, "dtype: .* found None"),
    ({"model": {"depth": 3}}, "model: unknown fields 'depth'.*update durian-jax"),
    ({"format": 2, "version": "0.9.1"}, "was written by durian-jax '0.9.1', this is .*; update durian-jax"),
    ({"model": {"reference_mode": "single"}}, "only JAX runs"),
    ({"model": {"attribute_capacity": 0.5}}, "runs in JAX only"),
    ({"files": 3}, "files: expected an object whose values are each a text, found 3"),
    ({"model": {"unet": {"channels": [8], "attention": [True], "heads": [0]}}}, r"model.unet.heads\[0\]: .* found 0"),
    ({"dtype": "int8"}, "dtype: expected a text that is one of fp32, fp16, bf16, found 'int8'"),
    ({"files": {}}, "denoising_unet.* not listed"),
    ({"files": {"../x": ""}}, "../x.* lead out of it")])
def test_bundles_that_cannot_be_used_are_refused(export_copy, changes, message):
    model = json.loads((export_copy / "durian.json").read_text())["model"]
    if "model" in changes:
        unet = {**model["unet"], **changes["model"].get("unet", {})}
        changes = {"model": {**model, **changes["model"], "unet": unet}}
    edit_bundle(export_copy, **changes)
    with pytest.raises(InputError, match=message):
        read_bundle(export_copy)
