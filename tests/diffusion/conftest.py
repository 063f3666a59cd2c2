"""Denoisers that are exact, so that samplers can be held against the truth without any weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Ideal:
    """E[x0 | x_t] in closed form for known distributions, computed in float64."""

    schedule: Schedule

    def finite(self, data: Tensor) -> Denoise:
        """The clean sample is one of data (`n d`) with equal chances: a softmax over distances."""
        data = data.double()

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            a, s = self.signal(t), self.noise(t)  # b 1
            distance = (x.double()[:, None] - a[..., None] * data).square().sum(-1)  # b n
            return Prediction((torch.softmax(-distance / (2 * s**2), dim=1) @ data).float())

        return denoise

    def gaussian(self, mean: float, std: float) -> Denoise:
        """Every number of the clean sample is N(mean, std^2) on its own."""

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            a, s = self.signal(t), self.noise(t)
            gain = a * std**2 / (a**2 * std**2 + s**2)
            return Prediction((mean + gain * (x.double() - a * mean)).float())

        return denoise

    def correlated(self, mean: Tensor, covariance: Tensor) -> Denoise:
        """Clean samples `d n` are n draws of N(mean, covariance) in d dimensions."""
        mean, covariance = mean.double()[:, None], covariance.double()

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            a, s = self.signal(t)[0], self.noise(t)[0]
            gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(len(mean)).double())
            return Prediction((mean + gain @ (x.double() - a * mean)).float())

        return denoise

    def clusters(self, means: Tensor, std: float) -> Denoise:
        """Clean samples `d n` are n draws from equal parts of N(mean, std^2), one for each of means (`k d`)."""
        means = means.double()[:, :, None]  # k d 1

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            a, s = self.signal(t)[0], self.noise(t)[0]
            off = x.double()[:, None] - a * means  # b k d n
            spread = a**2 * std**2 + s**2
            share = torch.softmax(-off.square().sum(2) / (2 * spread), dim=1)  # b k n
            return Prediction((share[:, :, None] * (means + a * std**2 / spread * off)).sum(1).float())

        return denoise

    def flow(self, x: Tensor, mean: float, std: float) -> Tensor:
        """Where the probability-flow ODE of that Gaussian carries x from the last timestep: its quantile."""
        last = torch.tensor([self.schedule.num_train_timesteps - 1])
        a, s = self.signal(last), self.noise(last)
        return mean + std * (x.double() - a * mean) / (a**2 * std**2 + s**2).sqrt()

    def consistent(self, mean: float, std: float, ends: Sequence[int] = (0,)) -> Denoise:
        """The x0 towards which one DDIM step reaches the ODE's value at the next lower of the timesteps `ends`.

        The end 0 is the clean sample: by default, x0 is where the ODE of that Gaussian ends.
        """

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            end = torch.full_like(t, max(e for e in ends if e < int(t[0])))
            a, s, a_end, s_end = self.signal(t), self.noise(t), self.signal(end), self.noise(end)
            if not end.any():
                a_end, s_end = torch.ones_like(a), torch.zeros_like(s)
            ratio = ((a_end**2 * std**2 + s_end**2) / (a**2 * std**2 + s**2)).sqrt()
            arrived = a_end * mean + ratio * (x.double() - a * mean)
            return Prediction(((arrived - s_end / s * x.double()) / (a_end - s_end / s * a)).float())

        return denoise

    def signal(self, t: Tensor) -> Tensor:
        return self.schedule.alphas_cumprod().double()[t].sqrt()[:, None]

    def noise(self, t: Tensor) -> Tensor:
        return (1 - self.schedule.alphas_cumprod().double()[t]).sqrt()[:, None]


@pytest.fixture
def ideal() -> Ideal:
    return Ideal(Schedule())
