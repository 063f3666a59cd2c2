"""A stage of the pipeline (prior, decoder, upsampler): a network, and how to sample from it."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from unclip.diffusion.chunking import in_parts
from unclip.diffusion.codecs import Codec, Identity
from unclip.diffusion.denoiser import Denoise, denoiser
from unclip.diffusion.guidance import Conditioning, guided
from unclip.diffusion.inversion import SKIP, invert
from unclip.diffusion.masking import keep_known
from unclip.diffusion.noise import randn
from unclip.diffusion.samplers import Progress, sample
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.tiling import Tiling, tiled
from unclip.diffusion.wrappers import clamped, levelled, watched
from unclip.inference.conditions import Known
from unclip.system.allocator import blocks_reused, bounded_growth

WINDOWS_TOGETHER = 4  # of a tiling, in a batch: memory is not to grow with the picture

# Bytes of a network's first level, by device; what it needs in all is some forty times that. One picture of 256 x 256
# fills 40 MiB in the published upsampler, and two cores gain nothing by more of them at a time.
TOGETHER = {"cpu": 1 << 24, "cuda": 1 << 28, "mps": 1 << 28}


@dataclass(frozen=True)
class Stage:
    """A network, what it was trained to predict, and its default way of sampling.

    network(x, t, **conditioning) takes x (`b *shape`) and t (`b`, int64) and returns what `schedule` says. Conditioning
    comes in the network's precision, but for what `network.exact` names, and as `network.prepare` returns it, where it
    has those; how many of a batch it takes at a time depends on `network.width` (see `together`).
    last_network: the network of the last step, where that is another one. last_factor: what the last x0 of the sampler
    "unclip" is multiplied by (see `Schedule.last_factor`).
    shape: one item in the codec's space, without `b`. sampler, steps and guidance are defaults of `run`.
    reuse: on the CPU, keep the memory of what a step computes for the next, which is quicker and takes more.
    """

    name: str
    network: nn.Module
    schedule: Schedule
    shape: tuple[int, ...]
    codec: Codec = Identity()
    sampler: str = "unclip"
    steps: int = 25
    guidance: float = 1.0
    last_network: nn.Module | None = None
    last_factor: float = 1.0
    reuse: bool = True

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
        repeats: int = 1,
        start: Tensor | None = None,
        draft: Tensor | None = None,
        tiling: Tiling | None = None,
        spread: Conditioning | None = None,
        eta: float = 0.0,
        progress: Progress | None = None,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Sample one item per generator: `b 3 H W`, or `b d` for an embedding, in float32.

        cond, uncond: the network's conditioning with and without the prompt, every tensor with leading b;
        uncond may be None when the guidance is 1. known: of the size that this stage draws. repeats: RePaint's
        resampling (see `samplers.visits`). start: noise `b *shape` as `invert` finds it, in the place of new.
        draft: a rough picture `b 3 H W`, in [-1, 1], to begin with, noised (see `samplers.sample`).
        tiling: the windows of one larger picture, drawn as a whole (see `tiling.tiled`), and which row of the
        conditioning each has; spread: conditioning that lies on that picture, `1 ...`, and is cut as x is.
        eta: of the sampler "ddim" (see `samplers.sample`). watch: called with x0 as each step predicts it, `b 3 H W` or
        `b d`.
        All is one batch, of which the network takes so many at a time as `together` says.
        Raises RequestError for an unknown sampler or a number of steps out of range.
        """
        steps = self.steps if steps is None else steps
        sampler = self.sampler if sampler is None else sampler
        guidance = self.guidance if guidance is None else guidance
        assert uncond is not None or guidance == 1, f"{self.name}: guidance {guidance} needs `uncond`"
        rows = len(generators) if tiling is None else max(tiling.rows) + 1
        for key, value in chain(cond.items(), () if uncond is None else uncond.items()):
            assert len(value) == rows, f"{self.name}: {key} is not one per generator"

        device, _ = self._placement()
        # What inversion found is the start of a way on which no x0 was clamped; guidance leaves that way.
        limit = None if start is not None and guidance == 1 else self.schedule.clip
        together, bound_growth = self.together(guidance not in (0, 1)), bounded_growth()

        def denoiser_of(network: nn.Module) -> Denoise:
            def of_some(which: slice) -> Denoise:
                each = [_of_some(one, which, tiling, spread or {}) for one in (cond, uncond)]
                return clamped(guided(partial(self._bind, network, bound_growth), *each, guidance), limit)

            if tiling is None:
                return in_parts(of_some, rows, together)
            return tiled(of_some, tiling, min(WINDOWS_TOGETHER, together))

        denoise = last = denoiser_of(self.network)
        if self.last_network is not None:
            last = denoiser_of(self.last_network)
        if sampler == "unclip" and steps > 1:  # a single step does not end at timestep 0
            last = levelled(last, lambda x0: x0 * self.last_factor)
        if known is not None:
            image, mask = known.image.to(device, torch.float32), known.mask.to(device, torch.float32)
            latent, kept = self.codec.encode(image), self.codec.encode_mask(mask)
            denoise, last = (keep_known(each, latent, kept) for each in (denoise, last))
        if watch is not None:
            denoise, last = (watched(each, lambda x0: watch(self.codec.decode(x0))) for each in (denoise, last))
        shape = self.shape if tiling is None else (self.shape[0], tiling.height, tiling.width)
        x = randn(shape, generators, device) if start is None else start.to(device)
        skip = 0 if start is None else SKIP
        if draft is not None:
            draft = self.codec.encode(draft.to(device, torch.float32))
        way = {"repeats": repeats, "last": last, "skip": skip, "draft": draft, "eta": eta}
        with blocks_reused(self.reuse and device.type == "cpu"):
            x0 = sample(denoise, x, self.schedule, sampler, steps, generators, progress, **way)
        return self.codec.decode(x0)

    @torch.inference_mode()
    def invert(
        self, pictures: Tensor, cond: Conditioning, *, steps: int | None = None, progress: Progress | None = None
    ) -> Tensor:
        """Pictures `b 3 H W` in [-1, 1] -> the noise `b *shape` from which `run` draws them.

        That is with the same conditioning and steps, the sampler "ddim" and guidance 1. Raises RequestError for a
        number of steps out of range.
        """
        device, _ = self._placement()
        x0 = self.codec.encode(pictures.to(device))
        bind = partial(self._bind, self.network, bounded_growth())

        def of_some(which: slice) -> Denoise:
            return bind(_of_some(cond, which, None, {}))

        denoise = in_parts(of_some, len(x0), self.together(guided=False))
        steps = self.steps if steps is None else steps
        with blocks_reused(self.reuse and device.type == "cpu"):
            return invert(denoise, x0, self.schedule, steps, progress)

    def together(self, guided: bool) -> int:
        """How many of a batch the network takes at a time, so that its memory does not grow with the batch.

        A U-Net's memory is told by its first level: its channels, `width`, at each position of the latent. A network
        without takes all at once.
        """
        if (width := getattr(self.network, "width", None)) is None:
            return sys.maxsize
        device, dtype = self._placement()
        each = width * math.prod(self.shape[1:]) * dtype.itemsize * (2 if guided else 1)
        return max(1, TOGETHER[device.type] // each)

    def _bind(self, network: nn.Module, bound_growth: Callable[[], None], conditioning: Conditioning) -> Denoise:
        """A network with its conditioning, moved to its device and precision, and prepared; of a whole batch once."""
        device, dtype = self._placement()
        exact = getattr(network, "exact", ())
        bound = {
            k: v.to(device, dtype if v.is_floating_point() and k not in exact else None)
            for k, v in conditioning.items()
        }
        if (prepare := getattr(network, "prepare", None)) is not None:
            bound = prepare(bound)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            if self.reuse and device.type == "cpu":
                bound_growth()
            return network(x.to(dtype), t, **bound)

        return denoiser(predict, self.schedule)

    def _placement(self) -> tuple[torch.device, torch.dtype]:
        """Where the network lives and in which precision; without weights, float32 on the CPU."""
        weights = chain(self.network.parameters(), self.network.buffers())
        # Those on the meta device are not in memory now; they will come to where the others are.
        first = next((w for w in weights if w.is_floating_point() and not w.is_meta), torch.empty(0))
        return first.device, first.dtype


def _of_some(
    conditioning: Conditioning | None, which: slice, tiling: Tiling | None, spread: Conditioning
) -> Conditioning | None:
    """The conditioning of a part of a batch; of windows: for each its row, and its part of what is spread over all."""
    if conditioning is None:
        return None
    rows = which if tiling is None else list(tiling.rows[which])
    return {key: value[rows] for key, value in conditioning.items() if key not in spread} | {
        key: tiling.cut(value, which) for key, value in spread.items()
    }
