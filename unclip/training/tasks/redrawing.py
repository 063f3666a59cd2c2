"""The decoder's own versions of true images: an upsampler that is trained on them learns to mend its faults.

A true image is noised to a random level and denoised with its caption and its embedding (SDEdit, Meng et al. 2022,
arXiv:2108.01073). It keeps its layout, so it still belongs to the true large image, and gets the decoder's faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.layouts.native import load_decoder_and_encoder
from unclip.diffusion.noise import make_generators
from unclip.inference.conditions import Start
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.training.tasks.frozen_clip import FrozenEncoder

NOISE_LEVELS = (0.25, 0.75)
"""Range of the level to which images are noised, as fractions of the schedule."""


@dataclass(frozen=True)
class Redrawing:
    """A trained decoder, frozen, in float32 as in use. steps: of a denoising from pure noise."""

    decoder: Stage
    encoder: FrozenEncoder
    steps: int

    @classmethod
    def load(cls, model: Path, device: torch.device, steps: int) -> "Redrawing":
        """The decoder of a checkpoint folder that training wrote. Raises CheckpointError if it is damaged."""
        decoder, encoder = load_decoder_and_encoder(ComponentLoader(model, device, torch.float32))
        return cls(decoder, FrozenEncoder(encoder), steps)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, captions: list[str], layouts: Tensor | None, level: float, seeds: Sequence[int]
    ) -> Tensor:
        """The decoder's versions of images `b 3 s s` in [-1, 1].

        layouts: `b l`, for a decoder that has layouts. level: 0 .. 1, within NOISE_LEVELS. seeds: of the noise, `b`.
        """
        network = self.decoder.network
        layout = {"layout": layouts} if getattr(network, "has_layouts", False) else {}
        text, none = self.encoder.encode_text(captions), self.encoder.encode_text([""] * len(images))
        with torch.autocast(images.device.type, enabled=False):
            inputs = StageInputs(
                network.condition(self.encoder.encode_images(images), text, **layout),
                network.condition(None, none, **layout),
            )
            start = Start(draft=images.float(), draft_noise=level)
            options = StageOptions(self.steps)
            return self.decoder.run(inputs, make_generators(seeds), options, start=start).clone()  # for gradients
