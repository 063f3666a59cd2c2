"""Convolutions with weights prepacked in oneDNN's blocked layout, for CPUs that compute in bfloat16.

Without it, every call reorders the weights, which takes longer than the convolution of a small image: six of seven
milliseconds for 2560 channels of 8 x 8 pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

OPERATIONS = ("_is_mkldnn_bf16_supported", "_reorder_convolution_weight", "_convolution_pointwise")


class PackedConv2d(nn.Conv2d):
    """A `Conv2d` with a packed weight. Its output is in channels_last."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not weight.is_mkldnn:
            return super()._conv_forward(input, weight, bias)
        x = input.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self._geometry, "none", [], "")

    def add(self, x: Tensor, term: Tensor) -> Tensor:
        """`conv(x) + term` for `b c h w` and a term of the result's shape, added before rounding to bfloat16."""
        x, term = (each.contiguous(memory_format=torch.channels_last) for each in (x, term))
        sum_ = ("add", 1, None, [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, term, self.weight, self.bias, *self._geometry, *sum_)

    @property
    def _geometry(self) -> tuple:
        """The arguments of the convolution operators after weight and bias."""
        return self.padding, self.stride, self.dilation, self.groups


def conv_add(conv: nn.Conv2d, x: Tensor, term: Tensor) -> Tensor:
    """`conv(x) + term`, in one pass over memory if possible. Without gradients.

    x: `b c h w`. term: `b d h w`, or `b d 1 1` to add to every pixel.
    """
    if not (isinstance(conv, PackedConv2d) and conv.weight.is_mkldnn):
        return conv(x).add_(term)
    if term.shape[2:] != (1, 1):
        return conv.add(x, term)
    if len(x) > 1:  # a convolution has one bias for all rows
        return conv(x).add_(term)
    bias = term[0, :, 0, 0] if conv.bias is None else conv.bias + term[0, :, 0, 0]
    return conv._conv_forward(x, conv.weight, bias)


def pack_convolutions(network: nn.Module) -> nn.Module:
    """Pack the weights of the bfloat16 convolutions in `network`, for sampling only; returns `network`.

    On a CPU without AMX, convolutions that packing would slow down keep their weights.

    Packed weights cannot be read: the network can no longer be trained, copied, cast or saved. The operators are those
    that torch.compile uses. If this torch or this CPU lacks them, the network stays unchanged.
    """
    if not can_pack():
        return network
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and type(module) in (nn.Conv2d, PackedConv2d) and _can_pack_conv(module):
            geometry = module.padding, module.stride, module.dilation, module.groups
            packed = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *geometry, _size_hint(module))
            module.__class__ = PackedConv2d
            module.weight = nn.Parameter(packed, requires_grad=False)
    return network


def can_pack() -> bool:
    """Whether this torch has the operators, and this CPU computes in bfloat16."""
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in OPERATIONS):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed_conv_flops() -> dict[Any, Callable[..., int]]:
    """Formulas for torch's FlopCounterMode, which lacks packed convolutions: two operations per multiply-add."""

    def flops(x: torch.Size, second: torch.Size, third: torch.Size | None, *_: Any, out_shape: torch.Size) -> int:
        # Binary form: (x, term, weight). Plain form: (x, weight, bias), whose bias has one dimension.
        weight = third if third is not None and len(third) == len(x) else second
        kernel = torch.Size(weight[1:]).numel()  # per output channel: input channels of its group x height x width
        return 2 * kernel * torch.Size(out_shape).numel()

    return {torch.ops.mkldnn._convolution_pointwise: flops} if can_pack() else {}


def _can_pack_conv(conv: nn.Conv2d) -> bool:
    """Whether `conv` is a dense bfloat16 convolution on the CPU, with its padding in pixels, that packing speeds up."""
    weight = conv.weight
    dense = weight.device.type == "cpu" and weight.layout == torch.strided
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return dense and plain and weight.dtype == torch.bfloat16 and (_has_amx() or _has_one_layout(conv))


def _has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in tiles. Its kernels use one layout for every image size."""
    return torch.cpu._is_amx_tile_supported()


def _has_one_layout(conv: nn.Conv2d) -> bool:
    """Whether the AVX-512 kernels of every image size read the same packed layout of the weight of `conv`.

    Where they do not, oneDNN falls back to its reference code for some sizes, at a hundredth of the speed (measured
    with oneDNN 3.12 on Zen 5: 10 to 140 times slower). So it is for 1 x 1 convolutions, and for output channels that
    divide into blocks of 48 as well as into smaller ones; from 960 channels on, one layout is left.
    """
    return max(conv.kernel_size) > 1 and (conv.out_channels % 48 != 0 or conv.out_channels >= 960)


def _size_hint(conv: nn.Conv2d) -> list[int] | None:
    """An input size for which oneDNN chooses the layout; none where the choice does not depend on it."""
    return None if _has_amx() else [1, conv.in_channels, 8, 8]
