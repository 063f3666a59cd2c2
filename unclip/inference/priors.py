"""Priors: from text to CLIP image embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.guidance import NetworkInputs
from unclip.diffusion.noise import uniform
from unclip.inference.run_context import Run
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.autoregressive_prior import AutoregressiveTransformer
from unclip.models.text import TextEncoding
from unclip.requests.fields import PRIOR_BEST_OF

ROWS = 64
"""Embeddings that the autoregressive prior samples at a time, so that its memory does not grow with the batch."""


class Prior(Protocol):
    """A model of CLIP image embeddings given a text."""

    @property
    def best_of(self) -> int:
        """Default number of embeddings to sample; the one closest to the text is used."""
        ...

    def defaults(self) -> dict[str, object]:
        """The fields of a Request that the prior fills in where they are None."""
        ...

    def sample(self, text: TextEncoding, negative: TextEncoding, run: Run) -> Tensor:
        """One CLIP image embedding `b d` per row of the text, by `run.options`."""
        ...


@dataclass(frozen=True)
class DiffusionPrior:
    """The diffusion prior: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2."""

    stage: Stage
    best_of: int = PRIOR_BEST_OF

    def defaults(self) -> dict[str, object]:
        """The stage's own sampler, steps and guidance."""
        return {
            "prior_steps": self.stage.steps,
            "prior_sampler": self.stage.sampler,
            "prior_guidance": self.stage.guidance,
            "prior_best_of": self.best_of,
        }

    def sample(self, text: TextEncoding, negative: TextEncoding, run: Run) -> Tensor:
        """Sample `run.options.prior_best_of` embeddings per text; return the one most similar to the text, `b d`.

        The paper samples two and keeps the one with the higher dot product.
        """
        options, network, k = run.options, self.stage.network, run.options.prior_best_of
        candidates = run.repeat(k)  # b*k
        text, negative = text.repeat(k), negative.repeat(k)
        with run.stage("prior") as report:
            x = self.stage.run(
                StageInputs(network.condition(text), network.condition(negative)),
                candidates.generators,
                StageOptions(options.prior_steps, options.prior_sampler, options.prior_guidance),
                report=report,
            )
        return most_similar(network.unwhiten(x), text.embed, k)


@dataclass(frozen=True)
class AutoregressivePrior:
    """The autoregressive prior: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2.

    network: also quantises embeddings into codes. guidance: classifier-free guidance scale of the logits; 1 is none.
    temperature: divides the logits; 0 takes the most probable bucket. top_p: probability of the buckets that are
    sampled from, the most probable ones; 1 is all. best_of: as in `Prior`. dot_from: the dot product of text and image
    embedding is sampled from the training data's values above this quantile, 0 .. 1 (0.5, the top half, in the paper).
    """

    network: AutoregressiveTransformer
    guidance: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    best_of: int = 2
    dot_from: float = 0.5

    def defaults(self) -> dict[str, object]:
        """The prior's own guidance, temperature and top-p."""
        return {
            "prior_guidance": self.guidance,
            "prior_temperature": self.temperature,
            "prior_top_p": self.top_p,
            "prior_best_of": self.best_of,
        }

    @torch.inference_mode()
    def sample(self, text: TextEncoding, negative: TextEncoding, run: Run) -> Tensor:
        """Sample `run.options.prior_best_of` embeddings per text; return the one most similar to the text, `b d`."""
        k, config = run.options.prior_best_of, self.network.config
        rows = [row for row in range(len(text.embed)) for _ in range(k)]  # b*k, of the texts
        numbers = uniform((config.components + 1,), run.repeat(k).generators)  # b*k, 1 + codes
        parts = [slice(start, start + ROWS) for start in range(0, len(rows), ROWS)]
        embeds = []
        with run.stage("prior") as report:
            for number, part in enumerate(parts):
                cond, uncond = (self.network.condition(each.rows(rows[part])) for each in (text, negative))
                progress = counted(report.progress, number, len(parts))
                embeds.append(self.network.decode(self._sample_codes(cond, uncond, numbers[part], run, progress)))
        return most_similar(torch.cat(embeds), text.embed[rows], k)

    def _sample_codes(
        self,
        cond: NetworkInputs,
        uncond: NetworkInputs,
        numbers: Tensor,
        run: Run,
        progress: Callable[[int, int], None] | None,
    ) -> Tensor:
        """Sample codes `b k`. numbers: `b k+1` in [0, 1), one for the dot product, then one for each code."""
        options, config = run.options, self.network.config
        guidance = self.guidance if options.prior_guidance is None else options.prior_guidance
        temperature = self.temperature if options.prior_temperature is None else options.prior_temperature
        top_p = self.top_p if options.prior_top_p is None else options.prior_top_p
        next_logits = guided_logits(self.network, cond, uncond, guidance)

        first = min(int(self.dot_from * config.buckets), config.buckets - 1)
        dots = (first + numbers[:, 0] * (config.buckets - first)).long().to(run.device)  # b
        codes = dots.new_empty(len(dots), 0)
        if progress is not None:
            progress(0, config.components)
        for place in range(config.components):
            # On the CPU: other devices round differently, and not all of them have float64.
            logits = next_logits(dots, codes).cpu().double()  # b m
            new = sample_buckets(logits, numbers[:, place + 1], temperature, top_p)
            codes = torch.cat([codes, new[:, None].to(codes)], dim=1)
            if progress is not None:
                progress(place + 1, config.components)
        return codes


