"""Pictures of another size than a model was trained for."""

from dataclasses import replace

from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig


def at_size(config: DurianConfig, size: int | None, name: str) -> DurianConfig:
    """The model's config at another picture size.

    Args:
        size: H = W in pixels; None: as it is.
        name: of the checkpoint, for the error.

    Raises:
        InputError: a model with a position code, which knows one size, or a size that is no multiple of what it needs.
    """
    if size in (None, config.image_size):
        return config
    if config.unet.positions:
        raise InputError(f"size {size}: the checkpoint {name} makes pictures of {config.image_size} x "
                         f"{config.image_size} pixels only; leave --size out or name another checkpoint")
    return replace(config, image_size=size)
