import torch
from diffusers.utils.torch_utils import randn_tensor

from unclip.diffusion.noise import make_generators, randn


def test_the_numbers_are_those_of_diffusers() -> None:
    expected = randn_tensor((3, 2, 4, 4), generator=make_generators([7, 8, 9]))
    assert torch.equal(randn((2, 4, 4), make_generators([7, 8, 9])), expected)


def test_an_items_noise_depends_on_its_seed_alone() -> None:
    batch = randn((5,), make_generators([3, 0, 2**63 - 1]))
    for place, seed in enumerate([3, 0, 2**63 - 1]):
        assert torch.equal(batch[place], randn((5,), make_generators([seed]))[0])


def test_precision_does_not_change_the_draw() -> None:
    half = randn((6,), make_generators([1]), dtype=torch.bfloat16)
    assert torch.equal(half, randn((6,), make_generators([1])).bfloat16())


def test_generators_are_consumed_in_turn() -> None:
    one = make_generators([5])
    first, second = randn((4,), one), randn((4,), one)
    assert not torch.equal(first, second)
    again = make_generators([5])
    assert torch.equal(randn((4,), again), first)
    assert torch.equal(randn((4,), again), second)
