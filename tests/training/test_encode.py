"""Encoded samples: equal to what training would encode itself, written in parts, resumable, and refused elsewhere."""

import json
import shutil

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
from durian_jax.commands.main import main
from durian_jax.data.encoded_samples import EncodedSamples
from durian_jax.data.pipeline import DamagedRecord, make_encoded_loader, make_samples
from durian_jax.errors import InputError
from durian_jax.faces.topology import K
from durian_jax.models.batch import model_inputs
from durian_jax.models.parameters import init_params, variables
from durian_jax.training import encode as encode_module
from durian_jax.training.config import RunConfig
from durian_jax.training.encode import encode_samples
from durian_jax.training.loop import train
from durian_jax.training.recipes.durian import denoising_loss
from durian_jax.training.training_clips import make_source
from tests.helpers.arcface import WIDTH, write_network
from tests.helpers.runs import changed, losses, small_paper_config

SAMPLES, SHARD = 7, 3


@pytest.fixture(scope="module")
def config(records, tmp_path_factory):
    """The config of a run whose model uses everything that is encoded: latents, CLIP's and identity embeddings."""
    folder = tmp_path_factory.mktemp("start")
    config = small_paper_config(**{
        "source.clips": str(records), "model.identity_dim": WIDTH,
        "identity_model": write_network(folder / "identity.onnx"), "init_from": str(folder)})
    run = RunConfig.read(config)
    save_checkpoint(folder, Checkpoint(run.model, run.objective, init_params(run.model, 3)), dtype="float32")
    return config


