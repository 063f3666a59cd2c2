"""Autoencoders: the same numbers as diffusers', and tiles that blend."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unclip.checkpoints import offload
from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.networks import class_name
from unclip.errors import CheckpointError
from unclip.models.autoencoder import Autoencoder

G = torch.Generator().manual_seed(0)
IMAGES = torch.rand(2, 3, 32, 48, generator=G) * 2 - 1


def movq(attention: bool = True, **more: object) -> VQModel:
    """MoVQ as Kandinsky has it: an unquantised latent, which also modulates the decoder's norms."""
    down, up = (
        ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D") if attention else ("DownEncoderBlock2D", "UpDecoderBlock2D")
    )
    config: dict = {
        "down_block_types": ("DownEncoderBlock2D", down),
        "up_block_types": (up, "UpDecoderBlock2D"),
        "block_out_channels": (32, 64),
        "latent_channels": 4,
        "num_vq_embeddings": 8,
        "vq_embed_dim": 4,
        "norm_type": "spatial",
        "mid_block_add_attention": attention,
    }
    return randomized(VQModel(**{**config, **more}))


def kl(**more: object) -> AutoencoderKL:
    config: dict = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 16, 24),
        "latent_channels": 3,
        "norm_num_groups": 4,
        "layers_per_block": 2,
        "scaling_factor": 0.3,
        "shift_factor": 0.1,
    }
    return randomized(AutoencoderKL(**{**config, **more}))


def randomized(network):
    """The same weights at each call; those of norms and biases also have an effect."""
    g = torch.Generator().manual_seed(0)
    for name, parameter in network.eval().requires_grad_(False).named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=g)
        else:
            parameter.normal_(float("norm" in name and name.endswith("weight")), 0.2, generator=g)
    return network


def expected_latents(network: nn.Module, images: Tensor) -> Tensor:
    if isinstance(network, VQModel):
        return network.encode(images).latents
    return (network.encode(images).latent_dist.mode() - network.config.shift_factor) * network.config.scaling_factor


def expected_images(network: nn.Module, latents: Tensor) -> Tensor:
    if isinstance(network, VQModel):
        return network.decode(latents, force_not_quantize=True).sample
    return network.decode(latents / network.config.scaling_factor + network.config.shift_factor).sample


