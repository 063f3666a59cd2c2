"""CLIP's byte-pair tokenizer."""

import copy
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from open_clip import tokenizer as library
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from unclip.models.text import Tokens, prompt_mask

PAD, START, END = "!", "<|startoftext|>", "<|endoftext|>"
"""The special tokens of the published checkpoints. Some pad with `PAD`, some with `END`."""


class Tokenizer:
    """Tokenizes prompts for CLIP, and reports the part of a prompt that does not fit.

    context_length: tokens per prompt, start and end of text included.
    transformers_tokens: tokenize as transformers does for the published checkpoints. The start, end and pad tokens may
    be spelled out in a prompt, and broken encodings are not repaired.
    pad: the pad token then, "!" or the end of text.
    """

    def __init__(self, context_length: int, transformers_tokens: bool = False, pad: str = PAD):
        self.context_length = context_length
        self._bpe = copy.copy(_clip_tokenizer())
        self._bpe.context_length = context_length
        self._ids = None
        self._pad = 0
        if transformers_tokens:
            self._ids = {START: self._bpe.sot_token_id, END: self._bpe.eot_token_id}
            self._pad = self._ids.setdefault(pad, 0)
            self._bpe.clean_fn = _normalize  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def capacity(self) -> int:
        """Tokens of a prompt that fit, without those at its start and end."""
        return self.context_length - 2

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> token ids `b n`, between start and end of text, padded."""
        return self.tokenize(prompts).ids

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """Prompts -> token ids `b n`, between start and end of text, padded, and their mask."""
        if self._ids is None:
            tokens = self._bpe(list(prompts))  # b n
            return Tokens(tokens, prompt_mask(tokens))
        tokens = torch.full((len(prompts), self.context_length), self._pad)  # b n
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        for row, own, prompt in zip(tokens, mask, prompts, strict=True):
            ids = [self._bpe.sot_token_id, *self._encode(prompt)[: self.capacity], self._bpe.eot_token_id]
            row[: len(ids)], own[: len(ids)] = torch.tensor(ids), True
        return Tokens(tokens, mask)

    def overflow(self, prompt: str) -> str:
        """The end of `prompt` that does not fit into the context, or an empty string."""
        return self._bpe.decode(self._encode(prompt)[self.capacity :]).strip()

    def _encode(self, prompt: str) -> list[int]:
        """Token ids without the start and end tokens."""
        if self._ids is None:
            return self._bpe.encode(prompt)
        parts = re.split("(" + "|".join(map(re.escape, self._ids)) + ")", prompt)
        return [i for part in parts for i in ([self._ids[part]] if part in self._ids else self._bpe.encode(part))]


def is_clip_vocabulary(vocabulary: Mapping[str, int]) -> bool:
    """Whether a vocabulary (token -> id) is CLIP's, whatever the names of its start and end tokens."""
    clip = _clip_vocabulary()
    ends = sorted(clip.values())[-2:]
    return {t: i for t, i in clip.items() if i not in ends} == {t: i for t, i in vocabulary.items() if i not in ends}


@cache
def _clip_vocabulary() -> Mapping[str, int]:
    return _clip_tokenizer().encoder


@cache
def _clip_tokenizer() -> SimpleTokenizer:
    """A tokenizer to copy. open_clip's own, if it has one: reading the 49,000 merges takes a tenth of a second."""
    own = getattr(library, "_tokenizer", None)
    return own if type(own) is SimpleTokenizer else SimpleTokenizer()


def _normalize(text: str) -> str:
    """Normalizes text as transformers' CLIP tokenizer does: NFC, lower case, single spaces."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
