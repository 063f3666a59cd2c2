import pytest
import torch
import torch.nn.functional as F

from unclip.diffusion.codecs import Identity, Latents, PixelUnshuffle, codec_from_config, shrink_known
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


# ---- the latents of an autoencoder


class Mean:
    """An autoencoder of 4x4 pixels a position, in two channels."""

    factor, channels = 4, 2

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(images, 4)[:, :2]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return F.interpolate(latents[:, [0, 1, 1]], scale_factor=4)


def test_latents_pass_through_the_autoencoder() -> None:
    codec = Latents(Mean(), multiple=8)
    assert codec.factor == 4
    assert codec.latent_shape(8, 16) == (2, 2, 4)
    latents = codec.encode(torch.rand(1, 3, 8, 16))
    assert latents.shape == (1, 2, 2, 4)
    assert codec.decode(latents).shape == (1, 3, 8, 16)
    torch.testing.assert_close(codec.encode(codec.decode(latents)), latents)


@pytest.mark.parametrize("size", [(8, 12), (12, 8), (6, 6)])
def test_sides_are_multiples_of_what_the_denoiser_needs(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="multiples of 8"):
        Latents(Mean(), multiple=8).latent_shape(*size)


def test_a_position_is_as_known_as_its_least_known_pixel() -> None:
    mask = torch.ones(1, 1, 8, 12)
    mask[..., 0, 0] = 0  # one pixel to generate in the first position
    mask[..., 0:4, 4:8] = 0.5  # a soft second
    mask[..., 2, 5] = 0.25
    mask[..., 7, 11] = 0.75
    known = Latents(Mean(), multiple=4).encode_mask(mask)
    assert known.tolist() == [[[[0, 0.25, 1], [1, 1, 0.75]]]]


def test_a_shrunk_mask_is_unknown_beside_unknown_positions_but_for_two_diagonals() -> None:
    known = torch.ones(1, 1, 5, 5)
    known[..., 2, 2] = 0
    expected = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 1, 1], [1, 0, 0, 0, 1], [1, 1, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert torch.equal(shrink_known(known)[0, 0], expected.float())
    assert torch.equal(shrink_known(torch.ones(2, 1, 4, 6)), torch.ones(2, 1, 4, 6))
