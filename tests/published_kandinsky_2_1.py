"""Checkpoints of Kandinsky 2.1's layout with random weights, saved by diffusers and transformers."""

from importlib import import_module
from pathlib import Path
from typing import Any

from diffusers import (
    DDIMScheduler,
    KandinskyInpaintPipeline,
    KandinskyPipeline,
    KandinskyPriorPipeline,
    UNet2DConditionModel,
)
from transformers import XLMRobertaTokenizer

from tests.published import randomize
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior

# Its module moves between releases; find it beside the pipeline.
_module = import_module(f"{KandinskyPipeline.__module__.rpartition('.')[0]}.text_encoder")
SIZES_2_1 = {
    "one": SIZES_2_2["one"] | {"text": 20},
    "other": SIZES_2_2["other"] | {"text": 16},
}  # width of its text states
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORDS = ("▁red", "▁cat", "▁dog", "▁a", "▁b", ",", "▁4", "k", "▁photo", "▁", "▁Крас", "ный", "▁кот", "c", "a", "b", "r")


def multilingual_clip(width: int, dim: int, heads: int = 2, layers: int = 2, **sizes: int) -> Any:
    """MultilingualCLIP: XLM-R with states of `width`, and embeddings `dim`. sizes: other than those here."""
    usual = {"vocab_size": 50, "max_position_embeddings": 80, "pad_token_id": 1}
    config = _module.MCLIPConfig(
        hidden_size=width,
        transformerDimensions=width,
        numDims=dim,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=2 * width + 3,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **(usual | sizes),
    )
    return randomize(_module.MultilingualCLIP(config), 1)


def xlm_roberta_tokenizer() -> XLMRobertaTokenizer:
    """XLM-R's tokenizer with a few words and letters."""
    words = ((word, -float(i)) for i, word in enumerate(WORDS))
    return XLMRobertaTokenizer(vocab=[*((token, 0.0) for token in SPECIAL), *words, ("<mask>", 0.0)])


def kandinsky_2_1_prior(size: dict, scratch: Path) -> KandinskyPriorPipeline:
    """A pipeline of diffusers with the structure of kandinsky-community/kandinsky-2-1-prior."""
    pipe = KandinskyPriorPipeline(**kandinsky_prior(size, scratch).components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def kandinsky_2_1_decoder(size: dict, inpaint: bool = False) -> KandinskyPipeline | KandinskyInpaintPipeline:
    """A pipeline of diffusers with the structure of kandinsky-community/kandinsky-2-1, or -inpaint."""
    other = kandinsky_decoder(size, inpaint)
    config = {
        **other.unet.config,
        "addition_embed_type": "text_image",
        "encoder_hid_dim_type": "text_image_proj",
        "encoder_hid_dim": size["text"],
        "cross_attention_dim": size["dim"],
    }
    # Latents that no scheduler clips are large with random weights; their images must not be black and white only.
    other.movq.decoder.conv_out.weight.mul_(0.05)
    scheduler = DDIMScheduler(
        beta_schedule="linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    cls = KandinskyInpaintPipeline if inpaint else KandinskyPipeline
    pipe = cls(
        text_encoder=multilingual_clip(size["text"], size["dim"]),
        tokenizer=xlm_roberta_tokenizer(),
        unet=randomize(UNet2DConditionModel.from_config(config), 2),
        scheduler=scheduler,
        movq=other.movq,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
