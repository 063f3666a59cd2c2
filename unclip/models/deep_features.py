"""Reuse the deep features of a U-Net: run it whole, or its shallow layers only, with features of an earlier step.

DeepCache: Ma, Fang & Wang 2023 (arXiv:2312.00858). From one denoising step to the next, the features of the coarse
levels hardly change, and they are most of the work.
"""

import copy
from typing import Any

from torch import Tensor, nn

KEPT_LAYERS = 2
"""Residual layers of the finest level that a shallow call runs before the output; one fewer after the input."""


class DeepFeatures:
    """A network with a U-Net of diffusers as its `unet`, for one call site at a time.

    The U-Net's own `forward` runs in both cases, on a copy of the module that shares all weights. Some children differ:
    in one, a layer that records its features; in the other, layers that return the recorded ones in place of the deep
    ones. So the network itself never changes, and other threads may run it meanwhile.
    """

    def __init__(self, network: Any):
        self._recorder, self._player = _Recorder(), _Player()
        self._whole = _with_unet(network, _recording(network.unet, self._recorder))
        self._shallow = _with_unet(network, _playing(network.unet, self._player))

    def whole(self, x: Tensor, t: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the whole network, and its deep features `b c h w`."""
        output, features = self._whole(x, t, **inputs), self._recorder.take()
        return output, features

    def shallow(self, features: Tensor, x: Tensor, t: Tensor, **inputs: Tensor) -> Tensor:
        """The output of the shallow layers, with deep features `b c h w` from `whole`."""
        self._player.features = features
        try:
            return self._shallow(x, t, **inputs)
        finally:
            self._player.features = None


def can_reuse_features(network: Any) -> bool:
    """Whether a network has a U-Net whose finest level has at least two layers, so that one of them can be skipped."""
    blocks = getattr(getattr(network, "unet", None), "up_blocks", None)
    return blocks is not None and len(getattr(blocks[-1], "resnets", ())) >= 2


class _Recorder:
    """Holds the features of the last call."""

    def __init__(self) -> None:
        self.features: Tensor | None = None

    def take(self) -> Tensor:
        features, self.features = self.features, None
        assert features is not None, "the U-Net did not run"
        return features


class _Recording(nn.Module):
    """Runs a layer and records its output."""

    def __init__(self, layer: nn.Module, recorder: _Recorder):
        super().__init__()
        self.layer, self._recorder = layer, recorder

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(*args, **kwargs)
        self._recorder.features = output[0] if isinstance(output, tuple) else output
        return output


class _Player:
    """Holds the features that replace those of the deep layers."""

    def __init__(self) -> None:
        self.features: Tensor | None = None

    def full(self) -> Tensor:
        assert self.features is not None, "there are no features"
        return self.features

    def empty(self) -> Tensor:
        """Features with no channels, where a deep layer would read others: concatenating them costs nothing."""
        return self.full()[:, :0]


class _Skipped(nn.Module):
    """Takes the place of a deep layer: returns the features, or none. Called as the layer is."""

    def __init__(self, player: _Player, full: bool = False):
        super().__init__()
        self._player, self._full = player, full

    def forward(self, *_: Any, **kwargs: Any) -> Any:
        features = self._player.full() if self._full else self._player.empty()
        return (features,) if kwargs.get("return_dict") is False else features  # a transformer returns a tuple


class _SkippedDownBlock(nn.Module):
    """Takes the place of a block of the way down: returns no features, as often as the way up takes some."""

    def __init__(self, block: Any, player: _Player):
        super().__init__()
        self._player, self._count = player, len(block.resnets) + len(block.downsamplers or ())

    def forward(self, *_: Any, **__: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        empty = self._player.empty()
        return empty, (empty,) * self._count


class _SkippedUpBlock(_Skipped):
    """Takes the place of a block of the way up, which takes one feature for each of its layers."""

    def __init__(self, block: Any, player: _Player):
        super().__init__(player)
        self.resnets = range(len(block.resnets))


def _kept_layers(unet: Any) -> int:
    return min(KEPT_LAYERS, len(unet.up_blocks[-1].resnets) - 1)


def _recording(unet: Any, recorder: _Recorder) -> nn.Module:
    """A copy of a U-Net that records the features before the kept layers of its last block."""
    last, index = unet.up_blocks[-1], len(unet.up_blocks[-1].resnets) - _kept_layers(unet) - 1
    name = "attentions" if _has_attentions(last) else "resnets"
    layers = list(getattr(last, name))
    layers[index] = _Recording(layers[index], recorder)
    return _with_children(unet, up_blocks=[*unet.up_blocks[:-1], _with_children(last, **{name: layers})])


def _playing(unet: Any, player: _Player) -> nn.Module:
    """A copy of a U-Net that runs the kept layers only, on given features."""
    kept, first, last = _kept_layers(unet), unet.down_blocks[0], unet.up_blocks[-1]
    skipped = len(last.resnets) - kept

    def going_down(layers: nn.ModuleList) -> list[nn.Module]:
        return [layer if i < kept - 1 else _Skipped(player) for i, layer in enumerate(layers)]

    def going_up(layers: nn.ModuleList) -> list[nn.Module]:
        return [layer if i >= skipped else _Skipped(player, full=i == skipped - 1) for i, layer in enumerate(layers)]

    names = ("resnets", "attentions") if _has_attentions(first) else ("resnets",)
    down = {name: going_down(getattr(first, name)) for name in names}
    if first.downsamplers is not None:
        down["downsamplers"] = [_Skipped(player) for _ in first.downsamplers]
    names = ("resnets", "attentions") if _has_attentions(last) else ("resnets",)
    up = {name: going_up(getattr(last, name)) for name in names}
    return _with_children(
        unet,
        down_blocks=[_with_children(first, **down), *(_SkippedDownBlock(b, player) for b in unet.down_blocks[1:])],
        mid_block=_Skipped(player),
        up_blocks=[*(_SkippedUpBlock(b, player) for b in unet.up_blocks[:-1]), _with_children(last, **up)],
    )


def _has_attentions(block: Any) -> bool:
    return getattr(block, "attentions", None) is not None


def _with_unet(network: Any, unet: nn.Module) -> Any:
    return _with_children(network, unet=unet)


def _with_children(module: nn.Module, **children: nn.Module | list[nn.Module]) -> Any:
    """A copy of a module that shares its weights and buffers, with some of its children replaced."""
    twin = copy.copy(module)
    new = {name: nn.ModuleList(child) if isinstance(child, list) else child for name, child in children.items()}
    twin.__dict__["_modules"] = {**module._modules, **new}
    if (own := module.__dict__.get("forward")) is not None:  # the weights are offloaded: load them, then run the copy
        twin.__dict__["forward"] = own.for_copy(twin)
    return twin
