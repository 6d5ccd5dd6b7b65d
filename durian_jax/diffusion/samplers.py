"""Samplers: from noise to clean latents in a few evaluations of the model.

Both are linear in the model's clean predictions, so a sampler is a table of coefficients,

    z_next = a z + b x + c x_previous

DDIM (arXiv 2010.02502, eta = 0): c = 0. DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): a second
order correction from the previous prediction. For "flow", DDIM is the Euler step of rectified flow.
"""

import numpy as np

from durian_jax.diffusion.schedule import Schedule
from durian_jax.diffusion.times import shift_times
from durian_jax.errors import InputError

SAMPLERS = ("ddim", "dpm++")


def sampler_table(schedule: Schedule, sampler: str, steps: int, shift: float = 1.0
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Times and coefficients of a sampler.

    Args:
        schedule: noise schedule of the model.
        sampler: one of `SAMPLERS`.
        steps: number of evaluations of the model.
        shift: the model's `Objective.time_shift`.

    Returns:
        (steps,) times, descending from 1, and (steps, 3) coefficients a, b, c; both float32.

    Raises:
        InputError: unknown sampler or no steps.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}")
    if steps < 1:
        raise InputError(f"a sampler needs at least 1 step, got {steps}")
    times = shift_times(np.linspace(1, 0, steps + 1), shift)
    alpha, sigma = schedule(times.copy())
    sigma[-1] = 0.0
    if schedule.ends_in_noise:
        alpha[0] = 0.0  # exactly, unlike the cosine of pi / 2
    a = sigma[1:] / sigma[:-1]
    b = alpha[1:] - alpha[:-1] * a
    c = np.zeros(steps)
    if sampler == "dpm++":
        with np.errstate(divide="ignore"):
            log_snr = np.log(alpha) - np.log(sigma)
        step = np.diff(log_snr)
        # The first and the last step are of first order: the first has no previous prediction, the last has infinite
        # length.
        for i in range(1, steps - 1):
            correction = b[i] * step[i] / (2 * step[i - 1])
            b[i], c[i] = b[i] + correction, -correction
    return times[:-1].astype(np.float32), np.stack([a, b, c], -1).astype(np.float32)

