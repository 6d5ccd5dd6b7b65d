"""Import of pretrained parts: exact in both directions; parts that do not fit are refused with a list."""

import dataclasses
import shutil

import numpy as np
import pytest
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNetMotionModel
from safetensors.numpy import load_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from durian_jax.checkpoints.description import Description
from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.convert.families.durian.importing import import_checkpoint
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.models.family import model_config
from durian_jax.models.parameters import param_shapes
from tests.helpers.models import denoise, random_batch
from tests.helpers.pretrained import CLIP, change_config, change_tensors, parts, tensor_file


@pytest.mark.parametrize("vae", ["vae", "tiny_vae"])
def test_import_then_export_is_bit_for_bit(pretrained, tmp_path, vae):
    import_checkpoint(tmp_path / "start", parts(pretrained, vae=vae))
    back = export_checkpoint(tmp_path / "start", tmp_path / "back", "fp32")
    read = lambda *folders: {name: x for folder in folders for name, x in load_file(tensor_file(folder)).items()}
    before = {"denoising_unet": read(pretrained / "unet", pretrained / "motion_adapter"), "vae": read(pretrained / vae),
              "image_encoder": read(pretrained / "image_encoder")}
    # The libraries' own classes load the export.
    classes = {"denoising_unet": UNetMotionModel, "vae": AutoencoderKL if vae == "vae" else AutoencoderTiny,
               "image_encoder": CLIPVisionModelWithProjection}
    for part, tensors in before.items():
        after = read(back / part)
        assert set(tensors) == set(after)
        model = classes[part].from_pretrained(back / part).state_dict()
        for name, x in tensors.items():
            if name.endswith(".pe"):  # computed, not stored in a checkpoint
                np.testing.assert_allclose(after[name], x, atol=1e-6)
            else:
                assert after[name].dtype == x.dtype and after[name].tobytes() == x.tobytes(), name
                assert np.array_equal(model[name].numpy(), x), name
    for part in ("portrait_reference", "attribute_reference"):
        after = UNet2DConditionModel.from_pretrained(back / part).state_dict()
        tensors = read(pretrained / "unet")
        kernel = tensors.pop("conv_in.weight")
        assert np.array_equal(after["conv_in.weight"][:, :4].numpy(), kernel)
        assert not after["conv_in.weight"][:, 4].any(), "the mask's channel comes last"
        unused = {name for name, x in tensors.items() if x.any() and not after[name].any()}
        assert unused and all(name.startswith(("conv_norm_out", "conv_out", "up_blocks.1.attentions.1."))
                              for name in unused), "after the last features"
        assert all(np.array_equal(after[name].numpy(), x) for name, x in tensors.items() if name not in unused)


def test_fresh_parameters_start_without_effect(pretrained, tmp_path):
    config = import_checkpoint(tmp_path, parts(pretrained))
    params = load_checkpoint(tmp_path, "stored").params
    assert config.max_frames == 32 and config.unet.context_dim == 24 and config.image_encoder.projection == 24
    for network in ("portrait_reference", "attribute_reference"):
        kernel = params[f"{network}/conv_in/kernel"]
        assert kernel.shape == (3, 3, 5, 16) and not kernel[:, :, 4].any()
        np.testing.assert_array_equal(kernel[:, :, :4], params["denoiser/conv_in/kernel"])
        assert not [path for path in params if path.startswith(f"{network}/conv_out")]
    assert not params["keypoint_encoder/conv_out/kernel"].any()
    without = import_checkpoint(tmp_path / "b", parts(pretrained, motion=None, image_encoder=None))
    fresh = load_checkpoint(tmp_path / "b", "stored").params
    assert without.image_encoder is None and not fresh["denoiser/mid_motion_module/proj_out/kernel"].any()


def test_an_imported_model_denoises(pretrained, tmp_path):
    """All parts work together: every reference changes the prediction."""
    import_checkpoint(tmp_path, parts(pretrained), changes={"image_size": 32})
    checkpoint = load_checkpoint(tmp_path, "float32")
    config = dataclasses.replace(checkpoint.config, dtype="float32")
    batch = random_batch(config, clips=1, frames=2)
    run = lambda **changes: denoise(checkpoint.params, {**batch, **changes}, config, temporal=True)
    plain = run()
    assert np.isfinite(plain).all()
    for field in ("portrait", "attributes", "frames"):
        assert abs(run(**{field: batch[field] * 0.3}) - plain).max() > 1e-5, field
    assert abs(run(attribute_valid=0 * batch["attribute_valid"]) - plain).max() > 1e-5


