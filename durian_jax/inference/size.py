"""Pictures of another size than the model was trained for."""

from dataclasses import replace

from durian_jax.errors import InputError
from durian_jax.models.family import ModelConfig


def at_size(config: ModelConfig, size: int | None, name: str) -> ModelConfig:
    """The model's config at another picture size.

    Args:
        size: H = W in pixels; None: unchanged.
        name: of the checkpoint, for the error.

    Raises:
        InputError: a model that makes one size only, or a size that is not a multiple of `size_multiple`.
    """
    if size in (None, config.image_size):
        return config
    if config.fixed_size:
        raise InputError(f"size {size}: the checkpoint {name} makes pictures of {config.image_size} x "
                         f"{config.image_size} pixels only; leave --size out or name another checkpoint")
    if size % config.size_multiple:
        raise InputError(f"size {size}: the checkpoint {name} makes pictures whose sides are multiples of "
                         f"{config.size_multiple} pixels; choose such a size")
    return replace(config, image_size=size)
