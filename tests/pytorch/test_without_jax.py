"""PyTorch without JAX: its requirements, its noise, and exports that run where JAX cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.convert.exporter import export_checkpoint
from durian_jax.diffusion.noise import frame_noise
from durian_jax.evaluation.metrics import psnr
from durian_jax.inference.animator import Animator
from durian_jax.synthetic import render, sample_motion, sample_person, still
from tests.helpers.exports import REFUSE_JAX


def test_the_requirements_are_those_of_the_package():
    root = Path(__file__).parents[2]
    _, *wanted = (root / "durian_jax" / "pytorch" / "requirements.txt").read_text().splitlines()
    package = (root / "setup.py").read_text()
    assert wanted and all(f'"{requirement}"' in package for requirement in wanted)


def test_noise_is_the_same_as_in_jax():
    keys = jax.vmap(lambda frame: jax.random.fold_in(jax.random.key(jnp.uint32(2**32 - 5)), frame))(jnp.arange(7, 10))
    expected = jax.vmap(lambda key: jax.random.normal(key, (5, 7, 3)))(keys)
    np.testing.assert_allclose(frame_noise(2**32 - 5, range(7, 10), (5, 7, 3)), expected, atol=5e-5)


WITHOUT_JAX = REFUSE_JAX + """
import numpy as np
from durian_jax.animation.files import animate_files, concat
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.torch import DurianPipeline

photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), 128)
driving = render(sample_person("benchmark", 3), sample_motion("benchmark", 3, 3), 128)
pipeline = DurianPipeline.from_pretrained(sys.argv[1])
np.save(sys.argv[2], pipeline(photo(0), [("hair", photo(1))], driving, steps=2, guidance_scale=2.0, seed=5))
assert not [name for name in sys.modules if name.split(".")[0] in ("jax", "flax")]
"""


@pytest.mark.slow
def test_the_exported_tiny_model_animates_without_jax(tmp_path):
    export_checkpoint("tiny", tmp_path / "tiny")
    subprocess.run([sys.executable, "-c", WITHOUT_JAX, tmp_path / "tiny", tmp_path / "frames.npy"], check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    without = f"{REFUSE_JAX}sys.argv[1:] = ['demo']\nfrom durian_jax.commands.main import main\nmain()"
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True)
    assert done.returncode == 2 and "durian: error: this needs" in done.stderr and "Traceback" not in done.stderr
    photo = lambda index: render(sample_person("benchmark", index, require=("hair",)), still(), 128)
    driving = render(sample_person("benchmark", 3), sample_motion("benchmark", 3, 3), 128)
    expected = Animator("tiny").animate(photo(0), [("hair", photo(1))], driving,
                                        sampling={"steps": 2, "guidance_scale": 2.0, "seed": 5})
    assert psnr(np.load(tmp_path / "frames.npy"), expected) > 60
