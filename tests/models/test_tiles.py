"""A network run in tiles returns what it returns on the whole, and sees no more than a tile and its margin."""

import pytest
import torch
from torch import Tensor, nn

from unclip.models.tiles import run_in_tiles


@pytest.mark.parametrize("size", [(8, 8), (20, 8), (21, 33), (40, 7)])
def test_tiles_equal_the_whole(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    x, seen = torch.randn(2, 3, *size), []

    def watched(part: Tensor) -> Tensor:
        seen.append(part.shape)
        return network(part)

    with torch.inference_mode():
        tiled = run_in_tiles(watched, x, (8, 16), margin=2)
        torch.testing.assert_close(tiled, network(x), atol=1e-6, rtol=0)
    assert all(height <= 8 + 4 and width <= 16 + 4 for _, _, height, width in seen)
    assert len(seen) == -(-size[0] // 8) * -(-size[1] // 16)


def test_a_margin_that_is_too_small_shows_at_the_tiles_edges() -> None:
    x = torch.arange(16.0).view(1, 1, 16, 1)
    blur = nn.AvgPool2d((3, 1), stride=1, padding=(1, 0))
    assert torch.equal(run_in_tiles(blur, x, (8, 8), margin=2), blur(x))
    assert not torch.equal(run_in_tiles(blur, x, (8, 8), margin=0), blur(x))
