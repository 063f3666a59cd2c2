"""Autoencoders of latent diffusion: MoVQ (Kandinsky) and AutoencoderKL (Stable Diffusion), in bounded memory.

Zheng et al. 2022, "MoVQ: Modulating Quantized Vectors for High-Fidelity Image Generation" (arXiv:2209.09002).
Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752).
"""

import math
from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.models.config import diffusers_config
from unclip.models.cpu.resnet import use_in_place_blocks

TILE = 1024
"""Side in pixels of the largest square that is processed whole. A published MoVQ or AutoencoderKL needs about 3 GiB for
it in float32, 1.5 GiB in bfloat16."""
OVERLAP = 0.25
"""Least overlap of neighbouring tiles, as a fraction of a tile."""


class Autoencoder(nn.Module):
    """Images to latents and back, image by image, so that an image does not depend on its batch.

    An image of more than `tile * tile` pixels is processed in overlapping tiles, whose results are blended linearly; a
    smaller one as diffusers processes it. Inputs may have any precision; outputs are float32.
    """

    def __init__(self, network: VQModel | AutoencoderKL, tile: int = TILE):
        """tile: side in pixels of the largest square to process whole. Raises CheckpointError for an unknown kind."""
        super().__init__()
        use_in_place_blocks(network)
        self.network = network
        config = diffusers_config(network)
        if (config.in_channels, config.out_channels) != (3, 3) or config.get("lookup_from_codebook"):
            raise CheckpointError(f"only a {type(network).__name__} of unquantised RGB images is supported")
        self.factor = 2 ** (len(config.block_out_channels) - 1)  # pixels per latent position and side
        self.channels = int(config.latent_channels)
        self._scale, self._shift = 1.0, 0.0
        if isinstance(network, VQModel):  # the config has a scaling_factor that Kandinsky does not use
            self.channels = int(config.latent_channels if config.vq_embed_dim is None else config.vq_embed_dim)
        else:
            self._scale = float(config.scaling_factor)
            self._shift = 0.0 if config.shift_factor is None else float(config.shift_factor)
        self._area = max(1, tile // self.factor) ** 2  # latent positions

    def encode(self, images: Tensor) -> Tensor:
        """Images `b 3 H W` in [-1, 1], with sides that are multiples of `factor` -> latents `b c h w`.

        The latents of an AutoencoderKL are the mean of its distribution, scaled to unit variance.
        """
        assert not any(side % self.factor for side in images.shape[-2:]), f"{tuple(images.shape)} does not fit"
        sizes = (self.channels, self.factor, 1)
        return torch.cat([self._in_tiles(image, self._encode, *sizes) for image in images.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `b c h w` -> images `b 3 H W`, which may leave [-1, 1] a little."""
        return torch.cat([self._in_tiles(latent, self._decode, 3, 1, self.factor) for latent in latents.split(1)])

    def _encode(self, images: Tensor) -> Tensor:
        if isinstance(self.network, VQModel):
            return self.network.encode(images).latents.float()  # pyright: ignore[reportAttributeAccessIssue]
        latents = self.network.encode(images).latent_dist.mode()  # pyright: ignore[reportAttributeAccessIssue]
        return (latents.float() - self._shift) * self._scale

    def _decode(self, latents: Tensor) -> Tensor:
        if isinstance(self.network, VQModel):
            decoded = self.network.decode(latents, force_not_quantize=True)
        else:
            decoded = self.network.decode(latents / self._scale + self._shift)  # pyright: ignore[reportArgumentType]
        return decoded.sample.float()  # pyright: ignore[reportAttributeAccessIssue]

    def _placed(self, x: Tensor) -> Tensor:
        """x on the network's device and in its precision. Small tensors stay in memory when a network is offloaded."""
        like = self.network.decoder.conv_out.bias
        assert like is not None
        return x.to(like.device, like.dtype, memory_format=torch.channels_last)

    def _in_tiles(self, x: Tensor, run: Callable[[Tensor], Tensor], channels: int, before: int, after: int) -> Tensor:
        """run(x) for `1 c H W`, tile by tile. channels: of run(x).

        before, after: values per latent position and side of x and of run(x).
        """
        x = self._placed(x)
        height, width = (side // before for side in x.shape[-2:])
        if height * width <= self._area:
            return run(x)
        # The longer side gets what the shorter one leaves of the area.
        short = min(height, width, math.isqrt(self._area))
        long = min(max(height, width), self._area // short)
        tile_height, tile_width = (short, long) if height <= width else (long, short)
        result = torch.zeros(1, channels, height * after, width * after, device=x.device)
        for top, row_weights in _spans(height, tile_height, after):
            for left, column_weights in _spans(width, tile_width, after):
                rows, columns = slice(top, top + tile_height), slice(left, left + tile_width)
                tile = run(x[..., _scaled(rows, before), _scaled(columns, before)])
                weights = (row_weights[:, None] * column_weights).to(tile)
                result[..., _scaled(rows, after), _scaled(columns, after)] += tile * weights
        return result


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def _spans(size: int, tile: int, scale: int) -> list[tuple[int, Tensor]]:
    """The starts of evenly spaced tiles of an axis, and the weights `tile * scale` of each.

    scale: values per position. The weights of all tiles add up to 1 at each value, and fall linearly towards a
    neighbour.
    """
    overlap = math.ceil(tile * OVERLAP) if tile > 1 else 0
    count = 1 + math.ceil((size - tile) / (tile - overlap))
    starts = [round(i * (size - tile) / max(1, count - 1)) for i in range(count)]
    slope = ((torch.arange(tile * scale) + 0.5) / max(1, overlap * scale)).clamp(max=1)
    weights = [
        (1 if start == 0 else slope) * (1 if start == size - tile else slope.flip(0)) * torch.ones_like(slope)
        for start in starts
    ]
    total = torch.zeros(size * scale)
    for start, weight in zip(starts, weights, strict=True):
        total[start * scale : (start + tile) * scale] += weight
    return [
        (start, weight / total[start * scale : (start + tile) * scale])
        for start, weight in zip(starts, weights, strict=True)
    ]
