import pytest
import torch
import torch.nn.functional as F

from unclip.models.cpu.attention import attend, attend_in_blocks

BIASES = {"no bias": None, "bias": torch.tensor([[0.0] * 9, [0.0] * 5 + [-10_000.0] * 4])[:, None, None]}


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_blocks_give_what_torch_gives(bias: torch.Tensor | None, block: int) -> None:
    queries, (keys, values) = torch.randn(2, 3, 7, 8), torch.randn(2, 2, 3, 9, 8)
    queries = queries.transpose(1, 2).contiguous().transpose(1, 2)  # as the heads of a layer are
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    found = attend_in_blocks(queries, keys, values, bias, block)
    torch.testing.assert_close(found, expected)
    half = attend_in_blocks(*(x.bfloat16() for x in (queries, keys, values)), bias, block)
    torch.testing.assert_close(half.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_attention_is_torchs_with_and_without_gradients(dtype: torch.dtype, bias: torch.Tensor | None) -> None:
    queries, (keys, values) = torch.randn(2, 3, 7, 8), torch.randn(2, 2, 3, 9, 8)
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    given = [x.to(dtype) for x in (queries, keys, values)]
    bias = None if bias is None else bias.to(dtype)
    close = {"atol": 0.03, "rtol": 0.03} if dtype is torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    with torch.no_grad():
        torch.testing.assert_close(attend(*given, bias).float(), expected, **close)
    given[0].requires_grad_()
    out = attend(*given, bias)
    torch.testing.assert_close(out.float(), expected, **close)
    out.float().sum().backward()
    assert given[0].grad is not None
