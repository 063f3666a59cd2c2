import torch
from torch import Tensor

from unclip.diffusion.feature_reuse import FeatureReuse

BOTH, COND, UNCOND = ("uncond", "cond"), ("cond",), ("uncond",)


class Split:
    """Its features are the input's first value; it remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[float]]] = []

    def whole(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(("whole", x[:, 0].tolist()))
        return x, x[:, :1]

    def shallow(self, features: Tensor, x: Tensor, t: Tensor) -> Tensor:
        self.calls.append(("shallow", features[:, 0].tolist()))
        assert len(features) == len(x)
        return x


def called(every: int, *calls: tuple[tuple[str, ...], list[float], int]) -> list[tuple[str, list[float]]]:
    split = Split()
    reuse = FeatureReuse(split, every)
    for halves, values, t in calls:
        reuse.run(halves, torch.tensor(values)[:, None], torch.tensor([t] * len(values)))  # pyright: ignore
    return split.calls


def test_every_call_is_whole_with_an_interval_of_one() -> None:
    assert called(1, (COND, [1], 9), (COND, [2], 8)) == [("whole", [1]), ("whole", [2])]


def test_the_whole_network_runs_at_one_call_of_k() -> None:
    found = called(3, *((COND, [i], 9 - i) for i in range(1, 6)))
    assert found == [("whole", [1]), ("shallow", [1]), ("shallow", [1]), ("whole", [4]), ("shallow", [4])]


def test_the_halves_of_guidance_have_their_own_features() -> None:
    found = called(9, (BOTH, [1, 2, 3, 4], 9), (COND, [5, 6], 8), (UNCOND, [5, 6], 7), (BOTH, [7] * 4, 6))
    assert found == [("whole", [1, 2, 3, 4]), ("shallow", [3, 4]), ("shallow", [1, 2]), ("shallow", [1, 2, 3, 4])]


def test_a_half_without_features_runs_the_whole_network() -> None:
    found = called(9, (COND, [1], 9), (BOTH, [2, 3], 8), (COND, [4], 7))
    assert found == [("whole", [1]), ("whole", [2, 3]), ("shallow", [3])]
    assert called(9, (UNCOND, [1], 9), (COND, [2], 8)) == [("whole", [1]), ("whole", [2])]


def test_more_noise_than_before_runs_the_whole_network() -> None:
    """RePaint jumps back; a repetition of one timestep does not."""
    found = called(9, (COND, [1], 9), (COND, [2], 8), (COND, [3], 9), (COND, [4], 9))
    assert found == [("whole", [1]), ("shallow", [1]), ("whole", [3]), ("shallow", [3])]
