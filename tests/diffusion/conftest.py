"""Denoisers that are exact, so that samplers can be held against the truth without any weights."""

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

    def signal(self, t: Tensor) -> Tensor:
        return self.schedule.alphas_cumprod().double()[t].sqrt()[:, None]

    def noise(self, t: Tensor) -> Tensor:
        return (1 - self.schedule.alphas_cumprod().double()[t]).sqrt()[:, None]


@pytest.fixture
def ideal() -> Ideal:
    return Ideal(Schedule())
