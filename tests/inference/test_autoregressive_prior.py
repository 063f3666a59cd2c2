"""Sampling from the autoregressive prior: probabilities, guidance, and one generator per image."""

import math

import pytest
import torch
from torch import Tensor

from unclip.diffusion.noise import make_generators, uniform
from unclip.errors import RequestError
from unclip.inference.model import UnclipModel
from unclip.inference.priors import AutoregressivePrior, guided_logits, sample_buckets
from unclip.inference.run_context import Run, SamplingOptions
from unclip.models.text import TextEncoding
from unclip.pipeline import Unclip

CPU = torch.device("cpu")
PROMPTS = ["a red cat", "a dog", "blue", "a cat on a dog"]


@pytest.fixture
def prior(tiny: Unclip) -> AutoregressivePrior:
    found = tiny.model.require_prior("autoregressive")
    assert isinstance(found, AutoregressivePrior)
    return found


def sample(model: UnclipModel, prompts: list[str], seeds: list[int], **options) -> Tensor:
    how = {"prior": "autoregressive", **options}
    text, nothing = model.encode_text(prompts), model.encode_text([""] * len(prompts))
    return model.sample_prior(text, nothing, Run(make_generators(seeds), CPU, SamplingOptions(**how)))


def test_buckets_are_sampled_as_often_as_is_probable() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0, -math.inf], dtype=torch.float64)
    numbers = (torch.arange(100_000) + 0.5) / 100_000  # evenly spread: frequencies are exact up to 1e-5
    for temperature in (0.5, 1.0, 3.0):
        found = sample_buckets(logits.expand(100_000, 5), numbers.double(), temperature)
        expected = (logits / temperature).softmax(0)
        torch.testing.assert_close(found.bincount(minlength=5) / 100_000.0, expected.float(), atol=2e-5, rtol=0)


def test_random_numbers_give_the_same_frequencies() -> None:
    [generator] = make_generators([3])
    numbers = uniform((20_000,), [generator])[0]
    logits = torch.linspace(-1, 1, 6, dtype=torch.float64)
    counts = sample_buckets(logits.expand(20_000, 6), numbers).bincount(minlength=6)
    expected = 20_000 * logits.softmax(0)
    assert ((counts - expected).square() / expected).sum() < 20.5  # chi-squared, 5 degrees of freedom: p = 0.001


def test_top_p_keeps_the_fewest_most_probable_buckets() -> None:
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15], dtype=torch.float64)
    numbers = ((torch.arange(10_000) + 0.5) / 10_000).double()

    def kept(top_p: float) -> list[int]:
        return sample_buckets(probabilities.log().expand(10_000, 5), numbers, 1.0, top_p).unique().tolist()

    assert kept(0) == kept(0.39) == [1]
    assert kept(0.41) == kept(0.69) == [1, 3]
    assert kept(0.8) == [1, 3, 4]
    assert kept(1) == [0, 1, 2, 3, 4]
    found = sample_buckets(probabilities.log().expand(10_000, 5), numbers, 1.0, 0.7).bincount(minlength=5) / 1e4
    torch.testing.assert_close(found.double(), torch.tensor([0, 4, 0, 3, 0]).double() / 7, atol=2e-4, rtol=0)


def test_a_temperature_of_zero_takes_the_most_probable_bucket() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 4.9]])
    for number in (0.0, 0.5, 1 - 2**-53):
        assert sample_buckets(logits, torch.full((2,), number).double(), 0.0).tolist() == [1, 0]


def test_a_tiny_temperature_is_nearly_zero() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 4.9], [-9.0, -7.0, -8.0]]).double()
    for temperature in (1e-3, 1e-300, 5e-324):
        assert sample_buckets(logits, torch.full((3,), 0.5).double(), temperature).tolist() == [1, 0, 1]
        assert sample_buckets(logits, torch.full((3,), 0.5).double(), temperature, 0.9).tolist() == [1, 0, 1]


def test_numbers_at_the_ends_never_give_an_impossible_bucket() -> None:
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]]).double()
    assert sample_buckets(logits, torch.zeros(1).double()).item() == 1
    assert sample_buckets(logits, torch.full((1,), 1 - 2**-53).double()).item() == 2
    many = torch.full((1, 4096), -1e3).double()  # sums of many small numbers are rounded
    many[0, 7] = 0
    assert sample_buckets(many, torch.full((1,), 1 - 2**-53).double()).item() == 7