NETWORKS = {
    "movq": movq,
    "movq of other widths": lambda: movq(
        block_out_channels=(64, 32), latent_channels=6, vq_embed_dim=6, layers_per_block=2
    ),
    "vq": lambda: movq(norm_type="group", latent_channels=6, vq_embed_dim=5),
    "kl": kl,
    "kl without quant_conv": lambda: kl(use_quant_conv=False, use_post_quant_conv=False, latent_channels=5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_same_numbers_as_diffusers(name: str) -> None:
    network = NETWORKS[name]()
    autoencoder = Autoencoder(NETWORKS[name]())
    with torch.inference_mode():  # in which blocks work in place
        latents = autoencoder.encode(IMAGES)
        images = autoencoder.decode(latents)
    factor = 4 if name.startswith("kl") else 2
    assert autoencoder.factor == factor
    assert latents.shape == (2, autoencoder.channels, 32 // factor, 48 // factor)
    torch.testing.assert_close(latents, expected_latents(network, IMAGES), atol=1e-5, rtol=1e-4)
    assert images.std() > 0.01
    torch.testing.assert_close(images, expected_images(network, latents), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    autoencoder = Autoencoder(NETWORKS[name]())
    latents = autoencoder.encode(IMAGES)
    assert torch.equal(autoencoder.encode(IMAGES[1:]), latents[1:])
    assert torch.equal(autoencoder.decode(latents[1:]), autoencoder.decode(latents)[1:])


def test_precision_is_converted_inside() -> None:
    exact, rounded = Autoencoder(movq()), Autoencoder(movq().to(torch.bfloat16))
    latents = exact.encode(IMAGES)
    found = rounded.encode(IMAGES)
    assert found.dtype == torch.float32
    assert (found - latents).abs().mean() < 0.05 * latents.abs().mean()
    images = rounded.decode(latents)
    assert images.dtype == torch.float32
    assert (images - exact.decode(latents)).abs().mean() < 0.1 * images.abs().mean()


# ---- tiles


@pytest.mark.parametrize("size", [(32, 96), (96, 32), (72, 80), (16, 200)])
@pytest.mark.parametrize("name", ["movq", "kl"])
def test_large_images_are_processed_in_tiles_of_bounded_area(name: str, size: tuple[int, int]) -> None:
    network = NETWORKS[name]()
    seen: list[tuple[int, int]] = []
    network.encoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    images = torch.rand(1, 3, *size, generator=G)
    Autoencoder(network, tile=40).encode(images)
    assert len(seen) > 1
    assert all(height * width <= 40 * 40 for height, width in seen)
    seen.clear()
    Autoencoder(network, tile=200).encode(images)
    assert seen == [size]


def test_tiles_agree_with_the_whole() -> None:
    """A texture that repeats has the same statistics in each tile, so that only the borders of tiles could differ."""
    images = (torch.rand(1, 3, 8, 8, generator=G) * 2 - 1).repeat(1, 1, 16, 16)
    whole, tiled = Autoencoder(movq()), Autoencoder(movq(), tile=64)
    latents = whole.encode(images)
    assert (tiled.encode(images) - latents).abs().mean() < 0.1 * latents.std()
    decoded = whole.decode(latents)
    assert (tiled.decode(latents) - decoded).abs().mean() < 0.1 * decoded.std()


class Plain(nn.Module):
    """The encoder or decoder of an autoencoder that only resizes: tiles cannot differ from the whole."""

    def __init__(self, scale: float, channels: int):
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.conv_out = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        resized = nn.functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return resized.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)


@pytest.mark.parametrize("size", [(4, 100), (100, 4), (36, 36), (64, 30), (14, 12)])
def test_weights_of_tiles_add_up_to_one(size: tuple[int, int]) -> None:
    network = kl(use_quant_conv=False, use_post_quant_conv=False)
    network.encoder, network.decoder = Plain(1 / 4, 6), Plain(4, 3)
    latents = torch.rand(1, 3, *size, generator=G)
    whole, tiled = Autoencoder(network), Autoencoder(network, tile=40)
    torch.testing.assert_close(tiled.decode(latents), whole.decode(latents))
    images = torch.rand(1, 3, 4 * size[0], 4 * size[1], generator=G)
    torch.testing.assert_close(tiled.encode(images), whole.encode(images))


# ---- checkpoints


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", ["movq", "kl"])
def test_a_checkpoint_loads(name: str, low: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALL", 64)
    network = NETWORKS[name]()
    network.save_pretrained(tmp_path / "vae")
    store = offload.OffloadStore() if low else None
    loader = ComponentLoader(tmp_path, torch.device("cpu"), torch.float32, store)
    found = loader.load_network("vae", type(network))
    assert class_name(found) == type(network).__name__
    autoencoder = Autoencoder(found)
    assert any(parameter.is_meta for parameter in found.parameters()) == low
    latents = autoencoder.encode(IMAGES)
    torch.testing.assert_close(latents, expected_latents(network, IMAGES), atol=1e-5, rtol=1e-4)
    if store is not None:
        store.free()
    torch.testing.assert_close(autoencoder.decode(latents), expected_images(network, latents), atol=1e-5, rtol=1e-4)


def test_the_attention_of_old_checkpoints_loads(tmp_path: Path) -> None:
    network = kl()
    network.save_pretrained(tmp_path / "vae")
    [file] = (tmp_path / "vae").glob("*.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(file).items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        renamed[name] = tensor
    assert sum("proj_attn" in name for name in renamed) == 4
    save_file(renamed, file)
    found = ComponentLoader(tmp_path, torch.device("cpu"), torch.float32).load_network("vae", AutoencoderKL)
    torch.testing.assert_close(
        Autoencoder(found).encode(IMAGES), expected_latents(network, IMAGES), atol=1e-5, rtol=1e-4
    )


def test_other_kinds_are_refused() -> None:
    with pytest.raises(CheckpointError, match="VQModel of unquantised RGB"):
        Autoencoder(movq(lookup_from_codebook=True))
    with pytest.raises(CheckpointError, match="AutoencoderKL of unquantised RGB"):
        Autoencoder(kl(in_channels=4))
