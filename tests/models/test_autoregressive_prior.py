"""The autoregressive prior's transformer, and the quantisation of embeddings into codes."""

import itertools

import pytest
import torch
from torch import Tensor

from unclip.models.autoregressive_prior import AutoregressiveConfig, AutoregressiveTransformer, bucket_waves, quantiles
from unclip.models.text import TextEncoding

SIZES = {"embed_dim": 6, "text_width": 8, "context_length": 5, "components": 3, "buckets": 4, "waves": 4}
SMALL = {**SIZES, "width": 8, "layers": 2, "heads": 2}


def network(seed: int = 0, **sizes: int) -> AutoregressiveTransformer:
    torch.manual_seed(seed)
    made = AutoregressiveTransformer(AutoregressiveConfig(**{**SMALL, **sizes})).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.mul_(2).add_(torch.randn_like(parameter) * 0.2)  # stronger effects than at initialization
    return made


def texts(b: int, seed: int = 1, lengths: tuple[int, ...] = (3, 5, 4)) -> TextEncoding:
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < torch.tensor([lengths[i % len(lengths)] for i in range(b)])[:, None]
    embed, states = torch.randn(b, 6, generator=g), torch.randn(b, 5, 8, generator=g)
    return TextEncoding(embed, states, mask, torch.zeros(b, 5, dtype=torch.int64))


def log_likelihood(net: AutoregressiveTransformer, text: TextEncoding, dots: Tensor, codes: Tensor) -> Tensor:
    """The log probability of codes `b k`, `b`."""
    logits = net(**net.condition(text), dots=dots, codes=codes[:, :-1]).double()
    return logits.log_softmax(-1).gather(2, codes[..., None]).sum((1, 2))


def test_the_likelihoods_of_all_sequences_add_up_to_one_and_are_products_of_conditionals() -> None:
    net = network()
    all_codes = torch.tensor(list(itertools.product(range(4), repeat=3)))  # 64 3
    text, dots = texts(1).repeat(64), torch.full((64,), 2)
    likelihood = log_likelihood(net, text, dots, all_codes).exp()
    assert likelihood.sum().item() == pytest.approx(1, abs=1e-6)
    assert likelihood.max() > 2 / 64  # not the uniform distribution, of which nothing could be told
    table = likelihood.view(4, 4, 4)
    # By enumeration: p(first), p(second | first), p(third | first, second) from sums over all sequences.
    for a, b, c in all_codes.tolist():
        logits = net(**net.condition(texts(1)), dots=dots[:1], codes=torch.tensor([[a, b]]))[0].double()
        first, second, third = logits.softmax(-1)
        assert first[a].item() == pytest.approx(table[a].sum().item(), abs=1e-6)
        assert second[b].item() == pytest.approx((table[a, b].sum() / table[a].sum()).item(), abs=1e-6)
        assert third[c].item() == pytest.approx((table[a, b, c] / table[a, b].sum()).item(), abs=1e-6)


@pytest.mark.parametrize("steps", [(0, 1, 2), (0, 2), (1, 2)])
def test_a_cache_changes_nothing(steps: tuple[int, ...]) -> None:
    net, text, dots = network(), texts(3), torch.tensor([0, 3, 1])
    codes = torch.tensor([[1, 0], [3, 3], [2, 0]])
    whole = net(**net.condition(text), dots=dots, codes=codes)  # b 3 m
    cache, seen = net.new_cache(), 0
    for j in steps:
        part = net(**net.condition(text), dots=dots, codes=codes[:, :j], cache=cache)
        torch.testing.assert_close(part, whole[:, seen : j + 1], atol=1e-5, rtol=1e-5)
        seen = j + 1


def test_logits_depend_on_what_comes_before_and_on_nothing_else() -> None:
    net, text, dots = network(), texts(3), torch.tensor([0, 3, 1])
    codes = torch.tensor([[1, 0], [3, 3], [2, 0]])
    out = net(**net.condition(text), dots=dots, codes=codes)
    later = codes.clone()
    later[:, 1] = (later[:, 1] + 1) % 4
    changed = net(**net.condition(text), dots=dots, codes=later)
    torch.testing.assert_close(changed[:, :2], out[:, :2])
    assert (changed[:, 2] - out[:, 2]).abs().amax(1).min() > 1e-3
    other = texts(3, seed=2)
    padding = torch.where(text.mask[..., None], text.states, other.states)
    torch.testing.assert_close(net(**net.condition(text._replace(states=padding)), dots=dots, codes=codes), out)
    for condition, dot in (
        (text._replace(embed=other.embed), dots),
        (text._replace(states=other.states), dots),
        (text._replace(mask=torch.ones_like(text.mask)), dots),
        (text, (dots + 1) % 4),
    ):
        again = net(**net.condition(condition), dots=dot, codes=codes)
        assert (again - out).abs().amax((1, 2)).max() > 1e-3


