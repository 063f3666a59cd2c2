"""XLM-R with a projection: the multilingual text encoder of Kandinsky 2.1's decoder.

Conneau et al. 2020, "Unsupervised Cross-lingual Representation Learning at Scale" (arXiv:1911.02116).
Carlsson et al. 2022, "Cross-lingual and Multilingual CLIP", whose projection of the mean state this is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.text import TextEncoding, Tokens


@dataclass(frozen=True)
class XlmRobertaConfig:
    """Sizes of the encoder; by default, those of Kandinsky 2.1."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    vocab_size: int = 250_002
    positions: int = 514
    token_types: int = 1
    embed_dim: int = 768
    pad: int = 1  # id of the pad token
    eps: float = 1e-5  # of the layer norms

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class XlmRobertaTextEncoder(nn.Module):
    """A bidirectional transformer with its norms after each sum, and the projection of the mean of its states."""

    def __init__(self, config: XlmRobertaConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.types = nn.Embedding(config.token_types, config.width)
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                config.mlp_width,
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=config.eps,
                batch_first=True,
            )
            for _ in range(config.layers)
        )
        self.projection = nn.Linear(config.width, config.embed_dim)
        use_batch_invariant_layers(self)

    def encode_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> TextEncoding:
        """Token ids and mask `b n` -> embeddings `b d`, states `b n w`, in float32. None: all but the pad tokens."""
        own = tokens != self.config.pad
        mask = own if mask is None else mask
        # Positions count from the id of the pad token, which is the position of padding (RoBERTa's convention).
        positions = own.cumsum(1) * own + self.config.pad
        x = self.norm(self.tokens(tokens) + self.positions(positions) + self.types.weight[0])  # b n w
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        states = x.float()
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # b w
        return TextEncoding(self.projection(mean.to(x.dtype)).float(), states, mask, tokens)


class XlmRobertaTokenizer:
    """XLM-R's tokenizer, from the tokenizer.json of a checkpoint. Prompts are cut and padded to `context_length`."""

    def __init__(self, file: Path, context_length: int = 77):
        """Raises CheckpointError for a missing or damaged file, or without the library `tokenizers`."""
        self.context_length = context_length
        self._tokenizer = _read(file)
        ids = [self._tokenizer.token_to_id(token) for token in ("<s>", "</s>", "<pad>")]
        if None in ids:
            raise CheckpointError(f"{file} is not a tokenizer of XLM-R; download the checkpoint again")
        self._start, self._end, self.pad = ids

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._tokenizer.get_vocab_size()

    @property
    def capacity(self) -> int:
        """Tokens of a prompt that fit, without those at its start and end."""
        return self.context_length - 2

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """Prompts -> token ids `b n`, between start and end of text, padded, and their mask."""
        ids = torch.full((len(prompts), self.context_length), self.pad)  # b n
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, own, prompt in zip(ids, mask, prompts, strict=True):
            found = [self._start, *self._encode(prompt).ids[: self.capacity], self._end]
            row[: len(found)], own[: len(found)] = torch.tensor(found), True
        return Tokens(ids, mask)

    def overflow(self, prompt: str) -> str:
        """The end of `prompt` that does not fit into the context, or an empty string."""
        offsets = self._encode(prompt).offsets
        return prompt[offsets[self.capacity][0] :].strip() if len(offsets) > self.capacity else ""

    def _encode(self, prompt: str) -> Any:
        return self._tokenizer.encode(prompt, add_special_tokens=False)


def _read(file: Path) -> Any:
    """The tokenizer of the library `tokenizers` in a file, which neither cuts nor pads. Raises CheckpointError."""
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing: download the checkpoint again, or save it with transformers' XLMRobertaTokenizerFast"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise CheckpointError(
            "the text encoder of Kandinsky 2.1 needs tokenizers: pip install 'unclip[kandinsky]'"
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{file} is damaged ({error}); download the checkpoint again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
