"""The learning rate of a run."""

import numpy as np

from durian_jax.configs.durian import get_config
from durian_jax.training.optimizer import make_learning_rate
from tests.helpers.runs import changed


def test_learning_rate_warms_up_and_decays():
    config = changed(get_config("tiny"), {"total_steps": 100, "decay_steps": 50, "warmup_steps": 10})
    rate = make_learning_rate(config)
    values = [float(rate(step)) / config.learning_rate for step in range(100)]
    np.testing.assert_allclose(values[0], 0.1, rtol=1e-5)
    np.testing.assert_allclose(values[9:51], 1.0, rtol=1e-5)
    assert (np.diff(values[50:]) < 0).all()
    assert config.final_fraction < values[-1] < config.final_fraction + 0.01
