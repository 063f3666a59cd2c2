"""The target of consistency distillation, where all of it is known in closed form: for a Gaussian."""

import pytest
import torch
from torch import Tensor

from tests.diffusion.conftest import Ideal
from unclip.diffusion.denoiser import Prediction
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.samplers import Sampling, sample
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.training.trajectory import Trajectory, consistency_target

SCHEDULE = Schedule()
IDEAL = Ideal(SCHEDULE)
MEAN, STD = 0.3, 0.5


def at_level(trajectory: Trajectory, level: int, count: int = 64) -> tuple[Tensor, Tensor]:
    """Noised samples `b 8` of the Gaussian at a level, and the level `b`."""
    generator = torch.Generator().manual_seed(level)
    x0, noise = MEAN + STD * torch.randn(count, 8, generator=generator), torch.randn(count, 8, generator=generator)
    levels = torch.full((count,), level)
    return add_noise(x0, noise, trajectory.timestep(levels), SCHEDULE), levels


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_the_exact_function_is_its_own_target(segments: int):
    """The better, the shorter the teacher's steps are."""
    worst = []
    for count in (16, 64, 256):
        trajectory = Trajectory.of(SCHEDULE, count, segments)
        ends = [0 if i == 0 else int(trajectory.timesteps[i * count // segments]) for i in range(segments)]
        exact, errors = IDEAL.consistent(MEAN, STD, ends), []
        for level in range(2, count + 1, count // 16):
            x, levels = at_level(trajectory, level)
            target = consistency_target(IDEAL.gaussian(MEAN, STD), exact, x, levels, trajectory)
            errors.append(float((target - exact(x, trajectory.timestep(levels)).x0).square().mean().sqrt()))
        worst.append(max(errors))
    assert worst[0] < 0.06 and worst[2] < worst[1] / 2 < worst[0] / 4


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_a_network_that_meets_its_target_ends_where_the_teacher_does(segments: int):
    """The fixed point, found level by level, reaches in few steps what the teacher reaches in 32, for any noise."""
    teacher, trajectory = IDEAL.gaussian(MEAN, STD), Trajectory.of(SCHEDULE, 32, segments)
    gain, offset = torch.zeros(1000), torch.zeros(1000)

    def network(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(gain[t][:, None] * x + offset[t][:, None])

    for level in range(1, trajectory.count + 1):
        x, levels = at_level(trajectory, level)
        target = consistency_target(teacher, network, x, levels, trajectory)
        ones = torch.stack([x.flatten(), torch.ones(x.numel())], dim=1).double()
        t = int(trajectory.timestep(levels)[0])
        gain[t], offset[t] = torch.linalg.lstsq(ones, target.flatten()[:, None].double()).solution.flatten().float()
    x = randn((16,), make_generators(range(16)))
    few = sample(network, x, SCHEDULE, Sampling("ddim", segments), [])
    many = sample(teacher, x, SCHEDULE, Sampling("ddim", 32), [])
    torch.testing.assert_close(few, many, rtol=0, atol=2e-4)


def test_a_step_and_its_inverse():
    trajectory = Trajectory.of(SCHEDULE, 8, 2)
    x, levels = at_level(trajectory, 7)
    x0 = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    end = trajectory.end(levels)
    assert end.tolist() == [4] * 64 and trajectory.end(torch.tensor([1, 4, 5, 8])).tolist() == [0, 0, 4, 4]
    moved = trajectory.step(x0, x, levels, end)
    torch.testing.assert_close(trajectory.x0_of_step(moved, x, levels, end), x0, rtol=0, atol=1e-4)
    clean = torch.zeros_like(levels)
    torch.testing.assert_close(trajectory.step(x0, x, levels, clean), x0)
