"""A frozen CLIP, which conditions the prior and the decoder in training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoints.networks import load_network
from unclip.models.text import TextEncoding, tokens_only
from unclip.models.tokenizer import Tokenizer


class FrozenClip:
    """A trained CLIP. It runs in float32 whatever the training's precision, because the finished model does so too."""

    def __init__(self, clip: Any, device: torch.device):
        self.clip = clip
        self.tokenizer = Tokenizer(self.clip.config.context_length)
        self.device = device

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "FrozenClip":
        """The CLIP in the component folder of a checkpoint."""
        return cls(load_network(folder, device), device)

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> TextEncoding:
        """The embeddings `b d` and the token states `b n d` of captions."""
        with torch.autocast(self.device.type, enabled=False):
            return self.clip.encode_tokens(self.tokenizer(captions).to(self.device))

    def tokenize(self, captions: list[str]) -> TextEncoding:
        """The tokens of captions, not encoded: for a decoder with its own text encoder."""
        return tokens_only(self.tokenizer(captions).to(self.device))

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images `b 3 h w` in [-1, 1] -> embeddings `b d`."""
        with torch.autocast(self.device.type, enabled=False):
            return self.clip.encode_image(images.float())


def drop_captions(captions: list[str], drop: Tensor) -> list[str]:
    """The captions, empty where `drop` (bool `b`) is True."""
    return ["" if dropped else caption for caption, dropped in zip(captions, drop.tolist(), strict=True)]
