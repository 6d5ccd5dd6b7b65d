"""The segmentation networks in numpy. `flax_network` describes their layers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.errors import InputError, listed
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import check_folder
from durian_jax.segmentation.features import CHANNELS, PATCH
from durian_jax.tensor_files import TensorFiles

GROUPS, EPSILON = 8, 1e-5  # of the group norms
_FILE = "model.safetensors"


class Network:
    """A network for the head and one for the eyes.

    Args:
        folder: holds model.safetensors, as `training.train` writes it.

    Raises:
        InputError: the file is missing or damaged, or holds another network.
    """

    def __init__(self, folder: str | Path):
        stored = TensorFiles(Path(folder))
        self._weights = {name: stored.checked(name, may_be_zero=True).astype(np.float32) for name in stored}
        self._levels = sum(name.startswith("down_") and name.endswith("_conv_0/kernel") for name in self._weights)
        self._convolutions = sum(name.startswith("eyes_conv_") for name in self._weights)
        try:
            shapes = (self.head(np.zeros((1, 16, 16, CHANNELS), np.float32)).shape,
                      self.eyes(np.zeros((1, *PATCH, 3), np.float32)).shape)
            if shapes != ((1, 16, 16, len(ATTRIBUTE_KINDS)), (1,)):
                raise ValueError(f"answers of the shapes {shapes}")
        except (KeyError, ValueError) as error:
            raise InputError(f"{folder}: expected the weights of a segmentation network, found others ({error}); name "
                             "a folder that `durian masks train` has written") from error

    def head(self, x: np.ndarray) -> np.ndarray:
        """(N, H, W, CHANNELS) float32 `features.head_features` -> (N, H, W, 4) logits of `ATTRIBUTE_KINDS`."""
        x, kept = blocks_to_channels(x), []
        for level in range(self._levels):
            if level:
                x = _halved(x)
            x = self._block(x, f"down_{level}")
            kept.append(x)
        whole = np.maximum(self._dense(x.mean(axis=(1, 2), keepdims=True), "whole_0"), 0)
        x = x + self._dense(whole, "whole_1")
        for level in reversed(range(self._levels - 1)):
            # A 1 x 1 convolution commutes with this enlargement and is cheaper before it.
            x = self._dense(x, f"join_{level}").repeat(2, axis=1).repeat(2, axis=2)
            x = self._block(np.concatenate([x, kept[level]], axis=-1), f"up_{level}")
        return channels_to_blocks(self._dense(x, "out"))

    def eyes(self, x: np.ndarray) -> np.ndarray:
        """(N, P, Q, 3) float32 `features.eye_features` -> (N,) logits that glasses are worn."""
        x = blocks_to_channels(x)
        for number in range(self._convolutions):
            x = self._layer(_halved(x) if number else x, "eyes", number)
        whole = np.concatenate([x.mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=-1)
        return self._dense(np.maximum(self._dense(whole, "eyes_whole"), 0), "eyes_out")[:, 0]

    def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
        """A linear layer, or a convolution of one pixel."""
        kernel = self._weights[f"{name}/kernel"]
        return x @ kernel.reshape(kernel.shape[-2:]) + self._weights[f"{name}/bias"]

    def _block(self, x: np.ndarray, name: str) -> np.ndarray:
        for number in range(2):
            x = self._layer(x, name, number)
        return x

    def _layer(self, x: np.ndarray, name: str, number: int) -> np.ndarray:
        x = _convolution(x, self._weights[f"{name}_conv_{number}/kernel"])
        norm = f"{name}_norm_{number}"
        return np.maximum(_group_norm(x, self._weights[f"{norm}/scale"], self._weights[f"{norm}/bias"]), 0)


def _halved(x: np.ndarray) -> np.ndarray:
    """The largest value of every 2 x 2 pixels."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def _convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3 x 3 convolution with zeros around the picture: (N, H, W, C) -> (N, H, W, features)."""
    n, h, w, c = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(n * h * w, 9 * c)
    return (rows @ kernel.reshape(9 * c, -1)).reshape(n, h, w, -1)


def _group_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    n, h, w, c = x.shape
    flat, count = x.reshape(n, h * w, c), h * w * c // GROUPS
    # Sums over the places of each channel, then over the channels of each group.
    sums = np.ones((1, h * w), np.float32) @ flat
    squares = np.einsum("npc,npc->nc", flat, flat, optimize=False)
    mean = sums.reshape(n, GROUPS, -1).sum(-1) / count
    variance = np.maximum(squares.reshape(n, GROUPS, -1).sum(-1) / count - np.square(mean), 0)
    factor = (1 / np.sqrt(variance + EPSILON)).repeat(c // GROUPS, axis=1) * scale
    return x * factor[:, None, None] + (bias - mean.repeat(c // GROUPS, axis=1) * factor)[:, None, None]


def blocks_to_channels(x: Any) -> Any:
    """(N, H, W, C) -> (N, H / 2, W / 2, 4 C), of numpy or of JAX."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def channels_to_blocks(x: Any) -> Any:
    """(N, H, W, C) -> (N, 2 H, 2 W, C / 4), of numpy or of JAX."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def check_output(folder: str | Path) -> Path:
    """Check that a folder can be written and holds nothing but an earlier network, and return its path.

    Raises:
        InputError: it cannot be written, or holds other files, which may belong to another model.
    """
    folder = check_folder(folder)
    others = sorted(path.name for path in folder.iterdir() if path.name != _FILE) if folder.is_dir() else []
    if others:
        raise InputError(f"{folder}: expected a new folder or one with a segmentation network, found "
                         f"{listed(others, 4)}; choose another folder")
    return folder


def flat_weights(params: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """Return nested Flax parameters as arrays by path, as in the file."""
    flat = {}
    for name, value in params.items():
        flat |= flat_weights(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {
            f"{prefix}{name}": np.asarray(value)}
    return flat
