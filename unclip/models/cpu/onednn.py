"""Convolutions with weights prepacked in oneDNN's blocked layout, for CPUs that compute in bfloat16.

Without it, every call reorders the weights, which takes longer than the convolution of a small image: six of seven
milliseconds for 2560 channels of 8 x 8 pixels.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from unclip.models.cpu.batch_invariance import BatchInvariantConv2d

OPERATIONS = (
    *("_is_mkldnn_bf16_supported", "_reorder_convolution_weight"),
    *("_convolution_pointwise", "_get_mkldnn_serialized_md"),
)

LAYOUT = "onednn_layout"
"""Name of the attribute of a packed weight that describes its layout."""


class PackedConv2d(BatchInvariantConv2d):
    """A `Conv2d` that packs its weight when it is called. Its output is in channels_last.

    The layout depends on the input's size. In another one than the convolution uses, the weight would be reordered in
    every call by a routine without vector instructions: 0.5 seconds for 768 channels of 8 x 8 pixels, and not 0.01.

    A packed weight cannot be read. It is unpacked to copy, pickle, cast, move, save, load or train the module.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not can_pack_weight(weight):
            return super()._conv_forward(input, weight, bias)
        if torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad):  # the operators have no gradient
            return super()._conv_forward(input, self.unpack(), bias)
        x = input.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(x, self.pack(x), bias, *self._geometry, "none", [], "")

    def add(self, x: Tensor, term: Tensor) -> Tensor:
        """`conv(x) + term` for `b c h w` and a term of the result's shape, added before rounding to bfloat16."""
        x, term = (each.contiguous(memory_format=torch.channels_last) for each in (x, term))
        sum_ = ("add", 1, None, [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, term, self.pack(x), self.bias, *self._geometry, *sum_)

    def pack(self, x: Tensor) -> Tensor:
        """The weight in the layout for an input `b c h w`."""
        weight, sizes = self.weight, (*self.weight.shape, *x.shape)
        layout = _find_layout(sizes, self._geometry, torch.get_num_threads())
        if weight.is_mkldnn and getattr(weight, LAYOUT, None) == layout:
            return weight
        with torch.inference_mode(False):  # inference tensors could not be used outside inference mode
            packed = torch.ops.mkldnn._reorder_convolution_weight(_dense(weight), *self._geometry, x.shape)
            packed = nn.Parameter(packed, requires_grad=False)
        setattr(packed, LAYOUT, layout)  # on the tensor, as other threads may pack for another size meanwhile
        self.weight = packed
        return packed

    def unpack(self) -> Tensor:
        """Replace a packed weight by the dense one; returns it."""
        if self.weight.is_mkldnn:
            with torch.inference_mode(False):
                self.weight = nn.Parameter(_dense(self.weight), requires_grad=self.weight.requires_grad)
        return self.weight

    def __getstate__(self) -> dict[str, Any]:
        self.unpack()
        return self.__dict__

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.unpack()
        return super()._apply(*args, **kwargs)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unpack()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict, *args: Any) -> None:
        if not local_metadata.get("assign_to_params_buffers"):  # into the memory of the present weight
            self.unpack()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    @property
    def _geometry(self) -> tuple:
        """The arguments of the convolution operators after weight and bias."""
        return self.padding, self.stride, self.dilation, self.groups


def _dense(weight: Tensor) -> Tensor:
    """A weight as a dense tensor, without a gradient."""
    return weight.detach().to_dense() if weight.is_mkldnn else weight.detach()


@lru_cache(maxsize=4096)
def _find_layout(sizes: tuple[int, ...], geometry: tuple, threads: int) -> bytes:
    """A description of the layout that a convolution uses, equal for equal layouts. sizes: of weight and input."""
    weight = torch.empty(sizes[:4], dtype=torch.bfloat16)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, sizes[4:])
    return torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()


def conv_add(conv: nn.Conv2d, x: Tensor, term: Tensor) -> Tensor:
    """`conv(x) + term`, in one pass over memory if possible. Without gradients.

    x: `b c h w`. term: `b d h w`, or `b d 1 1` to add to every pixel.
    """
    if not (isinstance(conv, PackedConv2d) and can_pack_weight(conv.weight)):
        return conv(x).add_(term)
    if term.shape[2:] != (1, 1):
        return conv.add(x, term)
    if len(x) > 1:  # a convolution has one bias for all rows
        return conv(x).add_(term)
    bias = term[0, :, 0, 0] if conv.bias is None else conv.bias + term[0, :, 0, 0]
    return conv._conv_forward(x, conv.weight, bias)


def pack_convolutions(network: nn.Module) -> nn.Module:
    """Let every bfloat16 convolution in `network` pack its weight, for sampling only; returns `network`.

    The operators are those that torch.compile uses. If this torch or this CPU lacks them, the network stays unchanged.
    """
    if not can_pack():
        return network
    for module in network.modules():
        if type(module) in (nn.Conv2d, BatchInvariantConv2d) and _can_pack(module):
            module.__class__ = PackedConv2d
    return network


def can_pack() -> bool:
    """Whether this torch has the operators, and this CPU computes in bfloat16."""
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in OPERATIONS):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def onednn_conv_flops() -> dict[Any, Callable[..., int]]:
    """Formulas for torch's FlopCounterMode, which lacks calls of oneDNN: two operations per multiply-add."""

    def flops(x: torch.Size, second: torch.Size, third: torch.Size | None, *_: Any, out_shape: torch.Size) -> int:
        # Binary form: (x, term, weight). Plain form: (x, weight, bias), whose bias has one dimension.
        weight = third if third is not None and len(third) == len(x) else second
        kernel = torch.Size(weight[1:]).numel()  # per output channel: input channels of its group x height x width
        return 2 * kernel * torch.Size(out_shape).numel()

    packed = {torch.ops.mkldnn._convolution_pointwise: flops} if can_pack() else {}
    return {torch.ops.aten.mkldnn_convolution: flops, **packed}


def can_pack_weight(weight: Tensor) -> bool:
    """Whether a weight is packed, or dense and in bfloat16 on the CPU."""
    return weight.is_mkldnn or (
        weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and weight.layout == torch.strided
    )


def _can_pack(conv: Any) -> bool:
    """Whether the weight of a convolution can be packed, and its padding is zeros, given in pixels."""
    return can_pack_weight(conv.weight) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
