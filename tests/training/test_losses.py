"""Timesteps, noise and the velocity loss."""

import pytest
import torch
import torch.nn.functional as F

from tests.training.tasks.helpers import seeded
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.training.batch import Batch
from unclip.training.losses import contrast_weights, sample_noise, velocity_loss
from unclip.training.tasks.options import PREDICTIONS


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (1.2, 0.7)])
def test_timesteps_are_normal_in_log_noise(shift: float, spread: float):
    t, noise = sample_noise(zeros := torch.zeros(20_000, 1), Schedule(), Batch(zeros, [], seeded()), shift, spread)
    assert noise.shape == (20_000, 1) and noise.std().item() == pytest.approx(1, abs=0.03)
    # the same from the schedule itself: half the log of noise over signal variance
    signal = Schedule().alphas_cumprod()[t]
    half_log = ((1 - signal) / signal).log() / 2
    assert half_log.mean().item() == pytest.approx(shift, abs=0.06)
    assert half_log.std().item() == pytest.approx(spread, abs=0.06)


def test_timesteps_are_uniform_without_a_shift():
    t, _ = sample_noise(zeros := torch.zeros(20_000, 1), Schedule(), Batch(zeros, [], seeded()))
    assert (t.min(), t.max()) == (0, 999) and t.float().mean().item() == pytest.approx(499.5, abs=10)
    assert (
        sample_noise(zeros := torch.zeros(2000, 1), Schedule(num_train_timesteps=50), Batch(zeros, [], seeded()))[
            0
        ].max()
        == 49
    )


@pytest.mark.parametrize("prediction", PREDICTIONS["decoder"])
def test_the_velocity_loss_is_the_same_for_every_prediction(prediction: str):
    schedule = Schedule(prediction_type=prediction)
    x0, noise, wrong = (torch.randn(4, 3, 8, 8, generator=seeded(seed)) for seed in range(3))
    t = torch.tensor([200, 400, 800, 999])  # at the last of them nearly nothing is left of x0
    x_t = add_noise(x0, noise, t, schedule)
    guess = x0 + 0.1 * wrong  # the x0 that the network has in mind
    signal = schedule.alphas_cumprod()[t].view(4, 1, 1, 1)
    v_hat = (signal.sqrt() * x_t - guess) / (1 - signal).sqrt()
    v = signal.sqrt() * noise - (1 - signal).sqrt() * x0  # Salimans & Ho 2022 (arXiv:2202.00512), section 4
    output, best = {"sample": (guess, x0), "v_prediction": (v_hat, v)}[prediction]
    torch.testing.assert_close(velocity_loss(output, x_t, x0, t, schedule), F.mse_loss(v_hat, v))
    assert velocity_loss(best, x_t, x0, t, schedule).item() == pytest.approx(0, abs=1e-8)


def test_images_of_little_contrast_weigh_more():
    pattern = torch.tensor([1.0, -1.0]).repeat(32).view(1, 1, 8, 8).expand(3, 3, 8, 8)
    images = 0.2 + pattern * torch.tensor([0.05, 0.33, 0.6]).view(3, 1, 1, 1)
    low, typical, high = contrast_weights(images, 1.0).tolist()
    assert low > 3 and typical == pytest.approx(1, abs=0.02) and 0.5 < high < 0.7
    torch.testing.assert_close(contrast_weights(images, 2.0), contrast_weights(images, 1.0) ** 2)
    torch.testing.assert_close(contrast_weights(images[:1], 1.0), contrast_weights(images, 1.0)[:1])
    assert contrast_weights(torch.zeros(1, 3, 8, 8), 1.0).isfinite().all()


def test_weights_scale_the_errors_of_their_examples():
    schedule, t = Schedule(prediction_type="sample"), torch.tensor([500, 500])
    x0, x_t, output = (torch.randn(2, 3, 4, 4, generator=seeded(seed)) for seed in range(3))
    first, second = (velocity_loss(output[i], x_t[i], x0[i], t[i], schedule) for i in (slice(1), slice(1, 2)))
    both = velocity_loss(output, x_t, x0, t, schedule, torch.tensor([3.0, 0.5]))
    torch.testing.assert_close(both, (3 * first + 0.5 * second) / 2)
