"""A frozen CLIP that conditions the other tasks."""

from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoints.networks import load_network
from unclip.models.clip import Clip
from unclip.models.text import TextEncoding, tokens_only
from unclip.models.tokenizer import Tokenizer


class FrozenClip:
    """A trained CLIP as the other stages need it: captions and pictures in, conditioning out, some of it dropped.

    It runs in float32 whatever the training's precision, for so it runs when the finished model draws.
    """

    def __init__(self, folder: Path, device: torch.device):
        self.clip: Clip = load_network(folder, device)
        self.tokenizer = Tokenizer(self.clip.config.context_length)
        self.device = device

    @torch.no_grad()
    def text(self, captions: list[str]) -> TextEncoding:
        with torch.autocast(self.device.type, enabled=False):
            return self.clip.encode_tokens(self.tokenizer(captions).to(self.device))

    def tokens(self, captions: list[str]) -> TextEncoding:
        """The captions, not read by CLIP: for a decoder with a text encoder of its own."""
        return tokens_only(self.tokenizer(captions).to(self.device))

    @torch.no_grad()
    def image(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.clip.encode_image(images.float())


def leave_out(captions: list[str], drop: Tensor) -> list[str]:
    """The captions, empty where `drop` (`b` bool) says so."""
    return ["" if gone else caption for caption, gone in zip(captions, drop.tolist(), strict=True)]