def fitted(n: int = 4000, **sizes: int) -> tuple[AutoregressiveTransformer, Tensor]:
    """A network with a quantiser of correlated embeddings, and these."""
    net = network(**{"buckets": 64, "components": 6, **sizes})
    g = torch.Generator().manual_seed(5)
    embed = torch.randn(n, 6, generator=g) * torch.tensor([5, 3, 2, 1, 0.5, 0.1]) + 2
    axes = torch.linalg.eigh(torch.cov(embed.double().T)).eigenvectors.T.flip(0).float()
    net.fit_quantiser(embed.mean(0), axes, embed, embed.roll(1, 0))
    return net, embed


def test_quantisation_is_off_by_half_a_bucket_at_most_and_fills_the_buckets_equally() -> None:
    net, embed = fitted()
    codes = net.encode(embed)
    assert codes.min() == 0 and codes.max() == 63
    for column in codes.T:
        counts = column.bincount(minlength=64)
        assert counts.min() >= 4000 / 64 - 2 and counts.max() <= 4000 / 64 + 2
    values, restored = ((each - net.components.bias) @ net.components.weight for each in (embed, net.decode(codes)))
    edges = net.edges
    half = (edges[:, 1:] - edges[:, :-1]) / 2  # k m
    bound = half.gather(1, codes.T).T + 1e-4
    assert ((values - restored).abs() <= bound).all()
    assert torch.equal(net.encode(net.decode(codes)), codes)
    far = net.encode(embed.mean(0) + 1e6 * net.components.weight.T)
    assert (far.diagonal() == 63).all()  # beyond the outer edges


def test_mixed_precision_does_not_change_the_codes() -> None:
    net, embed = fitted(buckets=1024)
    codes = net.encode(embed)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.encode(embed), codes)
    rounded = net.to(torch.bfloat16).decode(codes)  # as a model is loaded on a GPU
    assert rounded.dtype == torch.float32 and torch.cosine_similarity(rounded, embed).min() > 0.99


def test_fewer_components_lose_the_variance_of_the_rest() -> None:
    whole, embed = fitted(buckets=512)
    lost = (whole.decode(whole.encode(embed)) - embed).square().sum(1).mean()
    net, _ = fitted(buckets=512, components=4)
    error = (net.decode(net.encode(embed)) - embed).square().sum(1).mean()
    assert error.item() == pytest.approx(0.5**2 + 0.1**2 + lost.item(), rel=0.1)


def test_equal_examples_are_quantised() -> None:
    net = network()
    net.fit_quantiser(torch.ones(6), torch.eye(6), torch.ones(3, 6), torch.ones(3, 6))
    assert net.decode(net.encode(torch.ones(2, 6))).isfinite().all()


def test_the_dot_product_is_quantised_into_equal_parts() -> None:
    net, embed = fitted(buckets=4)
    counts = net.encode_dot(embed, embed.roll(1, 0)).bincount(minlength=4)
    assert (counts - 1000).abs().max() <= 2


def test_quantiles_are_those_of_torch() -> None:
    values = torch.randn(2, 101, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantiles(values, 8), torch.quantile(values, torch.linspace(0, 1, 9), dim=1).T)


def test_as_many_waves_as_buckets_make_any_logits() -> None:
    # With a constant, to which the softmax is blind.
    waves = torch.cat([bucket_waves(8, 7), torch.ones(8, 1)], dim=1)
    assert torch.linalg.matrix_rank(waves) == 8


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"components": 7}, "components is 7, more than the 6"),
        ({"heads": 3}, "width is 8, and should be an even multiple of heads, 3"),
        ({"buckets": 1}, "buckets is 1, and should be 2 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoregressiveConfig(**{**SMALL, **sizes})