def test_every_tensor_that_does_not_fit_is_listed(copy, tmp_path):
    def damage(tensors):
        tensors["conv_in.weigth"] = tensors.pop("conv_in.weight")                              # renamed
        del tensors["mid_block.resnets.0.conv1.bias"]                                          # missing
        name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        tensors[name] = tensors[name].T                                                        # transposed
        tensors["extra.weight"] = np.zeros(3, np.float32)                                      # extra
        return tensors
    change_tensors(copy / "unet", damage)
    change_tensors(copy / "vae", lambda tensors: {**tensors, "more": np.zeros(1, np.float32)})
    with pytest.raises(InputError) as error:
        import_checkpoint(tmp_path / "out", parts(copy))
    for words in ("5 tensors", "1 tensors", "unexpected more (1,)",
                  "unexpected conv_in.weigth (16, 4, 3, 3), extra.weight (3,)",
                  "missing conv_in.weight (16, 4, 3, 3), mid_block.resnets.0.conv1.bias (32,)",
                  "attn2.to_k.weight has shape (24, 16), expected (16, 24)", str(copy / "unet")):
        assert words in str(error.value)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("part", ["vae", "motion_adapter", "image_encoder"])
def test_every_part_is_checked(copy, tmp_path, part):
    names = list(load_file(tensor_file(copy / part)))
    lost = next(name for name in names if name.endswith("weight"))
    change_tensors(copy / part, lambda tensors: {"another" if name == lost else name: tensors[name] for name in names})
    with pytest.raises(InputError, match="2 tensors") as error:
        import_checkpoint(tmp_path / "out", parts(copy))
    assert f"missing {lost}" in str(error.value) and "unexpected another" in str(error.value)


def test_known_differences_are_accepted(copy, tmp_path):
    """Old names of autoencoders, CLIP's text half and position numbers, AnimateDiff v3 without a middle."""
    import_checkpoint(tmp_path / "new", parts(copy))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old_name(name):
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        return name
    change_tensors(copy / "vae", lambda tensors: {old_name(name): x for name, x in tensors.items()})
    assert any(".query." in name for name in load_file(tensor_file(copy / "vae")))
    change_tensors(copy / "image_encoder", lambda tensors: {
        **tensors, "vision_model.embeddings.position_ids": np.arange(5)[None], "logit_scale": np.zeros((), np.float32)})
    change_tensors(copy / "motion_adapter", lambda tensors: {
        name: x for name, x in tensors.items() if not name.startswith("mid_block")})
    change_config(copy / "motion_adapter", use_motion_mid_block=False)
    import_checkpoint(tmp_path / "old", parts(copy))
    new, old = (load_checkpoint(tmp_path / name, "stored").params for name in ("new", "old"))
    for path, x in new.items():
        if "mid_motion_module" not in path:
            np.testing.assert_array_equal(x, old[path])
    assert not old["denoiser/mid_motion_module/proj_out/kernel"].any()
    change_config(copy / "motion_adapter", use_motion_mid_block=True)
    with pytest.raises(InputError, match="missing mid_block.motion_modules.0.norm.bias .*26 in all"):
        import_checkpoint(tmp_path / "no", parts(copy))


def test_a_full_clip_model_is_accepted(copy, tmp_path):
    shutil.rmtree(copy / "image_encoder")
    text = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=CLIP, projection_dim=24))
    model.save_pretrained(copy / "image_encoder")
    import_checkpoint(tmp_path / "out", parts(copy))
    kernel = load_checkpoint(tmp_path / "out", "stored").params["image_encoder/projection/kernel"]
    np.testing.assert_array_equal(kernel.T, model.visual_projection.weight.detach().numpy())


def test_networks_of_another_kind_are_refused_by_field(copy, tmp_path):
    def refused(part, match, **fields):
        before = (copy / part / "config.json").read_text()
        change_config(copy / part, **fields)
        with pytest.raises(InputError, match=match):
            import_checkpoint(tmp_path / "out", parts(copy))
        (copy / part / "config.json").write_text(before)
    refused("unet", "use_linear_projection=True instead of False.*act_fn=gelu|act_fn=gelu.*use_linear_projection=True",
            use_linear_projection=True, act_fn="gelu")
    refused("unet", "one number of heads", attention_head_dim=[2, 4])
    refused("unet", "up_block_types", up_block_types=["UpBlock2D", "AttnUpBlock2D"])
    refused("unet", "norm_num_groups: expected this field", norm_num_groups=None)
    refused("vae", "expected the class AutoencoderKL or AutoencoderTiny, found VQModel", _class_name="VQModel")
    refused("unet", r"block_out_channels\[0\]: expected an integer from 1 to 65536, found 'a'",
            block_out_channels=["a"])
    refused("vae", "scaling_factor: expected a finite number", scaling_factor=float("nan"))
    refused("vae", "layers_per_block: expected an integer from 1 to 256, found 1000000000", layers_per_block=10**9)
    refused("unet", "motion_layers_per_block=1 instead of 200", layers_per_block=200)
    refused("vae", "use_post_quant_conv=True instead of False", use_quant_conv=False)
    refused("motion_adapter", "motion_layers_per_block=2 instead of 1", motion_layers_per_block=2)
    refused("image_encoder", "hidden_act=gelu instead of quick_gelu", hidden_act="gelu")
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is damaged"):
        import_checkpoint(tmp_path / "out", parts(copy))


