"""Sampling from distilled networks, which `training.tasks.distillation` trains.

A network that has learned guidance takes one evaluation a step in the place of two. The scale is fixed, or an input of
the network: stage one of Meng et al. 2023, "On Distillation of Guided Diffusion Models" (arXiv:2210.03142). A network
that was distilled for consistency predicts where the teacher's trajectory ends, not the mean of all possible images:
Heek et al. 2024, "Multistep Consistency Models" (arXiv:2403.06807).
"""

from dataclasses import dataclass, replace

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from unclip.diffusion.guidance import NetworkInputs
from unclip.diffusion.schedule import Schedule
from unclip.errors import RequestError

GUIDANCE_CHANNELS = 256
"""Values of the embedded scale, as in latent consistency models (Luo et al. 2023, arXiv:2310.04378)."""


@dataclass(frozen=True)
class Distillation:
    """How the network of a stage was distilled.

    teacher   name of the model that it was distilled from
    guidance  the lowest and the highest scale that it has learned; equal if the scale is fixed
    segments  number of parts of the noise levels; within each, the network predicts where the teacher's trajectory
              ends. 0: it predicts the mean, as the teacher does
    """

    teacher: str
    guidance: tuple[float, float]
    segments: int = 0

    @property
    def embeds_guidance(self) -> bool:
        """Whether the scale is an input of the network."""
        return self.guidance[0] < self.guidance[1]

    @property
    def is_invertible(self) -> bool:
        """Whether DDIM inversion can use the network: it needs the mean, without guidance."""
        return self.segments == 0 and self.guidance[0] <= 1 <= self.guidance[1]

    def check_guidance(self, guidance: float, name: str = "guidance") -> None:
        """Raise RequestError for a scale that the network has not learned. name: of the field, for the message."""
        low, high = self.guidance
        if low <= guidance <= high:
            return
        learned = f"{low:g} only: leave {name} out" if low == high else f"{low:g} to {high:g}"
        raise RequestError(
            f"{name} is {guidance:g}, and this model was distilled for {learned}, or use its teacher {self.teacher}"
        )

    def check_inversion(self, stage: str = "decoder") -> None:
        """Raise RequestError for a network that cannot be inverted. stage: for the message."""
        if not self.is_invertible:
            raise RequestError(
                f"the noise of an image cannot be found with a distilled {stage}: use its teacher {self.teacher}, or "
                "new noise (vary without strength, interpolate with same_noise)"
            )

    def condition(self, cond: NetworkInputs, guidance: float) -> NetworkInputs:
        """The inputs of the network for a scale. Raises RequestError for one that it has not learned."""
        self.check_guidance(guidance)
        if not self.embeds_guidance:
            return cond
        some = next(iter(cond.values()))
        embed = embed_guidance(torch.full((len(some),), guidance, device=some.device))
        return cond | {"guidance_embed": embed}

    def adapt(self, schedule: Schedule) -> Schedule:
        """The schedule with timesteps that begin at the noisiest one, as few steps need."""
        return replace(schedule, spacing="linspace", ends_at_first_level=False) if self.segments else schedule


def embed_guidance(scale: Tensor) -> Tensor:
    """Guidance scales `b` -> sines and cosines `b g`, as diffusers' pipelines of consistency models embed them."""
    return get_timestep_embedding(scale - 1, GUIDANCE_CHANNELS, downscale_freq_shift=1, scale=1000)
