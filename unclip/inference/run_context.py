"""Run: one micro-batch, with the generators, options, callback and timings that all stages share."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unclip.diffusion.noise import Generators
from unclip.images.processing import to_images
from unclip.inference.callbacks import Progress, StageReport, Watcher


@dataclass(frozen=True)
class SamplingOptions:
    """The sampling options of all stages. None is the default of the stage.

    prior_steps, steps, upsampler_steps  denoising steps of the prior, the decoder and each upsampler
    prior_sampler, sampler               names from diffusion.sampler_names.SAMPLER_NAMES
    prior_guidance, guidance             classifier-free guidance scales
    prior                                kind of prior, of requests.fields.PRIORS; None is the model's default
    prior_temperature, prior_top_p       of the autoregressive prior: see `priors.sample_buckets`
    prior_best_of                        embeddings that the prior samples; the best one is used
    noise_level                          noise added to image embeddings (see `UnclipModel.noise_levels`)
    spacing                              of the decoder's timesteps, from diffusion.sampler_names.SPACING_NAMES
    guidance_interval                    noise levels (low, high] at which the decoder is guided; None for all
    guidance_every                       k: the decoder's guidance is computed at every k-th step
    cache_every, upsampler_cache_every   k: all layers of decoder and upsamplers run at every k-th step
    resample                             RePaint passes of the decoder over each stretch of timesteps
    size                                 (width, height) of the images in pixels; None is the model's default
    """

    prior: str | None = None
    prior_steps: int | None = None
    prior_sampler: str | None = None
    prior_guidance: float | None = None
    prior_temperature: float | None = None
    prior_top_p: float | None = None
    prior_best_of: int = 1
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    spacing: str = "uniform"
    guidance_interval: tuple[float, float] | None = None
    guidance_every: int = 1
    cache_every: int = 1
    upsampler_steps: int | None = None
    noise_level: int = 0
    upsampler_cache_every: int = 1
    resample: int = 1
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Run:
    """The state of a micro-batch while its images are generated.

    generators: one per image. callback: receives (stage, done, total); a Watcher also receives images.
    timings: seconds by stage, added to as the stages run. label: a prefix of the stage names that are reported.
    """

    generators: Generators
    device: torch.device
    options: SamplingOptions = SamplingOptions()
    callback: Progress | None = None
    timings: dict[str, float] = field(default_factory=dict)
    label: str | None = None

    def rows(self, indices: Sequence[int]) -> "Run":
        """The same run for some of its images, or for an image several times. The timings are shared."""
        return replace(self, generators=[self.generators[i] for i in indices])

    def repeat(self, k: int) -> "Run":
        """The same run with each of its images k times in a row."""
        return self.rows([i for i in range(len(self.generators)) for _ in range(k)])

    def within(self, label: str | None) -> "Run":
        """The same run, whose stages are reported as part of `label`: "window 2 of 5, decoder". None: no label."""
        labels = [part for part in (self.label, label) if part is not None]
        return replace(self, label=", ".join(labels) or None)

    @contextmanager
    def stage(self, name: str) -> Iterator[StageReport]:
        """Time a stage and yield its callbacks. A stage that runs several times adds up its seconds."""
        start = time.perf_counter()
        yield StageReport(self._progress(name), self._observe(name))
        if self.device.type == "cuda":  # CUDA returns before the computation has ended
            torch.cuda.synchronize(self.device)
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def _progress(self, name: str):
        callback = self.callback
        if callback is None:
            return None
        label = name if self.label is None else f"{self.label}, {name}"
        return lambda done, total: callback(label, done, total)

    def _observe(self, name: str):
        callback = self.callback
        if not isinstance(callback, Watcher):
            return None
        seeds = [generator.initial_seed() for generator in self.generators]

        def observe(x0: Tensor) -> None:
            if x0.ndim == 4:  # images, not embeddings
                callback.see(name, to_images(x0), seeds)

        return observe
