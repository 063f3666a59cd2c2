"""Text encodings, the protocol of a text encoder, and the mask of a prompt's tokens."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class TextEncoding(NamedTuple):
    """A text encoder's output for a batch of prompts.

    embed: pooled embeddings `b d`. states: last hidden states `b n d`. mask: `b n` bool, True for the prompt's own
    tokens and False for padding. tokens: `b n` int64, the token ids.
    """

    embed: Tensor
    states: Tensor
    mask: Tensor
    tokens: Tensor

    @property
    def is_empty(self) -> Tensor:
        """`b` bool: whether a prompt has no tokens of its own, only the start and the end of text."""
        return self.mask.sum(dim=1) <= 2

    def rows(self, indices: Sequence[int]) -> "TextEncoding":
        """The encodings of some rows, in the order of `indices`."""
        return TextEncoding(*(part[list(indices)] for part in self))

    def append(self, other: "TextEncoding") -> "TextEncoding":
        """These rows, then those of another encoding."""
        return TextEncoding(*(torch.cat(parts) for parts in zip(self, other, strict=True)))

    def repeat(self, k: int) -> "TextEncoding":
        """Each row k times, the copies next to each other: `b ...` -> `(b k) ...`."""
        return TextEncoding(*(part.repeat_interleave(k, dim=0) for part in self))


class TextEncoder(Protocol):
    """Anything that encodes tokens: CLIP (`Clip`), or a decoder's own encoder (`TransformerTextEncoder`)."""

    def encode_tokens(self, tokens: Tensor) -> TextEncoding:
        """Token ids `b n` -> embeddings `b d`, states `b n d`, mask `b n`."""
        ...


def tokens_only(tokens: Tensor) -> TextEncoding:
    """An encoding of tokens `b n` without embedding and states, for a decoder that has its own text encoder."""
    nothing = torch.empty(len(tokens), 0, device=tokens.device)
    return TextEncoding(nothing, nothing, prompt_mask(tokens), tokens)


def prompt_mask(tokens: Tensor) -> Tensor:
    """Tokens `b n` -> mask `b n`, True up to and including the end-of-text token, which has the largest id."""
    # Searched from the right: a prompt may spell out the end-of-text token.
    from_right = tokens.flip(-1).argmax(dim=-1, keepdim=True)  # b 1
    return torch.arange(tokens.shape[1], device=tokens.device) < tokens.shape[1] - from_right
