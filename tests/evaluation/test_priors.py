"""The comparison of priors, with priors of known quality."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.evaluation.stand_ins import new_suite
from unclip.diffusion.noise import randn
from unclip.evaluation.priors import GUIDANCE, SEEDS, measure_priors, sample, sources
from unclip.inference.run_context import Run
from unclip.models.text import TextEncoding
from unclip.pipeline import Unclip


@dataclass(frozen=True)
class TextAndNoise:
    """A prior that returns the text embedding, plus noise of a size divided by the guidance."""

    noise: float
    best_of: int = 1

    def defaults(self) -> dict[str, object]:
        return {"prior_guidance": 1.0, "prior_best_of": 1}

    def sample(self, text: TextEncoding, negative: TextEncoding, run: Run) -> Tensor:
        assert len(run.generators) == len(text.embed) == len(negative.embed)
        with run.stage("prior"):
            return text.embed + self.noise / run.options.prior_guidance * randn(text.embed.shape[1:], run.generators)


@pytest.fixture
def pipe(tiny: Unclip) -> Unclip:
    """The tiny model, with a diffusion prior that returns the text embedding and a noisy autoregressive one."""
    return Unclip(replace(tiny.model, prior=TextAndNoise(0.0), autoregressive_prior=TextAndNoise(1.0)))


def test_priors_of_known_quality(pipe: Unclip, tmp_path: Path) -> None:
    found = measure_priors(new_suite(tmp_path, pipe, n=4))
    rows = {row[""]: row for row in found["rows"]}
    kinds = [f"{kind}, guidance {scale:g}" for kind in ("diffusion", "autoregressive") for scale in GUIDANCE]
    assert list(rows) == ["no embedding", "text embedding", *kinds]

    def value(name: str, column: str) -> float:
        cell = rows[name][column]
        return cell.get("mean", cell.get("rate"))

    cosine = "cosine to the true embedding"
    assert value("diffusion, guidance 1", cosine) == pytest.approx(value("text embedding", cosine), abs=1e-5)
    noisy = [value(f"autoregressive, guidance {scale:g}", "diversity, embeddings") for scale in GUIDANCE]
    assert noisy == sorted(noisy, reverse=True) and noisy[-1] > 0.01
    for scale in GUIDANCE:
        assert value(f"diffusion, guidance {scale:g}", "diversity, embeddings") == pytest.approx(0, abs=1e-6)
        assert rows[f"autoregressive, guidance {scale:g}"]["seconds"] > 0
    assert rows["no embedding"]["right, without the text"] is None and cosine not in rows["no embedding"]
    assert all(row["right"]["n"] == 4 * SEEDS and row["Frechet"] >= 0 for row in rows.values())
    assert rows["text embedding"]["diversity, images"]["mean"] > 0  # of the decoder's noise
    again = measure_priors(new_suite(tmp_path, Unclip(replace(pipe.model, name="other")), n=4))
    assert again == found  # every row was stored


def test_the_samples_do_not_depend_on_the_batch(tiny: Unclip, tmp_path: Path) -> None:
    whole, single = (new_suite(tmp_path, tiny, n=3, batch_size=size) for size in (16, 1))
    for source in sources(whole):
        ours = sample(whole, source).embeds
        assert ours.shape == (SEEDS, 3, 16)
        torch.testing.assert_close(ours, sample(single, source).embeds, atol=1e-5, rtol=0)
        if source.prior is not None:
            assert not torch.equal(ours[0], ours[1])
