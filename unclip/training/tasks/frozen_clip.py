"""A frozen CLIP, which conditions the prior and the decoder in training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoints.networks import load_network
from unclip.inference.encoder import Encoder
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


class FrozenEncoder:
    """The encoders of a loaded checkpoint, in their own precision, with the methods of `FrozenClip`.

    The results are copied: tensors of inference mode cannot take part in a backward pass.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.clip = encoder.clip
        self.device = encoder.device

    def encode_text(self, captions: list[str]) -> TextEncoding:
        """The embeddings `b d` and the token states `b n d` of captions, also of the decoder's own encoder."""
        with torch.autocast(self.device.type, enabled=False):
            return self.encoder.encode_text(captions).rows(range(len(captions)))

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images `b 3 h w` in [-1, 1] -> embeddings `b d`."""
        with torch.autocast(self.device.type, enabled=False):
            return self.clip.encode_image(images.float())

    def zero_embed(self) -> Tensor:
        """The embedding `d` of a blank image (see `Clip.zero_embed`)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.encoder.zero_embed.clone()


def drop_captions(captions: list[str], drop: Tensor) -> list[str]:
    """The captions, empty where `drop` (bool `b`) is True."""
    return ["" if dropped else caption for caption, dropped in zip(captions, drop.tolist(), strict=True)]
