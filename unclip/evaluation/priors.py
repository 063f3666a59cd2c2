"""The comparison of priors: Ramesh et al. 2022 (arXiv:2204.06125), sections 4.1, 5.1 and 5.2, on the suite's prompts.

The decoder gets an image embedding from a prior, or in its place the text embedding, or none at all. It also reads the
text, as in the paper; the images without the text show what the embedding itself carries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.noise import make_generators
from unclip.evaluation.clip_and_prior import cosines
from unclip.evaluation.fid import frechet_distance
from unclip.evaluation.intervals import estimate_mean, estimate_rate
from unclip.evaluation.suite import Prompts, Suite
from unclip.evaluation.sweeps import check_images
from unclip.images.processing import to_images
from unclip.inference.conditions import Conditioning
from unclip.inference.run_context import Run
from unclip.modes.base import sampling_options
from unclip.requests.request import Request

GUIDANCE = (1.0, 1.5, 3.0)
"""Classifier-free guidance scales of the priors that are compared."""
SEEDS = 2
"""Images of each prompt, whose difference is the diversity."""


@dataclass(frozen=True)
class Source:
    """A source of image embeddings: a kind of prior with its guidance scale; None is the text's own or the null one."""

    name: str
    prior: str | None = None
    guidance: float | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of a source for prompts. embeds: `s n d`, for each seed. seconds: of the prior, per embedding."""

    embeds: Tensor
    seconds: float | None


def measure_priors(suite: Suite) -> dict[str, Any]:
    """Return for each source of embeddings its cosine to the true one, and how good and diverse the images are."""
    true = suite.embed_images("features, real", suite.render(suite.subset, suite.decoder_size))
    rows = []
    for source in sources(suite):
        rows.append(
            suite.report.measure_once(f"priors/{source.name}", lambda source=source: _measure(suite, source, true))
        )
    notes = [
        f"{len(suite.subset)} prompts, {SEEDS} images each at {suite.decoder_size} px, of one sample of the prior each",
        "diversity: 1 minus the cosine of two embeddings of one prompt, by the prior and by CLIP of its images",
        "Frechet distance to renderings of the same prompts, in CLIP's space: lower is closer; it falls as n rises",
    ]
    return {"rows": rows, "notes": notes}


def sources(suite: Suite) -> Iterator[Source]:
    """Yield the sources that are compared: no embedding, the text's own, and each prior at each guidance scale."""
    yield Source("no embedding")
    yield Source("text embedding")
    for prior in suite.pipe.model.priors:
        for scale in GUIDANCE:
            yield Source(f"{prior}, guidance {scale:g}", prior, scale)


def _measure(suite: Suite, source: Source, true: Tensor) -> dict[str, Any]:
    samples = sample(suite, source)
    scenes = [scene for _, scene in suite.subset]
    row: dict[str, Any] = {"": source.name}
    if source.name != "no embedding":
        row["cosine to the true embedding"] = estimate_mean(cosines(samples.embeds[0], true))
    for column, reads_text in (("right", True), ("right, without the text", False)):
        if source.name == "no embedding" and not reads_text:
            row[column] = None
            continue
        images = [image for seed in range(SEEDS) for image in decode(suite, source, samples, seed, reads_text)]
        row[column] = estimate_rate(check_images(suite, images, scenes * SEEDS))
        if reads_text:
            features = suite.embed_images(f"features, {source.name}", images)
            row["Frechet"] = frechet_distance(true, features[: len(true)])
            row["diversity, images"] = estimate_mean(_distances(*features.split(len(true))))
    row["diversity, embeddings"] = None if source.prior is None else estimate_mean(_distances(*samples.embeds))
    row["seconds"] = samples.seconds
    return row


@torch.inference_mode()
def sample(suite: Suite, source: Source) -> Samples:
    """Return the embeddings of a source for the first n prompts of the suite, one for each seed."""
    model, prompts = suite.pipe.model, suite.subset
    if source.prior is None:
        text = suite.embed_text([prompt for prompt, _ in prompts])
        null = model.null_embed.float().cpu().expand_as(text)
        return Samples(torch.stack([text if source.name == "text embedding" else null] * SEEDS), None)

    def sample_batch(batch: slice) -> tuple[Tensor, float]:
        texts = [prompt for prompt, _ in prompts[batch]] * SEEDS
        request = Request(prompt=texts[0], seed=0, prior=source.prior, prior_guidance=source.guidance, prior_best_of=1)
        run = Run(_generators(suite, batch), model.device, sampling_options(suite.pipe.resolve(request)))
        embed = model.sample_prior(model.encode_text(texts), model.encode_text([""] * len(texts)), run)
        return embed.float().cpu().unflatten(0, (SEEDS, -1)), run.timings["prior"]  # s b d

    parts = suite.share(f"prior, {source.name}", suite.slices(len(prompts)), sample_batch)
    seconds = sum(each for _, each in parts)
    return Samples(torch.cat([embed for embed, _ in parts], dim=1), seconds / (SEEDS * len(prompts)))


@torch.inference_mode()
def decode(suite: Suite, source: Source, samples: Samples, seed: int, reads_text: bool) -> list[Any]:
    """Return the images that the decoder makes of the embeddings of one seed, at its own size."""
    model = suite.pipe.model
    label = f"images, {source.name}" + ("" if reads_text else ", without the text")

    def decode_batch(batch: slice) -> list[Any]:
        prompts: Prompts = suite.subset[batch]
        texts = [prompt if reads_text else "" for prompt, _ in prompts]
        request = suite.pipe.resolve(Request(prompt=prompts[0][0], seed=0, size=model.sizes[0]))
        run = Run(_generators(suite, batch, SEEDS + seed, 1), model.device, sampling_options(request))
        nothing = model.encode_text([""] * len(texts))
        embed = samples.embeds[seed][batch].to(model.device)
        return to_images(model.sample(Conditioning(embed, model.encode_text(texts), nothing), run))

    parts = suite.share(label, suite.slices(len(suite.subset)), decode_batch)
    return [image for part in parts for image in part]


def _generators(suite: Suite, batch: slice, first: int = 0, count: int = SEEDS) -> list[torch.Generator]:
    """The generators of a batch of prompts for `count` seeds each, from seed number `first` on."""
    apart = len(suite.subset)  # seeds of one prompt
    return make_generators(
        [suite.seed + apart * k + i for k in range(first, first + count) for i in range(batch.start, batch.stop)]
    )


def _distances(first: Tensor, second: Tensor) -> list[float]:
    return [1 - value for value in F.cosine_similarity(first.double(), second.double(), dim=-1).tolist()]