@pytest.fixture(scope="module")
def encoded(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded")
    encode_samples(config, folder, SAMPLES, samples_per_shard=SHARD)
    return folder


def with_changes(config, **changes):
    """Return a copy of a config with `changes` by dotted name."""
    return changed(config.copy_and_resolve_references(), changes)


def files(folder):
    """Return name -> content of a folder's files."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_samples_are_those_of_the_run(config, encoded):
    """Fields and shapes. The loss equals that of the same samples as pictures, up to half precision."""
    source = EncodedSamples(encoded)
    assert len(source) == SAMPLES
    sample = source[SAMPLES - 1]
    shapes = {name: (x.shape, str(x.dtype)) for name, x in sample.items()}
    assert shapes == {
        "frame_latents": ((1, 16, 16, 4), "float16"), "portrait_latents": ((16, 16, 4), "float16"),
        "attribute_latents": ((1, 16, 16, 4), "float16"), "portrait_embedding": ((WIDTH,), "float16"),
        "attribute_embeddings": ((1, 24), "float16"), "frame_masks": ((1, 16, 16, 1), "uint8"),
        "portrait_mask": ((16, 16, 1), "uint8"), "attribute_masks": ((1, 16, 16, 1), "uint8"),
        "keypoints": ((1, K, 3), "float32"), "attribute_valid": ((1,), "float32")}

    run = RunConfig.read(config)
    stream = make_samples(make_source(run), run.data, run.seed)
    encoder = encode_module.open_identity_encoder(run.identity_model, run.model.identity_dim)
    params, model = init_params(run.model, 3), run.model.create()
    without_dropout = RunConfig.read(with_changes(config, guidance_dropout=0.0))
    loss = jax.jit(lambda batch: denoising_loss(without_dropout, model, variables(params), batch, jax.random.key(0),
                                                temporal=False)[0])
    for i in (0, SAMPLES - 1):
        pictures = encode_module.embed_faces({name: x[None] for name, x in stream[i].items()}, encoder)
        latents = {name: x[None] for name, x in source[i].items()}
        np.testing.assert_allclose(loss(model_inputs(latents, run.model.batch_spec(encoded=True))),
                                   loss(model_inputs(pictures, run.model.batch_spec())), rtol=2e-3)


def test_batches_have_the_promised_shapes(config, encoded):
    run = RunConfig.read(with_changes(config, **{"source.samples": str(encoded)}))
    batch = next(iter(make_encoded_loader(EncodedSamples(encoded), seed=0, batch_size=run.batch_size)))
    assert run.batch_shapes() == {name: (x.shape, str(x.dtype)) for name, x in batch.items()}


def test_a_killed_call_resumes_and_parts_write_the_same_files(config, encoded, tmp_path):
    whole = files(encoded)
    assert {"dataset.json", "plan.json", "probe.safetensors", "samples-00002-of-00003.array_record"} <= set(whole)
    shutil.copytree(encoded, tmp_path / "cut")
    for name in ("dataset.json", "samples-00001-of-00003.array_record"):
        (tmp_path / "cut" / name).unlink()
    with pytest.raises(InputError, match="unfinished set; repeat `durian encode`"):
        EncodedSamples(tmp_path / "cut")
    encode_samples(config, tmp_path / "cut", SAMPLES, samples_per_shard=SHARD)
    assert files(tmp_path / "cut") == whole
    for part in ((1, 2), (0, 2)):
        assert not (tmp_path / "parts" / "dataset.json").exists()
        encode_samples(config, tmp_path / "parts", SAMPLES, samples_per_shard=SHARD, part=part)
    assert files(tmp_path / "parts") == whole


def test_training_reads_them(config, encoded, tmp_path):
    settings = with_changes(config, **{"source.samples": str(encoded), "sample_every": 2, "init_from": "",
                                       "init_fresh": "codec/"})
    with pytest.raises(InputError, match="latents of a known picture differ.*encode the samples again"):
        train(settings, tmp_path / "fresh")  # other weights encode differently
    settings.init_from, settings.init_fresh, settings.identity_model = config.init_from, "", ""
    with pytest.raises(InputError, match="expected the ONNX file"):
        train(settings, tmp_path / "without")
    settings.identity_model = config.identity_model
    train(settings, tmp_path / "run")
    assert np.isfinite(list(losses(tmp_path / "run").values())).all()
    assert (tmp_path / "run" / "samples" / "0000002.png").is_file()
    assert load_checkpoint(tmp_path / "run" / "export").identity_encoder.width == WIDTH


def test_training_from_clips_embeds_their_faces(config, tmp_path):
    # The step of stage 2 compiles in half the time of stage 1: its gradients are of the motion modules alone.
    train(with_changes(config, stage="2", total_steps=1), tmp_path)
    assert load_checkpoint(tmp_path / "export").identity_encoder.width == WIDTH


def test_other_weights_do_not_continue_a_set(config, encoded, tmp_path):
    """A call that fails before it writes samples leaves no folder."""
    run = RunConfig.read(config)
    save_checkpoint(tmp_path / "other", Checkpoint(run.model, run.objective, init_params(run.model, 4)),
                    dtype="float32")
    settings = with_changes(config, init_from=str(tmp_path / "other"))
    shutil.copyfile(config.identity_model, tmp_path / "other" / "identity.onnx")
    with pytest.raises(InputError, match="started with other weights: .*latents of a known picture"):
        encode_samples(settings, encoded, SAMPLES, samples_per_shard=SHARD)
    settings.source.clips = str(tmp_path / "mistyped")
    with pytest.raises(InputError, match="mistyped"):
        encode_samples(settings, tmp_path / "new", SAMPLES)
    assert not (tmp_path / "new").exists()


def test_damaged_samples_are_skipped_and_counted(encoded, tmp_path):
    shutil.copytree(encoded, tmp_path / "bad")
    path = tmp_path / "bad" / "samples-00001-of-00003.array_record"
    content = bytearray(path.read_bytes())
    content[3_000:12_000] = bytes(9_000)
    path.write_bytes(content)
    loader = make_encoded_loader(EncodedSamples(tmp_path / "bad"), seed=0, batch_size=SAMPLES)
    with pytest.warns(DamagedRecord, match=r"damaged record \d is skipped"):
        batch = next(iter(loader))
    assert batch["frame_latents"].shape[0] == SAMPLES
    with pytest.raises(InputError, match="cannot be decoded, the last"):
        list(zip(range(5), make_encoded_loader(EncodedSamples(tmp_path / "bad"), seed=0, batch_size=SAMPLES,
                                               max_failures=0), strict=False))
    path.unlink()
    with pytest.raises(InputError, match=f"missing {path.name}"):
        EncodedSamples(tmp_path / "bad")


def test_what_does_not_fit_is_refused(config, encoded, tmp_path):
    def refused(match, out=tmp_path / "new", samples=2, part=(0, 1), **changes):
        with pytest.raises(InputError, match=match):
            encode_samples(with_changes(config, **changes), out, samples, part=part)
    refused("expected --config.init_from", init_from="")
    refused("source.samples names encoded samples, which this command makes", **{"source.samples": "x"})
    refused("encoded samples hold no pixels.*; train on source.clips as they are", stage="decoder")
    refused("at least one sample", samples=0)
    refused("part 2/2", part=(2, 2))
    refused("made with another samples, samples_per_shard, seed", out=encoded, seed=5)
    refused("expected an empty or new folder", out=encoded.parent)
    with pytest.raises(InputError, match="expected encoded samples"):
        EncodedSamples(tmp_path)
    with pytest.raises(InputError, match="encoded samples hold no pixels"):
        RunConfig.read(with_changes(config, **{"source.samples": "x", "objective.pixel_weight": 1.0,
                                               "objective.prediction": "velocity"}))
    about = json.loads((encoded / "dataset.json").read_text())
    shutil.copytree(encoded, tmp_path / "old")
    (tmp_path / "old" / "dataset.json").write_text(json.dumps({**about, "format": "encoded_samples-0"}))
    with pytest.raises(InputError, match="format encoded_samples-1, found 'encoded_samples-0'"):
        EncodedSamples(tmp_path / "old")
    with pytest.raises(InputError) as error:
        EncodedSamples(tmp_path / "old")
    assert "damaged" not in str(error.value)


def test_the_command(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(encode_module, "encode_samples", lambda config, out, samples, part: made.append(
        (config.stage, out, samples, part)))
    arguments = ["encode", "--config=sd15,stage=2", f"--out={tmp_path}", "--samples=12"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert CliRunner().invoke(main, [*arguments, "--part=1/4"]).exit_code == 0
    assert made == [("2", str(tmp_path), 12, (0, 1)), ("2", str(tmp_path), 12, (1, 4))]
    for wrong, words in ((["--samples=many"], "--samples"), (["--part=1"], "--part=I/N"),
                         (["--oops=1"], "oops")):
        result = CliRunner().invoke(main, [*arguments, *wrong])
        assert result.exit_code == 2 and words in result.output
    assert "--samples=100000" in CliRunner().invoke(main, ["encode"]).output
