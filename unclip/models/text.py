"""The output of a text encoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TextEncoding(NamedTuple):
    """What the text tower says of a batch of prompts."""

    embed: Tensor  # b d
    states: Tensor  # b n d, the last hidden states
    mask: Tensor  # b n bool, True for the prompt's own tokens
    tokens: Tensor  # b n int64, the ids that the tokenizer gave

    def rows(self, indices: Sequence[int]) -> "TextEncoding":
        """The encodings of some rows, in the order of `indices`."""
        return TextEncoding(*(part[list(indices)] for part in self))

    def repeat(self, k: int) -> "TextEncoding":
        """Each row k times, the copies next to each other."""
        return TextEncoding(*(part.repeat_interleave(k, dim=0) for part in self))


def unread(tokens: Tensor) -> TextEncoding:
    """Tokens `b n` without what CLIP says of them, for a decoder that reads with a text encoder of its own."""
    nothing = torch.empty(len(tokens), 0, device=tokens.device)
    return TextEncoding(nothing, nothing, own_tokens(tokens), tokens)


def own_tokens(tokens: Tensor) -> Tensor:
    """Tokens `b n` -> mask `b n`, True up to the end-of-text token, which has the largest id."""
    last = tokens.flip(-1).argmax(dim=-1, keepdim=True)  # b 1, from the right: a prompt may spell the token out
    return torch.arange(tokens.shape[1], device=tokens.device) < tokens.shape[1] - last
