"""Convolutions whose weights lie as oneDNN computes with them, on a CPU that computes in bfloat16.

Else every call lays them out anew, which takes longer than the convolution where a picture is small: six of seven
milliseconds for 2560 channels of 8 x 8 pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

OPERATIONS = ("_is_mkldnn_bf16_supported", "_reorder_convolution_weight", "_convolution_pointwise")


class PackedConv2d(nn.Conv2d):
    """A `Conv2d` with a packed weight. Its input and output are in channels_last."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not weight.is_mkldnn:
            return super()._conv_forward(input, weight, bias)
        x = input.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self._how, "none", [], "")

    def plus(self, x: Tensor, term: Tensor) -> Tensor:
        """The convolution of `b c h w` and a term of the result's shape, added before anything is rounded."""
        x, term = (each.contiguous(memory_format=torch.channels_last) for each in (x, term))
        sum_ = ("add", 1, None, [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, term, self.weight, self.bias, *self._how, *sum_)

    @property
    def _how(self) -> tuple:
        return self.padding, self.stride, self.dilation, self.groups


def convolved_plus(conv: nn.Conv2d, x: Tensor, term: Tensor) -> Tensor:
    """`conv(x) + term`, in one pass over memory where that can be; the term is `b d h w`, or `b d 1 1` of every pixel.

    For drawing: nothing here has a gradient.
    """
    if not (isinstance(conv, PackedConv2d) and conv.weight.is_mkldnn):
        return conv(x).add_(term)
    if term.shape[2:] != (1, 1):
        return conv.plus(x, term)
    if len(x) > 1:  # a convolution has one bias for all its pictures
        return conv(x).add_(term)
    bias = term[0, :, 0, 0] if conv.bias is None else conv.bias + term[0, :, 0, 0]
    return conv._conv_forward(x, conv.weight, bias)


def pack(network: nn.Module) -> nn.Module:
    """Pack the weights of every convolution in `network` that gains by it; returns `network`, which is then to draw.

    It cannot be trained, copied, cast, or saved any more: a packed weight has no values to be read. The operations are
    those that torch.compile uses for it; a torch that lacks them changes nothing.
    """
    if not can_pack():
        return network
    for module in network.modules():
        if type(module) in (nn.Conv2d, PackedConv2d) and _gains(module):
            module.__class__ = PackedConv2d
            packed = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *module._how, None)
            module.weight = nn.Parameter(packed, requires_grad=False)
    return network


def can_pack() -> bool:
    """Whether this torch, and this processor, have what it takes."""
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in OPERATIONS):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed_flops() -> dict[Any, Callable[..., int]]:
    """For torch's FlopCounterMode, which knows no packed convolutions: two operations a multiplication and addition."""

    def flops(x: torch.Size, second: torch.Size, third: torch.Size | None, *_: Any, out_shape: torch.Size) -> int:
        # With a sum, the second is the term and the third the weight; else the weight, and the bias of one dimension.
        weight = third if third is not None and len(third) == len(x) else second
        kernel = torch.Size(weight[1:]).numel()  # of one output channel; its input channels are those of a group
        return 2 * kernel * torch.Size(out_shape).numel()

    return {torch.ops.mkldnn._convolution_pointwise: flops} if can_pack() else {}


def _gains(conv: nn.Conv2d) -> bool:
    weight = conv.weight
    dense = weight.device.type == "cpu" and weight.layout == torch.strided
    return dense and weight.dtype == torch.bfloat16 and conv.padding_mode == "zeros" and conv.padding not in SAME


SAME = ("same", "valid")  # words for paddings, which the operations do not know
