"""Kandinsky's projections of image and text embeddings, computed once per image instead of at each denoising step."""

from typing import TypeVar

from diffusers.models.embeddings import (
    ImageProjection,
    ImageTimeEmbedding,
    TextImageProjection,
    TextImageTimeEmbedding,
)
from torch import Tensor, nn

from unclip.models.last_result import LastResult

Network = TypeVar("Network", bound=nn.Module)


def project_once(unet: Network) -> Network:
    """Let the projections of embeddings in `unet` keep their last result when sampling; returns `unet`.

    The attention layers then get the same tokens at each step, and reuse their keys and values (see `TextAttention`).
    """
    for module in unet.modules():
        if (kind := _KINDS.get(type(module))) is not None:
            module.__class__ = kind
            module.last = LastResult()  # pyright: ignore[reportArgumentType]
    return unet


class _Once:
    """Keeps the last result of the projection that a class inherits besides this one."""

    last: LastResult

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the projection: embeddings `b d`, or `b n d` of text -> tokens `b m c`, or time embeddings `b t`."""
        return self.last.of(super().forward, *inputs)  # pyright: ignore[reportAttributeAccessIssue]


class ImageProjectionOnce(_Once, ImageProjection):
    """Tokens of Kandinsky 2.2: of the image."""


class TextImageProjectionOnce(_Once, TextImageProjection):
    """Tokens of Kandinsky 2.1: of the image, then of the text."""


class ImageTimeEmbeddingOnce(_Once, ImageTimeEmbedding):
    """The addend of the time embedding in Kandinsky 2.2."""


class TextImageTimeEmbeddingOnce(_Once, TextImageTimeEmbedding):
    """The addend of the time embedding in Kandinsky 2.1."""


_KINDS: dict[type, type] = {
    ImageProjection: ImageProjectionOnce,
    TextImageProjection: TextImageProjectionOnce,
    ImageTimeEmbedding: ImageTimeEmbeddingOnce,
    TextImageTimeEmbedding: TextImageTimeEmbeddingOnce,
}
