"""Reuse the deep features of a network at the steps between two that run all of it (see `models.deep_features`)."""

from typing import Protocol

import torch
from torch import Tensor

from unclip.diffusion.guidance import Half


class SplitNetwork(Protocol):
    """A network that runs whole, or by its shallow layers with deep features of an earlier call."""

    def whole(self, x: Tensor, t: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The raw output, and the deep features `b ...`."""
        ...

    def shallow(self, features: Tensor, x: Tensor, t: Tensor, **inputs: Tensor) -> Tensor:
        """The raw output, with deep features `b ...`."""
        ...


class FeatureReuse:
    """A network at one call site: a chunk of a batch or of windows, in one run. It keeps that chunk's deep features.

    every: of this many consecutive calls, the first runs the whole network.
    """

    def __init__(self, network: SplitNetwork, every: int):
        self.network, self.every = network, every
        self._features: dict[tuple[Half, ...], Tensor] = {}
        self._age = 0
        self._last = -1

    def run(self, halves: tuple[Half, ...], x: Tensor, t: Tensor, **inputs: Tensor) -> Tensor:
        """The network's raw output for x `b ...` at timesteps `b`. halves: of the guided batch that x consists of.

        The network runs as a whole if the features are too old, if one of the halves has none, and if x is noisier
        than at the last call: RePaint has jumped back.
        """
        now = int(t[0])
        features = None if self._age >= self.every or now > self._last else self._of(halves)
        self._last = now
        if features is not None:
            self._age += 1
            return self.network.shallow(features, x, t, **inputs)
        output, features = self.network.whole(x, t, **inputs)
        self._features, self._age = {halves: features}, 1
        return output

    def _of(self, halves: tuple[Half, ...]) -> Tensor | None:
        """The features of some halves; None if a half has none."""
        if halves in self._features:
            return self._features[halves]
        for known, features in self._features.items():
            if set(halves) <= set(known):
                parts = dict(zip(known, features.chunk(len(known)), strict=True))
                return torch.cat([parts[half] for half in halves])
        return None
