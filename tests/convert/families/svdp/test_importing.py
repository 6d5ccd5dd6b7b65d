"""Import of Stable Diffusion 3.5: exact in both directions; parts that do not fit are refused with a list."""

import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.numpy import load_file

from durian_jax.checkpoints.description import Description
from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.configs import load_config
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.convert.families.svdp.canvas import known_canvases
from durian_jax.convert.families.svdp.importing import RECTIFIED_FLOW, SAMPLING, import_checkpoint
from durian_jax.convert.import_files import import_files
from durian_jax.errors import InputError
from durian_jax.models.parameters import variables
from durian_jax.training.config import RunConfig
from tests.commands.runner import durian
from tests.helpers.pretrained import change_config, change_tensors, tensor_file
from tests.helpers.sd3 import SIZE, position_table, write_sd3

TABLE = "pos_embed.pos_embed"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with transformer and vae. Tests must not change it."""
    folder = tmp_path_factory.mktemp("sd3")
    write_sd3(folder)
    return folder


@pytest.fixture
def copy(base, tmp_path):
    """A copy, for tests that damage it."""
    return shutil.copytree(base, tmp_path / "copy")


def parts(folder):
    return {"transformer": str(folder), "vae": str(folder)}


def start(folder, out, **options):
    return import_checkpoint(out, parts(folder), changes={"image_size": SIZE}, **options)


def test_import_then_export_is_bit_for_bit(base, tmp_path):
    config = start(base, tmp_path / "start")
    back = export_checkpoint(tmp_path / "start", tmp_path / "back", "fp32")
    for part, cls in (("transformer", SD3Transformer2DModel), ("vae", AutoencoderKL)):
        before, after = (load_file(tensor_file(folder / part)) for folder in (base, back))
        assert all(after[name].tobytes() == x.tobytes() for name, x in before.items() if name != TABLE)
        ours = {name for name in after if name not in before}
        assert all(name.startswith(("video_blocks.", "mask_embedding.", "group_embedding")) for name in ours)
        assert bool(ours) == (part == "transformer")
        assert set(cls.from_pretrained(base / part).state_dict()) - {TABLE} == set(after) - ours
    assert AutoencoderKL.from_pretrained(back / "vae").config.shift_factor == config.codec.shift_factor == 0.0609
    assert not config.codec.quant_conv and config.mmdit.dual_layers == 2 and config.mode == "joint"


def test_fresh_parameters_start_without_effect(base, tmp_path, capsys):
    config = start(base, tmp_path)
    params = load_checkpoint(tmp_path, "stored").params
    zero = [path for path, x in params.items() if not np.asarray(x).any()]
    expected = ["transformer/group_embedding", "transformer/mask_embedding/kernel"]
    for i in range(config.mmdit.layers):
        block = f"transformer/video_blocks_{i}"
        expected += [f"{block}/attn_out/kernel", f"{block}/norm/linear/kernel"]
    assert set(expected) <= set(zero), "without effect"
    assert params["transformer/video_blocks_0/attn/to_q/kernel"].std() > 0.1, "what meets a zero has a gradient"
    report = capsys.readouterr().out
    assert "tensors left out: 1 of the computed positions; fresh: 38 of video blocks" in report
    assert f"positions: model.mmdit.canvas_origin=0, canvas_step={1 / 6!r}" in report


def test_a_model_without_a_config_has_the_preset_s_objective(base, tmp_path):
    """And the paper's settings of sampling."""
    run = RunConfig.read(load_config("svdp:sd35m,stage=video"))
    assert (run.objective, run.sampling) == (RECTIFIED_FLOW, SAMPLING)
    start(base, tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert (checkpoint.objective, checkpoint.sampling) == (RECTIFIED_FLOW, SAMPLING)


def test_the_position_table_decides_the_code(base, copy, tmp_path):
    assert known_canvases(384, 64) == [(0.0, 1 / 6), (160.0, 0.25)]
    made, other = known_canvases(24, 4)
    found = start(base, tmp_path / "a").mmdit
    assert (found.canvas_origin, found.canvas_step) == made == (0.0, 1 / 6)
    np.testing.assert_allclose(load_file(tensor_file(base / "transformer"))[TABLE], position_table(*made), atol=1e-5)

    change_tensors(copy / "transformer", lambda tensors: {
        **tensors, TABLE: position_table(*other).astype(np.float16)})
    found = start(copy, tmp_path / "b")
    assert (found.mmdit.canvas_origin, found.mmdit.canvas_step) == other
    with pytest.raises(InputError, match=r"the code of \(i - 10\) \* 4.0, the config has \(i - 0\) \* 0.1666.*; set "
                                         "model.mmdit.canvas_origin and canvas_step"):
        start(copy, tmp_path / "c", like=Description(load_checkpoint(tmp_path / "a").config, RECTIFIED_FLOW))
    assert start(copy, tmp_path / "c", like=Description(found, RECTIFIED_FLOW)) == found

    def refused(match, **tables):
        change_tensors(copy / "transformer", lambda tensors: {
            **{name: x for name, x in tensors.items() if name != TABLE}, **tables})
        with pytest.raises(InputError, match=match):
            start(copy, tmp_path / "d")
    refused(r"is not the sinusoidal code of \(i - 0\) \* 0.166667, \(i - 10\) \* 4, and other codes",
            **{TABLE: position_table(1.0, 1 / 6)})
    refused(r"expected pos_embed.pos_embed \(1, 576, 32\), found \(1, 575, 32\)",
            **{TABLE: position_table(*made)[:, 1:]})
    refused(r"expected pos_embed.pos_embed \(1, 576, 32\), found none")
    assert not (tmp_path / "d" / "config.json").exists()


def test_the_text_stream_is_left_out_on_purpose(base, tmp_path, capsys):
    """The pooled embedding of null text adds a constant to the time code, which a bias keeps."""
    config = start(base, tmp_path / "a")
    without = replace(config, mmdit=replace(config.mmdit, text_dim=None, text_tokens=0, pooled_dim=None))
    capsys.readouterr()
    assert start(base, tmp_path / "b", like=Description(without, RECTIFIED_FLOW, SAMPLING)) == without
    assert "positions, 44 of the text stream, 4 of the pooled text embedding; fresh: 38" in capsys.readouterr().out
    codes = []
    for folder in ("a", "b"):
        checkpoint = load_checkpoint(tmp_path / folder, "float32")
        codes.append(replace(checkpoint.config, dtype="float32").create().apply(
            variables(checkpoint.params), method=lambda m: m.transformer.time_code(jnp.array([[0.0, 700.0]]))))
    np.testing.assert_allclose(*codes, atol=1e-6)
    assert not [path for path in checkpoint.params if "context" in path or "text" in path or "pooled" in path]


def test_every_wrong_tensor_is_listed(copy, tmp_path):
    def damage(tensors):
        kernel = tensors.pop("transformer_blocks.1.attn2.to_q.weight")
        return {**tensors, "transformer_blocks.9.attn.to_q.weight": kernel, "proj_out.bias": np.zeros(3, np.float32),
                "transformer_blocks.2.ff_context.net.2.bias": np.zeros(32, np.float32)}
    change_tensors(copy / "transformer", damage)
    change_tensors(copy / "vae", lambda tensors: {**tensors, "quant_conv.bias": np.zeros(8, np.float32)})
    with pytest.raises(InputError) as error:
        start(copy, tmp_path / "out")
    for part in ("does not fit (4 tensors)", "missing transformer_blocks.1.attn2.to_q.weight (32, 32)",
                 "unexpected transformer_blocks.2.ff_context.net.2.bias (32,), transformer_blocks.9.attn.to_q.",
                 "proj_out.bias has shape (3,), expected (16,)", "unexpected quant_conv.bias (8,)"):
        assert part in str(error.value)
    assert not (tmp_path / "out" / "config.json").exists()


def test_networks_of_another_kind_are_refused_by_field(copy, tmp_path):
    def refused(part, match, **fields):
        before = (copy / part / "config.json").read_text()
        change_config(copy / part, **fields)
        with pytest.raises(InputError, match=match):
            start(copy, tmp_path / "out")
        (copy / part / "config.json").write_text(before)
    refused("transformer", "expected the class SD3Transformer2DModel, found FluxTransformer",
            _class_name="FluxTransformer")
    refused("transformer", "qk_norm=None instead of rms_norm.*dual_attention_layers=", qk_norm=None,
            dual_attention_layers=[1, 2])
    refused("transformer", "caption_projection_dim=16 instead of 32", caption_projection_dim=16)
    refused("transformer", "sample_size: expected this field", sample_size=None)
    refused("vae", "in_channels=4 instead of 16", latent_channels=16)
    refused("vae", "use_post_quant_conv=False instead of True", use_quant_conv=True)


def test_a_config_of_other_sizes_is_refused_by_field(base, tmp_path):
    run = RunConfig.read(load_config("svdp:sd35m,stage=video"))
    with pytest.raises(InputError, match="mmdit.width is 32, the config has 1536.*codec.channels is"):
        start(base, tmp_path, like=Description(run.model, run.objective))
    run = RunConfig.read(load_config("svdp:tiny,stage=video"))
    with pytest.raises(InputError, match="codec is AutoencoderKLConfig, the config has CodecConfig"):
        start(base, tmp_path, like=Description(run.model, run.objective))
    with pytest.raises(InputError, match="expected the parts transformer and vae, found transformer"):
        import_checkpoint(tmp_path, {"transformer": str(base)})


def test_values_that_are_not_finite_are_refused(copy, tmp_path):
    change_tensors(copy / "transformer", lambda tensors: {**tensors, "proj_out.bias": np.full(16, np.inf, np.float32)})
    with pytest.raises(InputError, match="proj_out.bias: expected finite values"):
        start(copy, tmp_path / "out")


def test_the_command_finds_the_family_by_the_folders(base, tmp_path):
    arguments = ["import", "--base", base, "--out", tmp_path / "start", "--size", str(SIZE), "--dtype", "bfloat16"]
    result = durian(*arguments)
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "start", "stored").config.family == "svdp"
    result = durian(*arguments, "--overwrite", "--motion", base)
    assert result.exit_code == 2 and "expected config.json in it, found none" in result.output
    result = durian(*arguments, "--overwrite", "--motion", base, "--transformer", base)
    assert result.exit_code == 2 and "found transformer, motion, which belong to different models" in result.output


def test_a_hub_id_is_asked_for_its_folders(base, tmp_path, monkeypatch):
    """Without weights, until the family is known."""
    asked = []

    def snapshot(repository, allow_patterns):
        asked.append(allow_patterns)
        return str(base)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert import_files(tmp_path, {}, base="some/pipeline", size=SIZE).family == "svdp"
    assert asked[:2] == [["unet/config.json"], ["transformer/config.json"]]
    assert [patterns[:2] for patterns in asked[2:]] == [
        [f"{part}/config.json", f"{part}/diffusion_pytorch_model.safetensors"] for part in ("transformer", "vae")]
