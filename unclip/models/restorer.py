"""The feed-forward upsampler: one evaluation of a small convolutional network, tile by tile.

A second upsampler gets an image whose content is settled: what is missing at four times the size is the course of the
edges. A regression finds that without noise and without steps. The residual design without norms, whose output is the
difference to the enlarged image, is EDSR's (Lim et al. 2017, arXiv:1707.02921).
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.tiles import run_in_tiles

TILE = (128, 256)
"""Height and width of the largest tile, in positions: larger images take no more memory in the network."""
MAX_WIDTH, MAX_BLOCKS = 1024, 64


@dataclass(frozen=True)
class RestorerConfig:
    """Sizes of a `Restorer`.

    channels  of its input and its output
    widths    channels at the input's size, and at half of it
    blocks    residual blocks before, at and after half the size
    """

    channels: int = 48
    widths: tuple[int, ...] = (48, 96)
    blocks: tuple[int, ...] = (1, 5, 2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON has lists
        object.__setattr__(self, "blocks", tuple(self.blocks))
        for name, count, most in (("widths", 2, MAX_WIDTH), ("blocks", 3, MAX_BLOCKS)):
            values = getattr(self, name)
            if len(values) != count or not all(type(each) is int and 1 <= each <= most for each in values):
                raise ValueError(f"{name} is {list(values)}, and should be {count} whole numbers from 1 to {most}")
        if not 1 <= self.channels <= MAX_WIDTH:
            raise ValueError(f"channels is {self.channels}, and should be from 1 to {MAX_WIDTH}")

    def to_dict(self) -> dict:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Restorer(nn.Module):
    """A convolutional network `b c h w` -> `b c h w` for even h and w. It has no norms: a tile needs no other tile."""

    def __init__(self, config: RestorerConfig):
        super().__init__()
        self.config = config
        fine, coarse = config.widths
        before, between, after = config.blocks
        self.conv_in = nn.Conv2d(config.channels, fine, 3, padding=1)
        self.head = nn.Sequential(*(ResidualBlock(fine) for _ in range(before)))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.body = nn.Sequential(*(ResidualBlock(coarse) for _ in range(between)))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.tail = nn.Sequential(*(ResidualBlock(fine) for _ in range(after)))
        self.conv_out = nn.Conv2d(fine, config.channels, 3, padding=1)
        use_batch_invariant_layers(self)

    @property
    def reach(self) -> int:
        """Positions beyond which the input has no effect on an output, rounded up to an even number."""
        before, between, after = self.config.blocks
        at_half = 2 * between + 1  # blocks have two convolutions; halving looks at a neighbour
        reach = 2 + 2 * (before + after) + 2 * at_half
        return reach + reach % 2

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` -> `b c h w`, in tiles of at most TILE when no gradient is needed."""
        if torch.is_grad_enabled():
            return self._restore(x)
        return run_in_tiles(self._restore, x, TILE, self.reach)

    def _restore(self, x: Tensor) -> Tensor:
        skip = self.head(self.conv_in(x))  # b c h w
        x = self.up(self.body(self.down(skip)))  # b 4c h/2 w/2
        return self.conv_out(self.tail(skip + F.pixel_shuffle(x, 2)))


class ResidualBlock(nn.Module):
    """Two convolutions, whose result is added to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` -> `b c h w`."""
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class FeedForwardUpsampler(nn.Module):
    """A `Restorer` as the network of a stage: it predicts x0 from the enlarged image alone, at any noise level."""

    exact = ("enlarged",)
    """Conditioning that keeps its own precision (see `Upsampler`)."""

    def __init__(self, restorer: Restorer):
        super().__init__()
        self.restorer = restorer

    @property
    def width(self) -> int:
        """Channels at the latent's height and width."""
        return self.restorer.config.widths[0]

    def forward(self, x: Tensor, t: Tensor, enlarged: Tensor) -> Tensor:
        """The enlarged image `b c h w` -> x0. The noised latent x, which is pure noise in a single step, is not used.

        t: timesteps `b`, not used.
        """
        return enlarged + self.restorer(enlarged.to(x.dtype))