def test_files_that_cannot_be_read_are_refused(pretrained, copy, tmp_path):
    def refused(match, **changes):
        with pytest.raises(InputError, match=match):
            import_checkpoint(tmp_path / "out", {**parts(copy), **changes})
    refused("expected a folder, or a hub id", unet=str(copy / "nowhere"))
    refused("expected config.json in it", unet=str(tmp_path))
    change_tensors(copy / "motion_adapter", lambda tensors: {
        name: 2 * x if name.endswith(".pe") else x for name, x in tensors.items()})
    refused("pos_embed.pe is not the sinusoidal position code")
    change_tensors(copy / "motion_adapter", lambda tensors: load_file(tensor_file(pretrained / "motion_adapter")))
    change_tensors(copy / "vae", lambda tensors: {**tensors, "quant_conv.bias": np.full(8, np.nan, np.float32)})
    refused("quant_conv.bias: expected finite values, found NaN or infinity")
    change_tensors(copy / "vae", lambda tensors: {**load_file(tensor_file(pretrained / "vae")),
                                                  "quant_conv.weight": np.zeros((8, 8, 1, 1), np.float32)})
    refused("quant_conv.weight: expected weights, found only zeros")
    change_tensors(copy / "vae", lambda tensors: {**load_file(tensor_file(pretrained / "vae")),
                                                  "quant_conv.bias": np.zeros(8, np.int32)})
    refused(r"expected tensors of F16, BF16, F32, F64, found quant_conv.bias \(I32\)")
    path = tensor_file(copy / "vae")
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    refused("rename the file to one of these names")
    path = tensor_file(copy / "unet")
    path.write_bytes(path.read_bytes()[:500])
    refused(f"{path.name} is damaged")
    path.rename(path.with_suffix(".bin"))
    refused("found diffusion_pytorch_model.bin; pickled weights are not read")


def described(values: dict) -> Description:
    return Description(model_config(values), Objective())


def test_the_parts_must_fit_a_given_config(pretrained, tmp_path):
    config = import_checkpoint(tmp_path / "a", parts(pretrained))
    values = config.to_dict()
    wrong = {**values, "unet": {**values["unet"], "layers": 2}, "max_frames": 40, "temporal_heads": 4}
    with pytest.raises(InputError) as error:
        import_checkpoint(tmp_path / "b", parts(pretrained), like=described(wrong))
    for words in ("3 fields", "unet.layers is 1, the config has 2", "temporal_heads is 2, the config has 4",
                  "the motion adapter takes 32 frames, the config has 40"):
        assert words in str(error.value)
    with pytest.raises(InputError, match="image encoder: one is given, the config has none"):
        import_checkpoint(tmp_path / "b", parts(pretrained), like=described({**values, "image_encoder": None}))


@pytest.mark.parametrize("changes", [
    {"reference_mode": "single"}, {"reference_mode": "tokens"}, {"mask_channel": False},
    {"image_encoder": None, "context_dim": None}])
def test_ablations_start_from_the_same_parts(pretrained, tmp_path, changes):
    values = import_checkpoint(tmp_path / "a", parts(pretrained)).to_dict()
    given = parts(pretrained)
    if "context_dim" in changes:
        values["unet"], given = {**values["unet"], "context_dim": None}, parts(pretrained, image_encoder=None)
    values |= {name: value for name, value in changes.items() if name != "context_dim"}
    config = import_checkpoint(tmp_path / "b", given, like=described(values))
    params = load_checkpoint(tmp_path / "b", "stored").params
    assert set(params) == set(param_shapes(config))
    plain = load_checkpoint(tmp_path / "a", "stored").params["denoiser/conv_in/kernel"]
    if config.reference_mode == "single":
        kernel = params["reference/conv_in/kernel"]
        np.testing.assert_array_equal(kernel[:, :, :4], plain / 2)
        np.testing.assert_array_equal(kernel[:, :, 5:9], plain / 2)
        assert kernel.shape[2] == 10 and not kernel[:, :, [4, 9]].any()
    else:
        added = int(config.reference_mode == "tokens")
        assert params["denoiser/conv_in/kernel"].shape[2] == 4 + added
        np.testing.assert_array_equal(params["denoiser/conv_in/kernel"][:, :, :4], plain)
