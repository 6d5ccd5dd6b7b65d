"""Old home of a helper of `tests.helpers.models`."""

from tests.helpers.models import attention_inputs as inputs

__all__ = ["inputs"]
