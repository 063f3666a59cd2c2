"""The teacher's trajectory, and where it ends: the target of multistep consistency distillation.

Heek, Hoogeboom & Salimans 2024, "Multistep Consistency Models" (arXiv:2403.06807), algorithm 1. The noise levels are
divided into segments. Within each, the network predicts the x0 towards which one DDIM step reaches the lower end of the
segment, where the teacher would arrive in many steps. One segment is consistency distillation (Song et al. 2023,
arXiv:2303.01469): x0 is then the end itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.samplers import even_timesteps
from unclip.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Trajectory:
    """The noise levels of a trajectory, from level 0 (clean) to level `count` (the noisiest), in segments.

    timesteps: `count + 1`; that of the clean level is not used. signal, noise: sqrt(ab) and sqrt(1 - ab), `count + 1`.
    """

    timesteps: Tensor
    signal: Tensor
    noise: Tensor
    segments: int

    @classmethod
    def of(cls, schedule: Schedule, count: int, segments: int) -> "Trajectory":
        """The levels that the sampler ddim visits in `count` steps. count: a multiple of `segments`."""
        assert count % segments == 0, f"{count} steps are not a multiple of {segments} segments"
        timesteps = torch.tensor([*even_timesteps(schedule, count), 0]).flip(0)
        ab = schedule.alphas_cumprod()[timesteps]
        ab[0] = 1.0  # clean
        return cls(timesteps, ab.sqrt(), (1 - ab).sqrt(), segments)

    @property
    def count(self) -> int:
        """The number of steps."""
        return len(self.timesteps) - 1

    def timestep(self, level: Tensor) -> Tensor:
        """The timesteps `b` of levels `b`."""
        return self.timesteps.to(level.device)[level]

    def end(self, level: Tensor) -> Tensor:
        """The level `b` at the lower end of the segment of a level `b` from 1."""
        length = self.count // self.segments
        return (level - 1) // length * length

    def step(self, x0: Tensor, x: Tensor, level: Tensor, to: Tensor) -> Tensor:
        """x `b ...` at levels `b` -> at the levels `to`, by a DDIM step towards x0."""
        a, s = self._at(level, x)
        a_to, s_to = self._at(to, x)
        return a_to * x0 + s_to / s * (x - a * x0)

    def x0_of_step(self, x_to: Tensor, x: Tensor, level: Tensor, to: Tensor) -> Tensor:
        """The x0 towards which a DDIM step from x arrives at x_to: the inverse of `step`."""
        a, s = self._at(level, x)
        a_to, s_to = self._at(to, x)
        ratio = s_to / s
        return (x_to - ratio * x) / (a_to - ratio * a)

    def _at(self, level: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.ndim - 1))
        return tuple(each.to(x.device)[level].reshape(shape) for each in (self.signal, self.noise))  # pyright: ignore[reportReturnType]


def consistency_target(
    teacher: Denoise, network: Denoise, x: Tensor, level: Tensor, trajectory: Trajectory
) -> Tensor:  # b ...
    """The x0 that the network should predict for x `b ...` at levels `b` from 1.

    The teacher takes one step down. From there the network, as it is, says where the segment ends.
    """
    below, end = level - 1, trajectory.end(level)
    x_below = trajectory.step(teacher(x, trajectory.timestep(level)).x0, x, level, below)
    # At the end itself nothing is left to predict. The network still needs a valid level there.
    other = below.clamp(min=1)
    at_end = trajectory.step(network(x_below, trajectory.timestep(other)).x0, x_below, other, end)
    arrived = (below == end).reshape(-1, *[1] * (x.ndim - 1))
    return trajectory.x0_of_step(torch.where(arrived, x_below, at_end), x, level, end)
