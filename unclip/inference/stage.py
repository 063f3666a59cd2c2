"""A stage of the pipeline (prior, decoder, upsampler): a network, its schedule, and how to sample from it."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from unclip.diffusion.chunking import chunked
from unclip.diffusion.codecs import Codec, Identity
from unclip.diffusion.denoiser import Denoise, denoiser
from unclip.diffusion.feature_reuse import FeatureReuse
from unclip.diffusion.guidance import GuidedSteps, Half, NetworkInputs, guided
from unclip.diffusion.inversion import SKIP, invert
from unclip.diffusion.masking import FrozenNoise, freeze_known_noise, keep_known
from unclip.diffusion.noise import Generators, randn
from unclip.diffusion.samplers import Progress, Sampling, first_timestep, noise_draft, sample
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.tiling import Tiling, tiled
from unclip.diffusion.wrappers import clamp_x0, map_x0, observe_x0
from unclip.errors import RequestError
from unclip.inference.callbacks import StageReport
from unclip.inference.conditions import Known, Start
from unclip.inference.distillation import Distillation
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.deep_features import DeepFeatures, can_reuse_features
from unclip.system.allocator import make_growth_limiter, reuse_freed_blocks

WINDOWS_PER_CHUNK = 4
"""Windows of a tiling that the network processes at a time: memory must not grow with the canvas."""
CHUNK_BYTES = {"cpu": 1 << 24, "cuda": 1 << 28, "mps": 1 << 28}
"""Size of a network's first level that bounds a chunk, by device. The whole network needs some forty times as much.
One 256x256 image fills 40 MiB in the published upsampler; on a CPU, more images at a time gain nothing."""


@dataclass(frozen=True)
class Stage:
    """A network, the meaning of its output, and its default way of sampling.

    network: called as network(x, t, **inputs) with x `b *shape` and timesteps t `b` (int64); `schedule` says what it
        returns. Inputs come in the network's precision, except those that `network.exact` names, and as
        `network.prepare` returns them. `network.width`, its channels at the latent's size, bounds the chunks (see
        `_chunk_size`). All three attributes are optional.
    shape: of one item in the codec's space, without the batch.
    any_size: it samples images of any size that its codec allows; `shape` is the default.
    sampler, steps, guidance: the defaults.
    last_network: the network of the last step, if it is a different one.
    last_factor: factor of the last x0 of the sampler "unclip" (see `Schedule.last_factor`).
    freezes_known_noise: known pixels keep their initial noise (see `diffusion.masking.freeze_known_noise`).
    distillation: of a network that was distilled, else None. Guidance is then in the network.
    feed_forward: the network uses no noise, so that one step is enough, whatever the options say.
    reuse: on a CPU, keep the memory of each step for the next one. It is faster and takes more memory.
    """

    name: str
    network: Any  # an nn.Module; Any, as each has attributes of its own
    schedule: Schedule
    shape: tuple[int, ...]
    codec: Codec = Identity()
    sampler: str = "unclip"
    steps: int = 25
    guidance: float = 1.0
    last_network: Any = None
    last_factor: float = 1.0
    any_size: bool = False
    freezes_known_noise: bool = False
    distillation: Distillation | None = None
    feed_forward: bool = False
    reuse: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the images that the stage samples by default."""
        _, height, width = self.shape
        return width * self.codec.factor, height * self.codec.factor

    @property
    def dtype(self) -> torch.dtype:
        """The network's precision."""
        return self._placement()[1]

    @torch.inference_mode()
    def run(
        self,
        inputs: StageInputs,
        generators: Generators,
        options: StageOptions = StageOptions(),  # noqa: B008
        known: Known | None = None,
        start: Start = Start(),  # noqa: B008
        report: StageReport = StageReport(),  # noqa: B008
    ) -> Tensor:
        """Sample one item per generator: `b 3 H W`, or `b d` for an embedding, in float32.

        known: at the size that this stage samples. A batch goes through the network in chunks (see `_chunk_size`).
        Raises RequestError for an unknown sampler, a number of steps out of range, a network without a U-Net whose
        features are to be reused, or a guidance that a distilled network has not learned.
        """
        steps = self.steps if options.steps is None else options.steps
        if self.feed_forward:
            steps = 1
        sampler = self.sampler if options.sampler is None else options.sampler
        guidance = self.guidance if options.guidance is None else options.guidance
        options = replace(options, guidance=guidance)
        assert inputs.uncond is not None or guidance == 1, f"{self.name}: guidance {guidance} needs `uncond`"
        inputs.check(len(generators))
        if options.cache_every > 1:
            self.require_reuse()

        device, _ = self._placement()
        # Inverted noise was found without clamping x0, so unguided sampling from it must not clamp either.
        limit = None if start.noise is not None and guidance == 1 else self.schedule.clip
        shape = self._shape(options.size, inputs.tiling)
        denoise, last = self._denoisers(inputs, len(generators), options, limit, shape)
        if sampler == "unclip" and steps > 1 and options.spacing == "uniform":  # others may not end at timestep 0
            last = map_x0(last, lambda x0: x0 * self.last_factor)

        skip = 0 if start.noise is None else SKIP
        sampling = Sampling(sampler, steps, options.resample, skip, start.eta, options.spacing)
        x = randn(shape, generators, device) if start.noise is None else start.noise.to(device)
        noise = x
        if start.draft is not None:
            draft = self.codec.encode(start.draft.to(device, torch.float32))
            x, sampling = noise_draft(draft, x, self.schedule, sampling, start.draft_noise)
        if known is not None:
            image = self.codec.encode(known.image.to(device, torch.float32))
            mask = self.codec.encode_mask(known.mask.to(device, torch.float32))
            if self.freezes_known_noise:
                frozen = FrozenNoise(noise, self.schedule, first_timestep(self.schedule, sampling))
                denoise, last = (freeze_known_noise(each, image, mask, frozen) for each in (denoise, last))
            denoise, last = (keep_known(each, image, mask) for each in (denoise, last))
        if report.observe is not None:
            observe = report.observe
            denoise, last = (observe_x0(each, lambda x0: observe(self.codec.decode(x0))) for each in (denoise, last))
        with reuse_freed_blocks(self.reuse and device.type == "cpu"):
            x0 = sample(denoise, x, self.schedule, sampling, generators, last, report.progress)
        return self.codec.decode(x0)

    @torch.inference_mode()
    def invert(
        self,
        images: Tensor,
        cond: NetworkInputs,
        options: StageOptions = StageOptions(),  # noqa: B008
        progress: Progress | None = None,
    ) -> Tensor:
        """The initial noise `b *shape` from which `run` samples the images `b 3 H W` in [-1, 1].

        options: steps and spacing. `run` must have the same, the same inputs, the sampler "ddim" and guidance 1. The
        whole network runs at every step, as reused features cannot be inverted. Raises RequestError for a number of
        steps out of range, and for a network that was distilled so that it cannot be inverted.
        """
        device, _ = self._placement()
        if self.distillation is not None:
            self.distillation.check_inversion(self.name)
            cond = self.distillation.condition(cond, 1.0)
        x0 = self.codec.encode(images.to(device))
        bind = partial(self._bind, make_growth_limiter(), self.network, None)
        inputs = StageInputs(cond)
        chunk_size = self._chunk_size(x0.shape[1:], guided=False)
        denoise = chunked(lambda which: bind(inputs.chunk(which)[0], ("cond",)), len(x0), chunk_size)
        steps = self.steps if options.steps is None else options.steps
        with reuse_freed_blocks(self.reuse and device.type == "cpu"):
            return invert(denoise, x0, self.schedule, steps, progress, spacing=options.spacing)

    def require_reuse(self) -> None:
        """Raise RequestError for a network that has no deep features to reuse."""
        for network in (self.network, self.last_network):
            if network is not None and not can_reuse_features(network):
                raise RequestError(
                    f"the {self.name} has no deep layers whose features could be reused: set cache_every 1"
                )

    def denoiser(self, inputs: StageInputs, batch: int, guidance: float, limit: float | None) -> Denoise:
        """The denoiser with which `run` takes all steps but the last: conditioned, guided, and clamped to +-limit."""
        return self._denoisers(inputs, batch, StageOptions(guidance=guidance), limit, self.shape)[0]

    def _shape(self, size: tuple[int, int] | None, tiling: Tiling | None) -> tuple[int, ...]:
        """The shape of one item: of an image of (width, height) pixels, or of a tiling's canvas."""
        if tiling is not None:
            return self.shape[0], tiling.height, tiling.width
        if size is None or not self.any_size:
            return self.shape
        return self.codec.latent_shape(size[1], size[0])

    def _chunk_size(self, shape: Sequence[int], guided: bool) -> int:
        """Rows of a batch that the network processes at a time, so that its memory does not grow with the batch.

        Estimated from a U-Net's first level, `network.width` channels at each latent position of an item of `shape`; a
        network without `width` takes the whole batch.
        """
        if (width := getattr(self.network, "width", None)) is None:
            return sys.maxsize
        device, dtype = self._placement()
        row_bytes = width * math.prod(shape[1:]) * dtype.itemsize * (2 if guided else 1)
        return max(1, CHUNK_BYTES[device.type] // row_bytes)

    def _denoisers(
        self, inputs: StageInputs, batch: int, options: StageOptions, limit: float | None, shape: tuple[int, ...]
    ) -> tuple[Denoise, Denoise]:
        """The denoisers of all steps and of the last step, which may have a network of its own.

        Conditioned -> guided -> clamped to [-limit, limit], in chunks of the batch or of the windows. Each chunk keeps
        what its later steps reuse.
        """
        assert options.guidance is not None
        if self.distillation is not None:  # one evaluation a step
            cond = self.distillation.condition(inputs.cond, options.guidance)
            inputs, options = replace(inputs, cond=cond, uncond=None), replace(options, guidance=1.0)
        tiling, bound_growth, guidance = inputs.tiling, make_growth_limiter(), options.guidance
        assert guidance is not None
        window = shape if tiling is None else (shape[0], tiling.side, tiling.side)
        chunk_size = self._chunk_size(window, guided=guidance not in (0, 1))

        def in_chunks(network: Any) -> Denoise:
            split = DeepFeatures(network) if options.cache_every > 1 else None

            @cache
            def guided_steps(start: int | None, stop: int) -> GuidedSteps:
                interval, every = options.guidance_interval, options.guidance_every
                return GuidedSteps(self.schedule, interval, every, self.schedule.clip)

            @cache
            def feature_reuse(start: int | None, stop: int) -> FeatureReuse | None:
                return None if split is None else FeatureReuse(split, options.cache_every)

            def denoiser_of(which: slice) -> Denoise:
                cond, uncond = inputs.chunk(which)
                bind = partial(self._bind, bound_growth, network, feature_reuse(which.start, which.stop))
                steps = guided_steps(which.start, which.stop)
                return clamp_x0(guided(bind, cond, uncond, guidance, steps), limit)

            if tiling is None:
                return chunked(denoiser_of, batch, chunk_size)
            return tiled(denoiser_of, tiling, min(WINDOWS_PER_CHUNK, chunk_size))

        denoise = in_chunks(self.network)
        return denoise, denoise if self.last_network is None else in_chunks(self.last_network)

    def _bind(
        self,
        bound_growth: Callable[[], None],
        network: Any,
        reuse: FeatureReuse | None,
        inputs: NetworkInputs,
        halves: tuple[Half, ...],
    ) -> Denoise:
        """The denoiser of a network with its inputs, which are moved to its device and precision and prepared once."""
        device, dtype = self._placement()
        exact = getattr(network, "exact", ())
        bound = {
            key: value.to(device, dtype if value.is_floating_point() and key not in exact else None)
            for key, value in inputs.items()
        }
        if (prepare := getattr(network, "prepare", None)) is not None:
            bound = prepare(bound)
        evaluate = network if reuse is None else partial(reuse.run, halves)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            if self.reuse and device.type == "cpu":
                bound_growth()
            return evaluate(x.to(dtype), t, **bound)

        return denoiser(predict, self.schedule)

    def _placement(self) -> tuple[torch.device, torch.dtype]:
        """The network's device and precision; float32 on the CPU for a network without weights."""
        weights = chain(self.network.parameters(), self.network.buffers())
        # Weights on the meta device are offloaded; they will be loaded to the device of the others.
        first = next((w for w in weights if w.is_floating_point() and not w.is_meta), torch.empty(0))
        return first.device, first.dtype
