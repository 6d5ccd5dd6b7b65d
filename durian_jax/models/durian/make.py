"""Build the model of a config: the paper's, or one of its ablations."""

from durian_jax.models.attention import AttentionMethod
from durian_jax.models.durian.ablations import SingleReference, TokenConcatenation
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian

_CLASSES = {"dual": Durian, "single": SingleReference, "tokens": TokenConcatenation}


def make_model(config: DurianConfig, remat: str = "none", attention: AttentionMethod | None = None) -> Durian:
    """See `ModelConfig.create`."""
    return _CLASSES[config.reference_mode](config, remat, attention or AttentionMethod())
