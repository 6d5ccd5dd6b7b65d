"""Checks of pretrained tensors: missing, unexpected or mis-shaped tensors are listed and refused."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from durian_jax.convert.names import Tensor
from durian_jax.errors import InputError
from durian_jax.models.family import ModelConfig
from durian_jax.models.positions import sequence_position_code
from durian_jax.tensor_files import refuse_misfits


@dataclass(frozen=True)
class Excuse:
    """A rule that accepts tensors which only the model or only the file has.

    Attributes:
        name: description of these tensors.
        pattern: regular expression that matches their full names in the file.
        missing: True: the file may lack them. False: the file may have them although the model does not.
    """

    name: str
    pattern: str
    missing: bool = False


# A tensor starts up to three networks, and as many others may start fresh.
_USES = 6

POSITION_TABLES = Excuse("position tables of motion modules, which are computed", r".*\.pos_embed\.pe")
POSITION_NUMBERS = Excuse("CLIP's numbering of positions", r"vision_model\.embeddings\.position_ids")
TEXT_HALF = Excuse("the text half of CLIP", r"(text_model\..*|text_projection\.weight|logit_scale)")
NO_MIDDLE = Excuse("AnimateDiff v3 has no motion module in the middle, ours starts without effect",
                   r"mid_block\.motion_modules\..*", missing=True)


def check_fit(tensors: Iterable[Tensor], shapes: Mapping[str, tuple[int, ...]],
              found: Mapping[str, tuple[int, ...]], origin: str, excuses: Iterable[Excuse] = ()) -> set[str]:
    """Compare a network with a file.

    Args:
        tensors: tensors of the network.
        shapes: our path -> our shape.
        found: name in the file -> shape in the file.
        origin: name of the file or folder, for the error.
        excuses: accepted differences.

    Returns:
        Names of the network's tensors that the file lacks, as the rules accept.

    Raises:
        InputError: lists the missing, unexpected and mis-shaped tensors that no rule accepts.
    """
    excuses = list(excuses)
    expected = {tensor.name: tensor.their_shape(shapes[tensor.path]) for tensor in tensors}
    excused = lambda name, missing: any(rule.missing == missing and re.fullmatch(rule.pattern, name)
                                        for rule in excuses)
    absent = sorted(set(expected) - set(found))
    refuse_misfits(f"{origin} does not fit",
                   [f"{name} {expected[name]}" for name in absent if not excused(name, True)],
                   [f"{name} {found[name]}" for name in sorted(set(found) - set(expected)) if not excused(name, False)],
                   expected, found)
    return set(absent)


def check_count(config: ModelConfig, files: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a config.json that describes far more tensors than its weights hold, before the model is built.

    Raises:
        InputError: says how many there are.
    """
    count = sum(len(file) for file in files)
    if config.least_parameters > _USES * count:
        raise InputError(f"import: config.json of the parts describes a model of more than {config.least_parameters} "
                         f"tensors, their weights hold {count}; get both again")


def check_position_tables(found: Mapping[str, np.ndarray], origin: str) -> None:
    """Refuse motion modules whose position code is not sinusoidal, because our motion modules compute that code.

    Raises:
        InputError: another position code; names the table.
    """
    for name in sorted(found):
        if re.fullmatch(POSITION_TABLES.pattern, name):
            table = found[name].astype(np.float32)
            if table.ndim != 3 or not np.allclose(table[0], sequence_position_code(*table.shape[1:]), atol=1e-2):
                raise InputError(f"{origin}: {name} is not the sinusoidal position code, and other codes are not "
                                 "supported; choose another motion adapter")
