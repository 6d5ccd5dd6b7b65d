"""Moments of diffusion: a shift of times towards noise, the same for training and sampling.

Written against the array API: arrays of numpy or jax in, the same kind out.
"""


def shift_times(t, shift: float):
    """Move times in [0, 1] towards 1 (noise): shift t / (1 + (shift - 1) t) (arXiv 2403.03206, section 5.3.2).

    Large pictures need more noise before they lose as much of their content; 1 changes nothing.
    """
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)
