import pytest
import torch

from unclip.diffusion.codecs import Identity, PixelUnshuffle, codec_from_config
from unclip.errors import CheckpointError, RequestError

IMAGE = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
CODECS = [Identity(), PixelUnshuffle(2), PixelUnshuffle(4)]


@pytest.mark.parametrize("space", CODECS)
def test_nothing_is_lost(space: Identity | PixelUnshuffle) -> None:
    latent = space.encode(IMAGE)
    assert latent.shape[1:] == space.latent_shape(8, 12)
    assert torch.equal(space.decode(latent), IMAGE)


@pytest.mark.parametrize("space", CODECS)
def test_a_mask_picks_the_same_pixels_in_either_space(space: Identity | PixelUnshuffle) -> None:
    mask = (torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    assert torch.equal(space.decode(space.encode(IMAGE) * space.encode_mask(mask)), IMAGE * mask)


def test_a_patch_becomes_one_position() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[:, :, 4:8, 0:4] = 1
    latent = PixelUnshuffle(4).encode(image)
    assert torch.equal(latent[0, :, 1, 0], torch.ones(48))
    assert latent.sum() == 48


@pytest.mark.parametrize("space", CODECS)
def test_config_round_trip(space: Identity | PixelUnshuffle) -> None:
    assert codec_from_config(space.to_config()) == space


def test_a_bare_name_will_do() -> None:
    assert codec_from_config("identity") == Identity()


@pytest.mark.parametrize("config", ["jpeg", {}, {"type": "pixel_unshuffle"}, {"type": "identity", "factor": 2}])
def test_what_cannot_be_built_is_refused(config: str | dict) -> None:
    with pytest.raises(CheckpointError, match="codec"):
        codec_from_config(config)


def test_a_size_that_does_not_fit_names_the_multiple() -> None:
    with pytest.raises(RequestError, match="multiples of 4"):
        PixelUnshuffle(4).latent_shape(64, 66)
