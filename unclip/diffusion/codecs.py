"""Codecs: the space in which a stage works: pixels, pixels rearranged, or the latents of an autoencoder."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.errors import CheckpointError, RequestError


class Codec(Protocol):
    """Maps images to latents and back. A mask is carried into the space of its image."""

    @property
    def factor(self) -> int: ...  # pixels per latent position and side
    def encode(self, image: Tensor) -> Tensor: ...  # b 3 H W -> b c h w
    def decode(self, latent: Tensor) -> Tensor: ...  # b c h w -> b 3 H W
    def encode_mask(self, mask: Tensor) -> Tensor: ...  # b 1 H W -> b c h w, or broadcastable to it
    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]: ...  # c, h, w of an RGB image
    def to_config(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Identity:
    """No change: pixels, or embeddings `b d`."""

    @property
    def factor(self) -> int:
        return 1

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, latent: Tensor) -> Tensor:
        return latent

    def encode_mask(self, mask: Tensor) -> Tensor:
        return mask

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width

    def to_config(self) -> dict[str, Any]:
        return {"type": "identity"}


@dataclass(frozen=True)
class PixelUnshuffle:
    """Space to depth: factor x factor pixels become one position with factor^2 times the channels. Lossless."""

    factor: int

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int) or isinstance(self.factor, bool) or self.factor < 1:
            raise CheckpointError(f"the codec's factor is {self.factor!r:.40}; it must be a whole number from 1 up")

    def encode(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(image, self.factor)  # b 3 (h p) (w p) -> b (3 p p) h w

    def decode(self, latent: Tensor) -> Tensor:
        return F.pixel_shuffle(latent, self.factor)  # b (3 p p) h w -> b 3 (h p) (w p)

    def encode_mask(self, mask: Tensor) -> Tensor:
        # all channels of a pixel have its mask
        return self.encode(mask.expand(-1, 3, -1, -1))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        check_multiple(height, width, self.factor)
        return 3 * self.factor**2, height // self.factor, width // self.factor

    def to_config(self) -> dict[str, Any]:
        return {"type": "pixel_unshuffle", "factor": self.factor}


@dataclass(frozen=True)
class Latents:
    """The latents of an autoencoder.

    autoencoder: a module with `encode` and `decode` in float32, `factor` and `channels`, such as `models.Autoencoder`.
    multiple: of an image's sides in pixels; the denoiser may need larger ones than the autoencoder.
    shrinks_known: masks are shrunk as Kandinsky's inpainting networks were trained with (see `shrink_known`).
    """

    autoencoder: Any
    multiple: int
    shrinks_known: bool = False

    @property
    def factor(self) -> int:
        return self.autoencoder.factor

    def encode(self, image: Tensor) -> Tensor:
        return self.autoencoder.encode(image)  # b 3 H W -> b c h w

    def decode(self, latent: Tensor) -> Tensor:
        return self.autoencoder.decode(latent)  # b c h w -> b 3 H W

    def encode_mask(self, mask: Tensor) -> Tensor:
        # A position is as known as the least known pixel in it: no pixel to generate is held to the image.
        mask = -F.max_pool2d(-mask, self.factor)  # b 1 H W -> b 1 h w
        return shrink_known(mask) if self.shrinks_known else mask

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        check_multiple(height, width, self.multiple)
        return self.autoencoder.channels, height // self.factor, width // self.factor

    def to_config(self) -> dict[str, Any]:
        # The autoencoder is a component of its own, so a name alone does not make this codec again.
        return {"type": "latents", "multiple": self.multiple, "shrinks_known": self.shrinks_known}


def shrink_known(known: Tensor) -> Tensor:
    """A mask `b 1 h w` (1 = known) in which a position next to an unknown one is unknown.

    Neighbours are those above, below, left, right, above left and below right. Kandinsky's training leaves out the two
    other diagonals.
    """
    unknown = F.pad(1 - known, (1, 1, 1, 1))
    height, width = known.shape[-2:]
    shifts = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]  # (row, column) in the padded mask
    near = [unknown[..., y : y + height, x : x + width] for y, x in shifts]
    return 1 - torch.stack(near).amax(0)


def check_multiple(height: int, width: int, multiple: int) -> None:
    """Raise RequestError unless both sides in pixels are multiples of `multiple`."""
    if height % multiple or width % multiple:
        raise RequestError(f"size {width}x{height} does not fit: both sides must be multiples of {multiple}")


CODECS = {"identity": Identity, "pixel_unshuffle": PixelUnshuffle}


def codec_from_config(config: str | dict[str, Any]) -> Codec:
    """A codec from its name, or from the dict of `to_config`.

    Raises CheckpointError for an unknown type or wrong options.
    """
    options = {"type": config} if isinstance(config, str) else dict(config)
    kind = options.pop("type", None)
    if kind not in CODECS:
        raise CheckpointError(f"unknown codec {kind!r}: choose one of {', '.join(CODECS)}")
    try:
        return CODECS[kind](**options)
    except TypeError as error:
        raise CheckpointError(f"codec {kind!r} cannot take {options}: {error}") from error