def inputs(prior: AutoregressivePrior, model: UnclipModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    encoded: list[TextEncoding] = [model.encode_text(PROMPTS), model.encode_text(["", "a red dog", "", ""])]
    given, against = (prior.network.condition(text) for text in encoded)
    return given, against


@pytest.mark.parametrize("scale", [0, 0.5, 1, 3])
def test_guided_logits_are_linear(tiny: Unclip, prior: AutoregressivePrior, scale: float) -> None:
    cond, uncond = inputs(prior, tiny.model)
    dots, codes = torch.tensor([4, 7, 5, 6]), torch.tensor([[1, 2], [0, 7], [3, 3], [5, 1]])
    given, without = (prior.network(**each, dots=dots, codes=codes)[:, -1] for each in (cond, uncond))
    found = guided_logits(prior.network, cond, uncond, scale)(dots, codes)
    torch.testing.assert_close(found, without + scale * (given - without), atol=1e-5, rtol=1e-5)
    assert (given - without).abs().max() > 0.05


def test_guidance_of_zero_ignores_the_prompt(tiny: Unclip) -> None:
    one, other = (sample(tiny.model, [prompt], [5], prior_guidance=0) for prompt in ("a red cat", "a blue dog"))
    assert torch.equal(one, other)
    texts = [sample(tiny.model, [prompt] * 8, list(range(8)), prior_guidance=9) for prompt in ("a red cat", "blue")]
    assert not torch.equal(*texts)


def test_an_embedding_depends_on_its_own_generator_only(tiny: Unclip) -> None:
    together = sample(tiny.model, PROMPTS, [1, 2, 3, 4], prior_best_of=3)
    for i, prompt in enumerate(PROMPTS):
        alone = sample(tiny.model, [prompt], [i + 1], prior_best_of=3)
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    assert not torch.allclose(together, sample(tiny.model, PROMPTS, [5, 6, 7, 8], prior_best_of=3))


def test_a_large_batch_is_sampled_in_parts(tiny: Unclip) -> None:
    seeds = list(range(70))
    whole = sample(tiny.model, ["a red cat"] * 70, seeds)
    part = sample(tiny.model, ["a red cat"] * 3, seeds[67:])
    torch.testing.assert_close(whole[67:], part, atol=1e-5, rtol=0)


def test_the_best_of_several_is_the_one_closest_to_the_text(tiny: Unclip) -> None:
    text = tiny.model.encode_text(PROMPTS).embed
    best = sample(tiny.model, PROMPTS, [1, 2, 3, 4], prior_best_of=6)
    generators = make_generators([1, 2, 3, 4])
    encoded, nothing = tiny.model.encode_text(PROMPTS), tiny.model.encode_text([""] * 4)
    how = SamplingOptions(prior="autoregressive")
    singles = [tiny.model.sample_prior(encoded, nothing, Run(generators, CPU, how)) for _ in range(6)]
    cosines = torch.stack([torch.cosine_similarity(each, text) for each in singles])  # 6 b
    torch.testing.assert_close(torch.cosine_similarity(best, text), cosines.max(0).values, atol=1e-5, rtol=0)


def test_temperature_and_top_p_of_the_request_are_used(tiny: Unclip) -> None:
    certain = sample(tiny.model, ["a cat"] * 2, [1, 2], prior_temperature=0)
    narrow = sample(tiny.model, ["a cat"] * 2, [1, 2], prior_top_p=0)
    # The dot products still differ, by their generators.
    torch.testing.assert_close(certain, narrow)
    assert not torch.allclose(certain, sample(tiny.model, ["a cat"] * 2, [1, 2], prior_temperature=3))


def test_progress_is_reported_for_each_code(tiny: Unclip) -> None:
    seen: list[tuple[str, int, int]] = []
    text = tiny.model.encode_text(["a cat"])
    run = Run(make_generators([1]), CPU, SamplingOptions(prior="autoregressive"), lambda *step: seen.append(step))
    tiny.model.sample_prior(text, text, run)
    assert seen == [("prior", done, 5) for done in range(6)] and run.timings["prior"] > 0


def test_a_prior_that_the_model_lacks_is_an_error(tiny: Unclip) -> None:
    from dataclasses import replace

    model = replace(tiny.model, autoregressive_prior=None)
    with pytest.raises(RequestError, match="tiny has no autoregressive prior, only diffusion"):
        model.require_prior("autoregressive")
    assert list(tiny.model.priors) == ["diffusion", "autoregressive"]
    assert list(replace(tiny.model, default_prior="autoregressive").priors)[0] == "autoregressive"
