"""A stage of the pipeline (prior, decoder, upsampler): a network, and how to sample from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from unclip.diffusion.codec import Codec, Identity
from unclip.diffusion.denoiser import Denoise, Schedule, denoiser
from unclip.diffusion.guidance import Conditioning, clamped, guided
from unclip.diffusion.masking import keep_known
from unclip.diffusion.noise import randn
from unclip.diffusion.samplers import Progress, sample


@dataclass(frozen=True)
class Known:
    """What is to stay as it is. image: `b 3 H W` in [-1, 1]; mask: `b 1 H W`, 1 = keep, 0 = free."""

    image: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Stage:
    """A network, what it was trained to predict, and its default way of sampling.

    network(x, t, **conditioning) takes x (`b *shape`) and t (`b`, int64) and returns what `schedule` says.
    shape: one item in the codec's space, without `b`. sampler, steps and guidance are defaults of `run`.
    """

    name: str
    network: nn.Module
    schedule: Schedule
    shape: tuple[int, ...]
    codec: Codec = Identity()
    sampler: str = "unclip"
    steps: int = 25
    guidance: float = 1.0

    @torch.inference_mode()
    def run(
        self,
        cond: Conditioning,
        uncond: Conditioning | None,
        generators: Sequence[torch.Generator],
        *,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
        known: Known | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample one item per generator: `b 3 H W`, or `b d` for an embedding, in float32.

        cond, uncond: the network's conditioning with and without the prompt, every tensor with leading b;
        uncond may be None when the guidance is 1. All is one batch: cutting it up is the caller's business.
        Raises RequestError for an unknown sampler or a number of steps out of range.
        """
        steps = self.steps if steps is None else steps
        sampler = self.sampler if sampler is None else sampler
        guidance = self.guidance if guidance is None else guidance
        assert uncond is not None or guidance == 1, f"{self.name}: guidance {guidance} needs `uncond`"
        for key, value in chain(cond.items(), () if uncond is None else uncond.items()):
            assert len(value) == len(generators), f"{self.name}: {key} is not one per generator"

        device, _ = self._placement()
        denoise = guided(self._bind, cond, uncond, guidance)
        denoise = clamped(denoise, self.schedule.clip)
        if known is not None:
            image = self.codec.encode(known.image.to(device, torch.float32))
            denoise = keep_known(denoise, image, self.codec.encode_mask(known.mask.to(image)))
        x = randn(self.shape, generators, device)
        return self.codec.decode(sample(denoise, x, self.schedule, sampler, steps, generators, progress))

    def _bind(self, conditioning: Conditioning) -> Denoise:
        """The network with its conditioning, moved to its device and precision once, not at every step."""
        device, dtype = self._placement()
        bound = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in conditioning.items()}
        return denoiser(lambda x, t: self.network(x.to(dtype), t, **bound), self.schedule)

    def _placement(self) -> tuple[torch.device, torch.dtype]:
        """Where the network lives and in which precision; without weights, float32 on the CPU."""
        weights = chain(self.network.parameters(), self.network.buffers())
        first = next((w for w in weights if w.is_floating_point()), torch.empty(0))
        return first.device, first.dtype
