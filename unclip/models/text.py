"""Text encodings, the protocols of a text encoder and its tokenizer, and the mask of a prompt's tokens."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class TextEncoding(NamedTuple):
    """A text encoder's output for a batch of prompts.

    embed: pooled embeddings `b d`. states: last hidden states `b n d`. mask: `b n` bool, True for the prompt's own
    tokens and False for padding. tokens: `b n` int64, the token ids. decoder: the same prompts as the decoder's own
    encoder encodes them, for families whose prior and decoder have different ones.
    """

    embed: Tensor
    states: Tensor
    mask: Tensor
    tokens: Tensor
    decoder: "TextEncoding | None" = None

    @property
    def for_decoder(self) -> "TextEncoding":
        """The encoding that conditions the decoder."""
        return self if self.decoder is None else self.decoder

    @property
    def is_empty(self) -> Tensor:
        """`b` bool: whether a prompt has no tokens of its own, only the start and the end of text."""
        return self.mask.sum(dim=1) <= 2

    def rows(self, indices: Sequence[int]) -> "TextEncoding":
        """The encodings of some rows, in the order of `indices`."""
        return self._map(lambda part: part[list(indices)])

    def append(self, other: "TextEncoding") -> "TextEncoding":
        """These rows, then those of another encoding."""
        embed, states, mask, tokens = (torch.cat(parts) for parts in zip(self[:4], other[:4], strict=True))
        decoder = None
        if self.decoder is not None and other.decoder is not None:
            decoder = self.decoder.append(other.decoder)
        return TextEncoding(embed, states, mask, tokens, decoder)

    def repeat(self, k: int) -> "TextEncoding":
        """Each row k times, the copies next to each other: `b ...` -> `(b k) ...`."""
        return self._map(lambda part: part.repeat_interleave(k, dim=0))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "TextEncoding":
        embed, states, mask, tokens = map(change, (self.embed, self.states, self.mask, self.tokens))
        return TextEncoding(embed, states, mask, tokens, None if self.decoder is None else self.decoder._map(change))


class Tokens(NamedTuple):
    """Tokenized prompts. ids: `b n` int64. mask: `b n` bool, True for a prompt's own tokens and False for padding."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(self.ids.to(device), self.mask.to(device))


class PromptTokenizer(Protocol):
    """Turns prompts into the tokens of a text encoder."""

    @property
    def capacity(self) -> int:
        """Tokens of a prompt that fit, without those at its start and end."""
        ...

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """Prompts -> token ids and mask `b n`."""
        ...

    def overflow(self, prompt: str) -> str:
        """The end of `prompt` that does not fit into the context, or an empty string."""
        ...


class TextEncoder(Protocol):
    """Anything that encodes tokens: CLIP (`Clip`), or a decoder's own encoder (`TransformerTextEncoder`)."""

    def encode_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> TextEncoding:
        """Token ids and mask `b n` -> embeddings `b d`, states `b n d`. None: the mask ends at the end of the text."""
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
