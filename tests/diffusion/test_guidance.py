"""Guidance over branches against its formula."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from durian_jax.diffusion.guidance import active_branches, combine

MAKE = {"numpy": np.asarray, "jax": jnp.asarray, "torch": torch.tensor}


def predictions(count):
    """Return the predictions of all branches."""
    return list(np.random.default_rng(0).normal(size=(count, 2, 3)).astype(np.float32))


def guided(branches, scales):
    """Return the combination of the active branches."""
    active, of_active = active_branches(scales)
    return combine([branches[i] for i in active], of_active)


@pytest.mark.parametrize("library", MAKE)
def test_two_branches_are_classifier_free_guidance(library):
    without, full = predictions(2)
    found = guided([MAKE[library](x) for x in (without, full)], (3.5,))
    assert type(found) is type(MAKE[library](full))
    np.testing.assert_allclose(found, without + 3.5 * (full - without), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", MAKE)
@pytest.mark.parametrize("scales", [(2, 2.5, 1), (1, 1, 1), (2, 2, 1), (1, 1, 3), (3, 0, 0), (0, 2, 2), (0, 0, 0)])
def test_four_branches_are_the_sum_of_their_coefficients(library, scales):
    """Branches that do not run have coefficient zero."""
    branches = predictions(4)
    coefficients = -np.diff([1, *scales, 0])
    assert coefficients.sum() == 1
    found = guided([MAKE[library](x) for x in branches], scales)
    np.testing.assert_allclose(found, np.tensordot(coefficients, branches, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scales", "active"), [
    ((2, 2.5, 1), (0, 1, 2, 3)), ((1, 1, 1), (3,)), ((2, 2, 1), (0, 2, 3)), ((0, 0, 0), (0,)), ((1.0,), (1,)),
    ((3.5,), (0, 1)), ((), (0,))])
def test_branches_with_coefficient_zero_are_not_active(scales, active):
    found, of_active = active_branches(scales)
    assert found == active and of_active == tuple((1, *scales)[i] for i in active)
