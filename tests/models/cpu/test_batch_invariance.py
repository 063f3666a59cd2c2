from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from unclip.models.cpu.batch_invariance import KEY_BLOCK, keep_whole_blocks, use_batch_invariant_layers


@pytest.fixture(params=[1, 2, 8])
def threads(request) -> Iterator[int]:
    """The number of threads, by which libraries choose how they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def assert_independent(layer: Callable[[Tensor], Tensor], x: Tensor, counts: tuple[int, ...]) -> None:
    """Each element of `x` has the same result alone and in batches of the first `counts` elements."""
    alone = torch.cat([layer(x[i : i + 1]) for i in range(max(counts))])
    for count in counts:
        assert torch.equal(layer(x[:count]), alone[:count]), count


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [(64, 256), (160, 160), (256, 384)], ids=str)
def test_a_row_does_not_depend_on_the_number_of_rows(sizes: tuple[int, int], threads: int) -> None:
    [linear] = use_batch_invariant_layers(nn.Sequential(nn.Linear(*sizes)))
    x = torch.randn(40, sizes[0])
    torch.testing.assert_close(linear(x), nn.functional.linear(x, linear.weight, linear.bias))
    assert_independent(linear, x, tuple(range(1, 41)))
    assert linear(x[0]).shape == (sizes[1],)
    assert linear(x[:0]).shape == (0, sizes[1])


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [24, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_does_not_depend_on_the_batch_and_is_torchs(masked: bool, tokens: int, threads: int) -> None:
    plain = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x, mask = torch.randn(6, tokens, 32), torch.full((tokens, tokens), float("-inf")).triu(1) if masked else None
    expected = plain(x, x, x, need_weights=False, attn_mask=mask)[0]
    [attention] = use_batch_invariant_layers(nn.Sequential(plain))
    torch.testing.assert_close(
        attention(x, x, x, need_weights=False, attn_mask=mask)[0], expected, atol=1e-6, rtol=1e-5
    )
    assert_independent(lambda x: attention(x, x, x, need_weights=False, attn_mask=mask)[0], x, (1, 2, 3, 5, 6))


def test_layers_still_learn() -> None:
    [linear] = use_batch_invariant_layers(nn.Sequential(nn.Linear(8, 8)))
    linear(torch.randn(1, 8)).sum().backward()
    assert linear.weight.grad is not None


@pytest.mark.parametrize("count, kept", [(3, 16), (16, 16), (17, 32), (33, 40), (40, 40)])
def test_kept_tokens_fill_blocks(count: int, kept: int) -> None:
    assert KEY_BLOCK == 16
    tokens = torch.arange(40) < count
    assert torch.equal(keep_whole_blocks(tokens), torch.arange(40) < kept)
    with_last = torch.cat([tokens, torch.ones(4, dtype=torch.bool)])  # as the prior has after its text
    assert torch.equal(keep_whole_blocks(with_last)[-4:], with_last[-4:])
    assert torch.equal(keep_whole_blocks(with_last)[:40], torch.arange(40) < kept)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("channels", "side", "kernel", "stride"),
    [((64, 64), 16, 3, 1), ((256, 128), 8, 1, 1), ((320, 192), 4, 1, 1), ((64, 48), 16, 3, 2), ((3, 32), 64, 3, 1)],
    ids=str,
)
def test_a_convolution_does_not_depend_on_the_number_of_images(channels, side, kernel, stride, threads) -> None:
    plain = nn.Conv2d(*channels, kernel, stride, kernel // 2)
    x = torch.randn(40, channels[0], side, side)
    expected = plain(x)
    [conv] = use_batch_invariant_layers(nn.Sequential(plain))
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)
    assert_independent(conv, x, (1, 2, 3, 7, 15, 16, 17, 40))
    assert conv(x[:0]).shape == (0, *expected.shape[1:])


def test_a_convolution_still_learns() -> None:
    [conv] = use_batch_invariant_layers(nn.Sequential(nn.Conv2d(4, 4, 3)))
    conv(torch.randn(1, 4, 8, 8)).sum().backward()
    assert conv.weight.grad is not None
