import math

import torch

from unclip.embeddings import slerp

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