def most_similar(embed: Tensor, text: Tensor, k: int) -> Tensor:
    """Of each k consecutive embeddings `b*k d`, the one most similar to its row of the text's embeddings, `b d`."""
    similarity = F.cosine_similarity(embed, text, dim=-1).unflatten(0, (-1, k))  # b k
    best = similarity.argmax(dim=1)  # b
    return embed.unflatten(0, (-1, k))[torch.arange(len(best)), best]


def guided_logits(
    network: AutoregressiveTransformer, cond: NetworkInputs, uncond: NetworkInputs, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of dot products `b` and codes `b j` that returns the logits `b m` of the next code.

    The logits are uncond + scale * (cond - uncond), from one doubled batch; scales 1 and 0 need one half only. Call the
    function with one more code each time: it caches earlier tokens.
    """
    halves = [cond] if scale == 1 else [uncond] if scale == 0 else [uncond, cond]
    inputs = {key: torch.cat([half[key] for half in halves]) for key in cond}
    cache = network.new_cache()

    def next_logits(dots: Tensor, codes: Tensor) -> Tensor:
        repeated = (each.repeat(len(halves), *[1] * (each.ndim - 1)) for each in (dots, codes))
        logits = network(**inputs, **dict(zip(("dots", "codes"), repeated, strict=True)), cache=cache)[:, -1].float()
        if len(halves) == 1:
            return logits
        without, given = logits.chunk(2)
        return without + scale * (given - without)

    return next_logits


def sample_buckets(logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Sample one bucket per row of logits `b m`: the first whose cumulative probability exceeds the row's number.

    numbers: `b` in [0, 1). Buckets stay in their order, so that a number rounded differently gives a neighbouring one.

    temperature: divides the logits; 0 takes the most probable bucket. top_p: samples from the fewest buckets whose
    probability is at least this, in 0 .. 1 (Holtzman et al. 2020, arXiv:1904.09751); one bucket is always left.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    # The largest is 0 first: divided by a tiny temperature, several logits would be infinite.
    probabilities = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)  # b m
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # of the buckets that are more probable
        kept = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before < top_p)
        kept.scatter_(1, order[:, :1], True)
        probabilities = probabilities * kept
    summed = probabilities.cumsum(dim=-1)
    found = torch.searchsorted(summed, (numbers * summed[:, -1])[:, None], right=True)[:, 0]
    last = (probabilities > 0).cumsum(dim=-1).argmax(dim=-1)  # the number times the sum may round up to the sum
    return torch.minimum(found, last)


def counted(progress: Callable[[int, int], None] | None, number: int, parts: int) -> Callable[[int, int], None] | None:
    """A function that reports the progress of part `number` of several equal parts as progress of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, parts * total)
