"""Priors: from text to CLIP image embeddings."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.inference.run_context import Run
from unclip.inference.stage import Stage, StageInputs, StageOptions
from unclip.models.text import TextEncoding
from unclip.requests.fields import PRIOR_BEST_OF


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
        candidates = run.rows([i for i in range(len(run.generators)) for _ in range(k)])  # b*k
        text, negative = text.repeat(k), negative.repeat(k)
        with run.stage("prior") as report:
            x = self.stage.run(
                StageInputs(network.condition(text), network.condition(negative)),
                candidates.generators,
                StageOptions(options.prior_steps, options.prior_sampler, options.prior_guidance),
                report=report,
            )
        embed = network.unwhiten(x)  # b*k d
        similarity = F.cosine_similarity(embed, text.embed, dim=-1).unflatten(0, (-1, k))  # b k
        best = similarity.argmax(dim=1)  # b
        return embed.unflatten(0, (-1, k))[torch.arange(len(best)), best]
