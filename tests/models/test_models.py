"""Old home of the helpers of `tests.helpers.models`."""

from tests.helpers.models import TINY, random_batch, random_params

__all__ = ["TINY", "random_batch", "random_params"]
