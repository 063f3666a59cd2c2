import pytest
import torch
from torch import nn

from unclip.models.cpu.batch_invariance import KEY_BLOCK, keep_whole_blocks, use_batch_invariant_layers


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [(64, 256), (160, 160), (256, 384)], ids=str)
def test_a_row_does_not_depend_on_the_number_of_rows(sizes: tuple[int, int]) -> None:
    [linear] = use_batch_invariant_layers(nn.Sequential(nn.Linear(*sizes)))
    x = torch.randn(9, sizes[0])
    plain = nn.functional.linear(x, linear.weight, linear.bias)
    for count in range(1, 10):
        assert torch.equal(linear(x[:count]), plain[:count])
    assert linear(x[0]).shape == (sizes[1],)
    assert linear(x[:0]).shape == (0, sizes[1])


@torch.inference_mode()
@pytest.mark.parametrize("masked", [False, True])
def test_attention_does_not_depend_on_the_batch_and_is_torchs(masked: bool) -> None:
    plain = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x, mask = torch.randn(6, 24, 32), torch.full((24, 24), float("-inf")).triu(1) if masked else None
    expected = plain(x, x, x, need_weights=False, attn_mask=mask)[0]
    [attention] = use_batch_invariant_layers(nn.Sequential(plain))
    whole = attention(x, x, x, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(whole, expected, atol=1e-6, rtol=1e-5)
    for count in range(1, 6):
        part = x[:count]
        assert torch.equal(attention(part, part, part, need_weights=False, attn_mask=mask)[0], whole[:count])


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
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("channels", "side", "kernel", "stride"),
    [((64, 64), 16, 3, 1), ((256, 128), 8, 1, 1), ((320, 192), 4, 1, 1), ((64, 48), 16, 3, 2), ((3, 32), 64, 3, 1)],
    ids=str,
)
def test_a_convolution_does_not_depend_on_the_number_of_images(channels, side, kernel, stride, threads) -> None:
    plain = nn.Conv2d(*channels, kernel, stride, kernel // 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # torch chooses another library by the number of threads, too
    try:
        x = torch.randn(40, channels[0], side, side)
        expected = plain(x)
        [conv] = use_batch_invariant_layers(nn.Sequential(plain))
        whole = conv(x)
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
        for count in (1, 2, 3, 7, 15, 16, 17):
            assert torch.equal(conv(x[:count]), whole[:count])
    finally:
        torch.set_num_threads(before)
    assert conv(x[:0]).shape == (0, *expected.shape[1:])


def test_a_convolution_still_learns() -> None:
    [conv] = use_batch_invariant_layers(nn.Sequential(nn.Conv2d(4, 4, 3)))
    conv(torch.randn(1, 4, 8, 8)).sum().backward()
    assert conv.weight.grad is not None
