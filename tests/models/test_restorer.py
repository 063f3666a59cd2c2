"""The feed-forward upsampler: seamless tiles, its receptive field, and its sizes."""

import pytest
import torch

from tests.tiny import RESTORER, tiny_network
from unclip.checkpoints.networks import new_network
from unclip.errors import CheckpointError
from unclip.models import restorer as restorer_module
from unclip.models.restorer import FeedForwardUpsampler, Restorer, RestorerConfig


@pytest.fixture(scope="module")
def network() -> Restorer:
    return tiny_network("Restorer", RESTORER)


@pytest.mark.parametrize("size", [(300, 40), (20, 300), (140, 270)])
def test_tiles_equal_the_whole(network: Restorer, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 48, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tiled = network(x)
        monkeypatch.setattr(restorer_module, "TILE", (1000, 1000))
        whole = network(x)
    assert (tiled - whole).abs().max() < 1e-4 * whole.abs().max()


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 3, 1)])
def test_no_input_has_an_effect_beyond_the_reach(blocks: tuple[int, ...]) -> None:
    network = tiny_network("Restorer", {**RESTORER, "blocks": blocks})
    middle = 50
    for place in (middle, middle + 1):  # the two places in a cell of half the size
        x = torch.zeros(1, 48, 2 * middle, 6, requires_grad=True)
        network(x)[0, :, place].sum().backward()
        assert x.grad is not None
        rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
        assert max(place - int(rows.min()), int(rows.max()) - place) <= network.reach


def test_the_noise_and_the_timestep_have_no_effect(network: Restorer) -> None:
    upsampler, generator = FeedForwardUpsampler(network), torch.Generator().manual_seed(0)
    enlarged, *noises = (torch.randn(2, 48, 8, 8, generator=generator) for _ in range(3))
    with torch.inference_mode():
        first, second = (upsampler(x, torch.tensor([t, t]), enlarged) for x, t in zip(noises, (999, 0), strict=True))
    assert torch.equal(first, second) and not torch.equal(first, enlarged)


@pytest.mark.parametrize(
    "change", [{"widths": [8]}, {"widths": [8, 0]}, {"blocks": [1, 1]}, {"blocks": [1, 1, 1.5]}, {"channels": 0}]
)
def test_sizes_that_are_none_are_refused(change: dict) -> None:
    with pytest.raises(CheckpointError, match=f"{next(iter(change))} is "):
        new_network("Restorer", {**RESTORER, **change})


def test_a_config_survives_json() -> None:
    config = RestorerConfig(48, (8, 16), (1, 2, 3))
    assert RestorerConfig(**config.to_dict()) == config and config.to_dict()["blocks"] == [1, 2, 3]
