"""`durian import` with real parts; tests/commands tests its options."""

from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.diffusion import Sampling
from tests.commands.runner import durian
from tests.helpers.arcface import WIDTH, write_network


def test_the_command_imports(pretrained, tmp_path):
    out = tmp_path / "start"
    arguments = ["import", "--base", pretrained, "--motion", pretrained, "--image-encoder", pretrained, "--out", out,
                 "--size", "64", "--dtype", "bfloat16"]
    result = durian(*arguments)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(out, "stored")
    assert checkpoint.config.image_size == 64 and checkpoint.objective.prediction == "epsilon"
    assert checkpoint.sampling == Sampling(steps=20, guidance_scale=3.5)
    assert {str(x.dtype) for x in checkpoint.params.values()} == {"bfloat16"}
    result = durian(*arguments, "--overwrite", "--config=sd15,stage=1,ablation=no_mask_channel")
    assert result.exit_code == 2 and "unet.channels is (16, 32), the config has (320, 640, 1280, 1280)" in result.output
    network = write_network(tmp_path / "means.onnx")
    result = durian(*arguments, "--identity-model", network)
    assert result.exit_code == 2 and "holds a checkpoint already" in result.output
    result = durian(*arguments, "--identity-model", network, "--overwrite")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(out).identity_encoder.width == load_checkpoint(out).config.identity_dim == WIDTH
    result = durian("import", "--unet", pretrained, "--out", out)
    assert result.exit_code == 2 and "expected --vae, or --base that has one" in result.output
    result = durian(*arguments, "--overwrite", "--config=sd15,ablation=foo")
    assert result.exit_code == 2 and "unknown ablation 'foo'; expected one of" in result.output
    assert "Traceback" not in result.output
