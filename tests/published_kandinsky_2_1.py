"""The text encoder of Kandinsky 2.1's layout with random weights, saved by diffusers and transformers."""

from importlib import import_module
from typing import Any

from diffusers import KandinskyPipeline
from transformers import XLMRobertaTokenizer

from tests.published import randomize

# Its module moves between releases; find it beside the pipeline.
_module = import_module(f"{KandinskyPipeline.__module__.rpartition('.')[0]}.text_encoder")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORDS = ("▁red", "▁cat", "▁dog", "▁a", "▁b", ",", "▁4", "k", "▁photo", "▁", "▁Крас", "ный", "▁кот", "c", "a", "b", "r")


def multilingual_clip(width: int, dim: int, heads: int = 2, layers: int = 2) -> Any:
    """MultilingualCLIP: XLM-R with states of `width`, and embeddings `dim`."""
    config = _module.MCLIPConfig(
        hidden_size=width,
        transformerDimensions=width,
        numDims=dim,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=2 * width + 3,
        vocab_size=50,
        max_position_embeddings=80,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    return randomize(_module.MultilingualCLIP(config), 1)


def xlm_roberta_tokenizer() -> XLMRobertaTokenizer:
    """XLM-R's tokenizer with a few words and letters."""
    words = ((word, -float(i)) for i, word in enumerate(WORDS))
    return XLMRobertaTokenizer(vocab=[*((token, 0.0) for token in SPECIAL), *words, ("<mask>", 0.0)])
