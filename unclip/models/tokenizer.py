"""CLIP's byte-pair tokenizer."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor


class Tokenizer:
    """Tokenizes prompts for CLIP, and reports the part of a prompt that does not fit.

    context_length: tokens per prompt, start and end of text included.
    transformers_tokens: tokenize as transformers does for the published checkpoints. "!" is the pad token wherever it
    occurs, the start and end tokens may be spelled out in a prompt, and broken encodings are not repaired.
    """

    _SPECIAL = ("!", "<|startoftext|>", "<|endoftext|>")  # pad, start of text, end of text

    def __init__(self, context_length: int, transformers_tokens: bool = False):
        self.context_length = context_length
        self._bpe = SimpleTokenizer(context_length=context_length)
        self._ids = None
        if transformers_tokens:
            self._ids = dict(zip(self._SPECIAL, (0, self._bpe.sot_token_id, self._bpe.eot_token_id), strict=True))
            self._bpe.clean_fn = _normalize  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> token ids `b n`, between start and end of text, padded with 0."""
        if self._ids is None:
            return self._bpe(list(prompts))  # b n
        tokens = torch.zeros(len(prompts), self.context_length, dtype=torch.long)  # b n
        for row, prompt in zip(tokens, prompts, strict=True):
            ids = [self._bpe.sot_token_id, *self._encode(prompt)[: self.context_length - 2], self._bpe.eot_token_id]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def overflow(self, prompt: str) -> str:
        """The end of `prompt` that does not fit into the context, or an empty string."""
        return self._bpe.decode(self._encode(prompt)[self.context_length - 2 :]).strip()

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
    return SimpleTokenizer().encoder


def _normalize(text: str) -> str:
    """Normalizes text as transformers' CLIP tokenizer does: NFC, lower case, single spaces."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
