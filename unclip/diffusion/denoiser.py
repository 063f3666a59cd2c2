"""A network's raw output becomes a prediction of the clean x0.

Networks predict the noise (eps), the image (x0) or the velocity (v), with or without a learned variance. Only this file
knows which. `ab` is alpha bar, the cumulative product of the alphas; the forward process is equation 4 of DDPM:
x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unclip.diffusion.schedule import Schedule, as_float, signal_and_noise


@dataclass(frozen=True)
class Prediction:
    """The prediction at one timestep.

    x0: `b ...`, the expected clean sample.
    variance: None, or `b ...`: the learned log-variance, from -1 (the posterior's) to +1 (beta's). Improved DDPM
        (Nichol & Dhariwal 2021), equation 15.
    """

    x0: Tensor
    variance: Tensor | None = None


Denoise = Callable[[Tensor, Tensor], Prediction]
"""(x: `b ...`, t: `b` int64 timesteps as in training) -> Prediction."""

Network = Callable[[Tensor, Tensor], Tensor]
"""(x: `b ...`, t: `b` int64) -> raw output, `b ...`, with twice the channels if the variance is learned."""


def denoiser(network: Network, schedule: Schedule) -> Denoise:
    """A function that predicts x0 from a network. The algebra is float32 even if the network is not."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        output, variance = network(x, t).to(as_float(x)), None
        learned = schedule.variance_type == "learned_range"
        if learned or output.shape[1] == 2 * x.shape[1]:  # Kandinsky's decoder learned a variance that is not used
            assert output.shape[1] == 2 * x.shape[1], "a learned variance doubles the channels of the output"
            output, variance = output.chunk(2, dim=1)
        return Prediction(x0_from(output, x, t, schedule), variance if learned else None)

    return denoise


def x0_from(output: Tensor, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """x0 from a network's output (eps, x0 or v; `b ...`) for x at timesteps t (`b`)."""
    a, s = signal_and_noise(x, t, schedule)
    if schedule.prediction_type == "epsilon":
        return (x - s * output) / a
    if schedule.prediction_type == "v_prediction":
        return a * x - s * output
    return output
