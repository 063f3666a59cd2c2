"""Muon: momentum whose update of each weight matrix is made orthogonal, and AdamW for all other parameters.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon). The scale of the updates, which lets Muon share AdamW's learning
rate, is that of Liu et al. 2025 (arXiv:2502.16982, section 2.2). The kernel of a convolution is a matrix of its outputs
by its inputs and places.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unclip.training.sharding import local, part_of, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's quintic polynomial, which drives all singular values to about 1."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of an update, as AdamW's have it."""
OUTER = re.compile(r"conv_in|conv_out|embedding|^projection\.")
"""Names of the matrices at the ends of a network, which are left to AdamW."""


def muon_groups(parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Groups of named parameters: inner matrices for Muon, then outer ones, then all others without weight decay."""
    inner = [name for name, p in parameters.items() if p.ndim > 1 and not OUTER.search(name)]
    outer = [p for name, p in parameters.items() if p.ndim > 1 and name not in set(inner)]
    plain = [p for p in parameters.values() if p.ndim <= 1]
    groups = [{"params": [parameters[name] for name in inner], "muon": True}, {"params": outer}]
    return [*groups, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def orthogonalize(matrix: Tensor) -> Tensor:
    """`... m n` -> the nearest matrix with all singular values about 1, by Newton-Schulz iterations in bfloat16."""
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if is_tall else matrix
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the parameters of groups with `muon = True`, AdamW for those of the others.

    The state of a parameter has AdamW's names: `step`, `exp_avg`, and `exp_avg_sq`, which for Muon is a single 0.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        eps: float = 1e-8,
    ):
        """betas, eps: of AdamW. momentum: of Muon."""
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        super().__init__(groups, defaults | {"muon": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make one step. Parameters without a gradient stay as they are."""
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            if not used:
                continue
            for parameter in used:
                if not self.state[parameter]:
                    self.state[parameter] = {
                        "step": torch.tensor(0.0),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.tensor(0.0) if group["muon"] else torch.zeros_like(parameter),
                    }
                self.state[parameter]["step"] += 1
            weights = [local(p) for p in used]
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore
            (self._step_muon if group["muon"] else self._step_adamw)(used, group)

    def _step_muon(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates: dict[Any, list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter in parameters:
            assert parameter.grad is not None
            average = self.state[parameter]["exp_avg"]
            local(average).lerp_(local(parameter.grad), 1 - group["momentum"])
            # Nesterov's. The whole matrix, m n: of a shard each process computes the same and keeps its rows.
            update = whole(parameter.grad.lerp(average, group["momentum"])).flatten(1)
            # A GPU computes all matrices of one shape at once; a CPU gains nothing by that.
            key = update.shape if update.is_cuda else id(parameter)
            updates.setdefault(key, []).append((parameter, update))
        for alike in updates.values():
            scale = RMS * max(alike[0][1].shape) ** 0.5
            orthogonal = orthogonalize(torch.stack([update for _, update in alike]))
            for (parameter, _), update in zip(alike, orthogonal, strict=True):
                change = part_of(update.to(parameter.dtype).view(parameter.shape), parameter)
                local(parameter).add_(local(change), alpha=-group["lr"] * scale)

    def _step_adamw(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        weights = [local(parameter) for parameter in parameters]
        gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        first, second = ([local(state[key]) for state in states] for key in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(first, gradients, 1 - beta1)  # pyright: ignore
        torch._foreach_mul_(second, beta2)  # pyright: ignore
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)  # pyright: ignore
        steps = [float(state["step"]) for state in states]
        roots = torch._foreach_sqrt(second)  # pyright: ignore
        torch._foreach_div_(roots, [(1 - beta2**step) ** 0.5 for step in steps])  # pyright: ignore
        torch._foreach_add_(roots, group["eps"])  # pyright: ignore
        rates = [-group["lr"] / (1 - beta1**step) for step in steps]
        torch._foreach_addcdiv_(weights, first, roots, rates)  # pyright: ignore
