"""CLIP: the two towers of open_clip, and the text and image embeddings that everything else is conditioned on.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the two towers. The text width equals the embedding's, as the prior's layout asks (768 in Karlo).

    Published checkpoints differ in more than size: what they need is in the fields from `normalize` on.
    """

    embed_dim: int = 160
    image_size: int = 64
    patch_size: int = 8
    vision_width: int = 192
    vision_layers: int = 6  # 0: a text tower alone
    vision_heads: int = 6
    context_length: int = 32
    vocab_size: int = 49408
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    quick_gelu: bool = False
    normalize: bool = True  # embeddings of length sqrt(embed_dim); the published checkpoints leave them as they are
    text_mlp_ratio: float = 4.0
    vision_mlp_ratio: float = 4.0
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of pixels in [0, 1], taken off before the image tower
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    center_crop: bool = False  # of pictures that are not square: the middle, instead of squeezing them
    transformers_tokens: bool = False  # "!" is the pad token, and text is cleaned as transformers' tokenizer does it

    def __post_init__(self) -> None:
        for name in ("pixel_mean", "pixel_std"):  # lists, where they come from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def to_dict(self) -> dict:
        return asdict(self)


class TextEncoding(NamedTuple):
    """What the text tower says of a batch of prompts."""

    embed: Tensor  # b d
    states: Tensor  # b n d, the last hidden states
    mask: Tensor  # b n bool, True for the prompt's own tokens
    tokens: Tensor  # b n int64, the ids that the tokenizer gave


def unread(tokens: Tensor) -> TextEncoding:
    """Tokens `b n` without what CLIP says of them, for a decoder that reads with a text encoder of its own."""
    nothing = torch.empty(len(tokens), 0, device=tokens.device)
    return TextEncoding(nothing, nothing, own_tokens(tokens), tokens)


def own_tokens(tokens: Tensor) -> Tensor:
    """Tokens `b n` -> mask `b n`, True up to the end-of-text token, which has the largest id."""
    last = tokens.flip(-1).argmax(dim=-1, keepdim=True)  # b 1, from the right: a prompt may spell the token out
    return torch.arange(tokens.shape[1], device=tokens.device) < tokens.shape[1] - last


class Clip(nn.Module):
    """An open_clip model: its parameters carry the names of `open_clip.CustomTextCLIP`."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        act_layer = QuickGELU if config.quick_gelu else nn.GELU
        self.visual = None
        if config.vision_layers:
            self.visual = VisionTransformer(
                image_size=config.image_size,
                patch_size=config.patch_size,
                width=config.vision_width,
                layers=config.vision_layers,
                heads=config.vision_heads,
                mlp_ratio=config.vision_mlp_ratio,
                output_dim=config.embed_dim,
                act_layer=act_layer,
            )
        self.text = TextTransformer(
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            width=config.text_width,
            layers=config.text_layers,
            heads=config.text_heads,
            mlp_ratio=config.text_mlp_ratio,
            output_dim=config.embed_dim,
            output_tokens=True,
            act_layer=act_layer,
        )
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def encode_tokens(self, tokens: Tensor) -> TextEncoding:
        """Tokens `b n` -> embedding `b d`, states `b n d`, mask `b n` (up to the end-of-text token, the largest id)."""
        embed, states = self.text(tokens)
        return TextEncoding(self._scaled(embed), states, own_tokens(tokens), tokens)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images `b 3 h w` in [-1, 1] -> embedding `b d`; any size, resized to the tower's own."""
        size = self.config.image_size
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        if (self.config.pixel_mean, self.config.pixel_std) != (ClipConfig.pixel_mean, ClipConfig.pixel_std):
            mean, std = (images.new_tensor(v)[:, None, None] for v in (self.config.pixel_mean, self.config.pixel_std))
            images = ((images + 1) / 2 - mean) / std
        return self._scaled(self.visual(images.to(self.visual.conv1.weight.dtype)))

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images and tokens -> image and text embeddings `b d`, and the scale of their similarities: for training."""
        return self.encode_image(images), self.encode_tokens(tokens).embed, self.logit_scale

    def _scaled(self, embed: Tensor) -> Tensor:
        # Length sqrt(d) gives each dimension unit variance on average, which the networks downstream expect.
        return F.normalize(embed, dim=-1) * embed.shape[-1] ** 0.5 if self.config.normalize else embed


class Tokenizer:
    """CLIP's own byte-pair tokenizer, with what it had to cut off said instead of dropped silently.

    transformers_tokens: as transformers' tokenizer does it for the published checkpoints. A "!" becomes the pad token
    wherever it stands, the two ends of a text may be spelled out in a prompt, and broken encodings are not repaired.
    """

    _SPECIAL = ("!", "<|startoftext|>", "<|endoftext|>")  # the pad token, and the two ends

    def __init__(self, context_length: int, transformers_tokens: bool = False):
        self.context_length = context_length
        self._bpe = SimpleTokenizer(context_length=context_length)
        self._ids = None
        if transformers_tokens:
            self._ids = dict(zip(self._SPECIAL, (0, self._bpe.sot_token_id, self._bpe.eot_token_id), strict=True))
            self._bpe.clean_fn = _plain_text

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> token ids `b n`, between start and end of text, padded with 0."""
        if self._ids is None:
            return self._bpe(list(prompts))  # b n
        tokens = torch.zeros(len(prompts), self.context_length, dtype=torch.long)  # b n
        for row, prompt in zip(tokens, prompts, strict=True):
            ids = [self._bpe.sot_token_id, *self._encode(prompt)[: self.context_length - 2], self._bpe.eot_token_id]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def cut(self, prompt: str) -> str:
        """The end of `prompt` that does not fit, or an empty string."""
        return self._bpe.decode(self._encode(prompt)[self.context_length - 2 :]).strip()

    def _encode(self, prompt: str) -> list[int]:
        """Token ids without the two ends."""
        if self._ids is None:
            return self._bpe.encode(prompt)
        parts = re.split("(" + "|".join(map(re.escape, self._ids)) + ")", prompt)
        return [i for part in parts for i in ([self._ids[part]] if part in self._ids else self._bpe.encode(part))]


def is_clip_vocabulary(vocabulary: Mapping[str, int]) -> bool:
    """Whether a tokenizer's vocabulary (token -> id) is CLIP's, but for how the two ends of a text are called."""
    own = _vocabulary()
    ends = sorted(own.values())[-2:]
    return {t: i for t, i in own.items() if i not in ends} == {t: i for t, i in vocabulary.items() if i not in ends}


@cache
def _vocabulary() -> Mapping[str, int]:
    return SimpleTokenizer().encoder


def _plain_text(text: str) -> str:
    """A text as transformers' CLIP tokenizer normalises it: composed, lower case, single spaces."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()


def contrastive_loss(image_embed: Tensor, text_embed: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric cross entropy over a batch's similarities (CLIP, figure 3); `b d`, `b d` -> loss, rank-1 accuracy."""
    with torch.autocast(image_embed.device.type, enabled=False):  # bfloat16 would round away most of what is learned
        image_unit, text_unit = (F.normalize(embed.float(), dim=-1) for embed in (image_embed, text_embed))
        logits = logit_scale.float().exp() * image_unit @ text_unit.T  # b_image b_text
    labels = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    return loss, (logits.argmax(dim=1) == labels).float().mean()
