"""The network's prediction and the loss on it; for arrays of numpy or jax."""

from dataclasses import dataclass
from typing import Annotated

from durian_jax.diffusion.schedule import SCHEDULES, Schedule, array_module, broadcast
from durian_jax.fields import OPTIONAL, FieldError, NotNegative, OneOf, Positive, Range, check_fields

PREDICTIONS = ("sample", "epsilon", "velocity", "flow")

# How training times are drawn from (0, 1): u ** time_power with u uniform, or the logistic function of a normal number.
TIME_DISTRIBUTIONS = ("power", "logit_normal")


@dataclass(frozen=True)
class Objective:
    """The denoising objective.

    Attributes:
        schedule: kind of noise schedule, see `Schedule`.
        prediction: the network's output: "sample" (clean latents), "epsilon" (noise), "velocity"
            (alpha noise - sigma clean) or "flow" (noise - clean, rectified flow's velocity: arXiv 2209.03003).
        time_power: training times are u ** time_power with u uniform in (0, 1); below 1 favours noise.
        region_weight: extra weight of the loss where the frames show the attributes.
        pixel_weight: weight of the squared error of decoded pixels, beside the error of latents. Latents have equal
            variance, pixels do not: three directions of sixteen make up most of the visible picture.
        absolute_weight: weight of the absolute errors of decoded pixels and of their gradients. Where the place of an
            outline is uncertain, these favour a crisp outline in the most likely place; the squared error blurs it.
        change_weight: weight of the absolute error of the change of decoded pixels from frame to frame, for stages that
            train on clips.
        min_snr: largest signal-to-noise ratio with full weight; times with less noise weigh less (min-SNR weighting,
            arXiv 2303.09556). 0: all times have equal weight.
        noise_offset: standard deviation of a noise offset that all pixels of a frame share, so that the model learns
            brightness too. 0: plain noise.
        times: one of `TIME_DISTRIBUTIONS`: how training times are drawn.
        time_mean, time_std: of the normal number of "logit_normal" (arXiv 2403.03206, section 3.1).
        time_shift: training times and the sampler's steps are moved towards noise, see `times.shift_times`.
    """

    schedule: Annotated[str, OneOf(SCHEDULES)] = "flow"
    prediction: Annotated[str, OneOf(PREDICTIONS)] = "sample"
    time_power: Positive = 0.6
    region_weight: NotNegative = 1.0
    pixel_weight: NotNegative = 0.0
    min_snr: NotNegative = 0.0
    noise_offset: NotNegative = 0.0
    times: Annotated[str, OneOf(TIME_DISTRIBUTIONS), OPTIONAL] = "power"
    time_mean: Annotated[float, Range(-1e3, 1e3), OPTIONAL] = 0.0
    time_std: Annotated[Positive, OPTIONAL] = 1.0
    time_shift: Annotated[Positive, OPTIONAL] = 1.0
    absolute_weight: Annotated[NotNegative, OPTIONAL] = 0.0
    change_weight: Annotated[NotNegative, OPTIONAL] = 0.0

    def __post_init__(self):
        check_fields(self)
        if self.noise_schedule.is_discrete:
            for name, only in (("times", "power"), ("time_shift", 1)):
                if getattr(self, name) != only:
                    raise FieldError(name, f"expected {only} for the schedule {self.schedule}, which has discrete "
                                     f"steps, found {getattr(self, name)}")
        if self.prediction == "flow" and (self.schedule != "flow" or self.min_snr):
            raise FieldError("prediction", "expected schedule flow without min_snr for the prediction flow, found "
                             f"schedule {self.schedule} and min_snr {self.min_snr}")
        if self.prediction == "epsilon" and self.noise_schedule.ends_in_noise:
            raise FieldError("prediction", f"expected another one than epsilon for the schedule {self.schedule}, which "
                             "ends in pure noise, where a prediction of the noise has no information; set prediction "
                             "to velocity, or schedule to stable_diffusion")
        for name in ("pixel_weight", "absolute_weight", "change_weight"):
            if getattr(self, name) and self.prediction == "epsilon":
                raise FieldError(name, "expected 0 for the prediction epsilon, which has no information about pixels "
                                 f"in pure noise, found {getattr(self, name)}; or set prediction to sample or velocity")

    @property
    def noise_schedule(self) -> Schedule:
        """The schedule of `schedule`."""
        return Schedule(self.schedule)

    @property
    def weighs_pixels(self) -> bool:
        """Whether the loss needs decoded frames."""
        return bool(self.pixel_weight or self.absolute_weight or self.change_weight)

    def time_weight(self, t):
        """Weight of the loss at times t, of t's shape (min-SNR weighting)."""
        xp = array_module(t)
        if not self.min_snr:
            return xp.ones_like(t)
        alpha, sigma = self.noise_schedule(t)
        snr = xp.square(alpha / xp.maximum(sigma, 1e-6))
        if self.prediction == "sample":
            return xp.minimum(snr, self.min_snr)
        # The velocity's error is the error of clean latents times SNR + 1. One is added to the limited SNR too, or
        # pure noise, for which the schedule was changed, would have no weight.
        snr += self.prediction == "velocity"
        return xp.minimum(snr, self.min_snr) / xp.maximum(snr, 1e-6)

    def target(self, clean, noise, t):
        """The target of the prediction, of the shape of `clean` (B, F, ...), at times (B, F)."""
        if self.prediction == "sample":
            return clean
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "flow":
            return noise - clean
        alpha, sigma = (broadcast(x, clean) for x in self.noise_schedule(t))
        return alpha * noise - sigma * clean

    def to_clean(self, prediction, noisy, t):
        """The clean latents that follow from a prediction at z_t; the inverse of `target`."""
        if self.prediction == "sample":
            return prediction
        of_prediction, of_noisy = (broadcast(x, noisy) for x in self.clean_coefficients(t))
        return of_prediction * prediction + of_noisy * noisy

    def clean_coefficients(self, t):
        """(p, q), each of t's shape: the clean latents are p * prediction + q * z_t."""
        alpha, sigma = self.noise_schedule(t)
        if self.prediction == "sample":
            return alpha * 0 + 1, alpha * 0
        if self.prediction == "epsilon":
            alpha = array_module(alpha).maximum(alpha, 1e-6)
            return -sigma / alpha, 1 / alpha
        if self.prediction == "flow":
            return -sigma, alpha * 0 + 1
        norm = alpha**2 + sigma**2
        return -sigma / norm, alpha / norm

    def loss(self, prediction, clean, noise, t, region):
        """Mean squared error of the prediction, weighted by `time_weight` and as in `weighted_error`.

        Args:
            prediction, clean, noise: (B, F, h, w, c).
            t: (B, F).
            region: (B, F, h, w, 1) in [0, 1].
        """
        return self.weighted_error(prediction, self.target(clean, noise, t), region, self.time_weight(t))

    def weighted_error(self, values, target, region, time_weight=None):
        """Mean squared error, weighted by 1 + region_weight * region (one channel, in [0, 1]).

        Args:
            time_weight: (B, F), another factor of each frame's weight.
        """
        weight = 1 + self.region_weight * region
        error = (values - target) ** 2 * weight
        if time_weight is not None:
            error *= broadcast(time_weight, error)
        return error.mean() / weight.mean()

    def crispness_error(self, values, target, region):
        """Mean absolute error of pixels and of their gradients, weighted as in `weighted_error`: (B, F, H, W, 3)."""
        weight = 1 + self.region_weight * region
        return sum(absolute_errors(values - target, weight)) / weight.mean()

    def change_error(self, values, target):
        """Mean absolute error of the change from frame to frame of clips (B, F, H, W, 3); 0 for single frames."""
        xp = array_module(values)
        changes = xp.diff(values - target, axis=1)
        return xp.abs(changes).mean() if changes.shape[1] else xp.zeros(())


def absolute_errors(difference, weight):
    """Weighted mean absolute values of a difference of pictures (..., H, W, 3), and of its gradients.

    Args:
        weight: (..., H, W, 1).
    """
    xp = array_module(difference)
    across, down = xp.abs(xp.diff(difference, axis=-2)), xp.abs(xp.diff(difference, axis=-3))
    return (xp.abs(difference) * weight).mean(), \
        (across * weight[..., 1:, :]).mean() + (down * weight[..., 1:, :, :]).mean()
