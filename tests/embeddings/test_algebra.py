import math

import torch

from unclip.embeddings.algebra import mix, slerp, text_diff

A = torch.tensor([[3.0, 0.0, 0.0]])
B = torch.tensor([[0.0, 1.0, 0.0]])


def test_a_quarter_turn_in_closed_form() -> None:
    for share in (0.0, 0.25, 0.5, 1.0):
        angle = share * math.pi / 2
        expected = (3 - 2 * share) * torch.tensor([[math.cos(angle), math.sin(angle), 0.0]])
        torch.testing.assert_close(slerp(A, B, share), expected)


def test_the_ends_are_the_ends() -> None:
    a, b = torch.randn(2, 5, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_a_share_for_each() -> None:
    a, b = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.0, 0.3, 1.0])
    each = torch.cat([slerp(a[i : i + 1], b[i : i + 1], float(shares[i])) for i in range(3)])
    torch.testing.assert_close(slerp(a, b, shares), each)


def test_equal_directions_stay_and_only_the_length_goes() -> None:
    torch.testing.assert_close(slerp(A, 2 * A, 0.5), 1.5 * A)


def test_opposite_directions_meet_at_right_angles() -> None:
    between = slerp(A, -A, 0.5)
    torch.testing.assert_close(between.norm(), torch.tensor(3.0))
    assert abs(float((between * A).sum())) < 1e-4
    torch.testing.assert_close(slerp(A, -A, 1.0), -A)


# ---- mixtures


def test_a_mixture_of_two_is_the_way_between_them() -> None:
    a, b = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mix(torch.stack([a, b]), [3, 1]), slerp(a[None], b[None], 0.25)[0])


def test_three_axes_mixed_evenly_meet_in_the_middle() -> None:
    torch.testing.assert_close(mix(torch.diag(torch.tensor([1.0, 2.0, 3.0])), [1, 1, 1]), torch.full((3,), 2 / 3**0.5))


def test_a_mixture_does_not_depend_on_the_order_and_what_weighs_nothing_is_nothing() -> None:
    vectors = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    mixed = mix(vectors, [1, 2, 0, 4])
    torch.testing.assert_close(mix(vectors.flip(0), [4, 0, 2, 1]), mixed)
    torch.testing.assert_close(mix(vectors[[0, 1, 3]], [1, 2, 4]), mixed)
    torch.testing.assert_close(mix(vectors, [0, 0, 5, 0]), vectors[2])
    torch.testing.assert_close(mix(vectors[:1], [1.0]), vectors[0])


def test_the_mean_direction_is_where_the_turns_towards_all_cancel() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).abs(), dim=-1)
    weights = torch.tensor([1.0, 2.0, 1.0, 0.5, 3.0])
    mean = mix(vectors, weights.tolist())
    cosine = vectors @ mean
    turns = torch.nn.functional.normalize(vectors - cosine[:, None] * mean, dim=-1) * cosine.acos()[:, None]
    assert (weights @ turns).norm() < 1e-4


def test_opposite_vectors_that_leave_no_mean_give_one_of_them() -> None:
    mixed = mix(torch.cat([B, -B, B * 0 + A / 3, -A / 3]), [1, 1, 1, 1])
    torch.testing.assert_close(mixed.norm(), torch.tensor(1.0))


# ---- text diffs


def test_a_text_diff_turns_towards_the_difference_and_keeps_the_length() -> None:
    image = torch.tensor([[0.0, 0.0, 4.0]])
    turned = text_diff(image, 5 * B, torch.tensor([[2.0, 0.0, 0.0]]), 0.5)
    away = torch.tensor([-1.0, 1.0, 0.0]) / 2**0.5
    torch.testing.assert_close(turned, 4 * (torch.tensor([0, 0, 1.0]) + away)[None] / 2**0.5)
    assert torch.equal(text_diff(image, B, A, 0.0), image)
    torch.testing.assert_close(text_diff(image, B, B, 0.5), image)  # no difference, nowhere to go


def test_a_mixture_of_one_alone_is_that_one() -> None:
    vectors = torch.randn(3, 160, generator=torch.Generator().manual_seed(6))
    assert torch.equal(mix(vectors, (0, 0, 1)), vectors[2]) and torch.equal(mix(vectors[:1], (1,)), vectors[0])
