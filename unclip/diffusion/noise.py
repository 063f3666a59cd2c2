"""Random numbers: one generator per image, so that an image does not depend on its place in a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = Sequence[torch.Generator]
"""One per image of the batch."""


def make_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per seed. The stages use them in order: prior, decoder, upsamplers."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def uniform(shape: Sequence[int], generators: Generators) -> Tensor:
    """Numbers in [0, 1), `b *shape`, item i from generators[i]. In float64 and on the CPU."""
    return torch.stack([torch.rand(tuple(shape), generator=g, dtype=torch.float64) for g in generators])


def randn(
    shape: Sequence[int],
    generators: Generators,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise `b *shape`, item i from generators[i].

    The numbers are generated in float32 on the CPU and then moved, so that neither device nor precision changes them.
    They equal the output of diffusers' `randn_tensor` with a list of generators.
    """
    noise = [torch.randn((1, *shape), generator=g, dtype=torch.float32) for g in generators]
    return torch.cat(noise).to(device, dtype)
