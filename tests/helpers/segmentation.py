"""Small segmentation networks."""

from pathlib import Path

import jax
import numpy as np

from durian_jax.segmentation.features import CHANNELS, PATCH
from durian_jax.segmentation.flax_network import EyeNetwork, SegmentationNetwork
from durian_jax.segmentation.network import flat_weights
from durian_jax.tensor_files import write_tensors

HEAD, EYES = SegmentationNetwork((8, 16, 24)), EyeNetwork((8, 16))


def random_parameters(head: SegmentationNetwork = HEAD) -> tuple[dict, dict]:
    """Random parameters of the networks of the head and of the eyes. Random norms show mistakes."""
    rng = np.random.default_rng(0)
    found = []
    for network, shape in ((head, (1, 16, 16, CHANNELS)), (EYES, (1, *PATCH, 3))):
        leaves, tree = jax.tree.flatten(network.init(jax.random.key(0), np.zeros(shape, np.float32)))
        found.append(jax.tree.unflatten(tree, [leaf + rng.normal(size=leaf.shape).astype(np.float32) * 0.3
                                               for leaf in leaves])["params"])
    return found[0], found[1]


def write_random_network(folder: Path, head: SegmentationNetwork = HEAD) -> None:
    """Write both networks as `training.train` does."""
    first, second = random_parameters(head)
    write_tensors(folder, flat_weights({**first, **second}).items())
