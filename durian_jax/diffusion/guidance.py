"""Guidance over any number of branches, from the least conditioned prediction p_0 to the most conditioned p_n:

    p = p_0 + sum_i s_i (p_i - p_(i-1))

Classifier-free guidance (arXiv 2207.12598) is two branches. The signal fusion of arXiv 2509.17476 is four: without
any condition, with the source, with the driving video too, with history too.
"""

from collections.abc import Sequence


def active_branches(scales: Sequence[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Choose the branches that have to run: those whose coefficient s_i - s_(i+1) in the sum is not zero.

    Args:
        scales: s_1 .. s_n.

    Returns:
        Their indices, and s_i of each, with s_0 = 1.
    """
    known = (1.0, *scales, 0.0)
    active = tuple(i for i in range(len(scales) + 1) if known[i] != known[i + 1])
    return active, tuple(known[i] for i in active)


def combine(predictions: Sequence, scales: Sequence):
    """Combine the predictions of some branches; the other branches have coefficient zero.

    Args:
        predictions: arrays or tensors of one shape, in the order of the branches.
        scales: s_i of the same branches. The first is not used: without the branches before it, it is 1.
    """
    total = predictions[0]
    for before, after, scale in zip(predictions, predictions[1:], scales[1:], strict=False):
        total = total + scale * (after - before)
    return total
