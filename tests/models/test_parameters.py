"""Parameters and example batches."""

from dataclasses import replace

from durian_jax.models.batch import axis_letters, training_fields
from durian_jax.models.parameters import example_batch
from durian_jax.models.unet.config import UNetConfig
from tests.helpers.models import TINY


def test_the_example_batch_has_the_shapes_of_the_spec():
    with_identity = replace(TINY, identity_dim=6, unet=UNetConfig(channels=(16, 32), context_dim=8))
    for config in (TINY, with_identity):
        spec = training_fields(config.batch_spec())
        batch = example_batch(config)
        assert axis_letters(spec) == {"B", "F", "A"}
        assert {name: x.shape for name, x in batch.items()} == {
            name: field.shape({"B": 1, "F": 1, "A": 1}) for name, field in spec.items()}
        assert {str(x.dtype) for x in batch.values()} == {"float32"}
    assert batch["identity"].shape == (1, 6)
