"""Codecs: the space in which a stage works. Pixels, or pixels rearranged into fewer positions of more channels."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from unclip.errors import CheckpointError, RequestError


class Codec(Protocol):
    """Maps images to latents and back. A mask is carried into the space of its image.

    factor: pixels along a side of one latent position.
    """

    @property
    def factor(self) -> int: ...
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
        if height % self.factor or width % self.factor:
            raise RequestError(f"size {width}x{height} does not fit: both sides must be multiples of {self.factor}")
        return 3 * self.factor**2, height // self.factor, width // self.factor

    def to_config(self) -> dict[str, Any]:
        return {"type": "pixel_unshuffle", "factor": self.factor}


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
