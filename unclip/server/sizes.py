"""Sizes that a model does not generate: which one it generates instead, and whether an edit can be scaled to it."""

from unclip.errors import RequestError
from unclip.inference.model import UnclipModel
from unclip.requests.fields import MAX_SIDE

Size = tuple[int, int]
"""(width, height) in pixels."""
MULTIPLES = (8, 16, 32, 64, 128)
"""Of these, a model of any size needs its sides to be."""


def generates(model: UnclipModel, size: Size) -> bool:
    """Whether a model generates images of a size."""
    try:
        model.check_size(size)
    except RequestError:
        return False
    return True


def nearest_size(model: UnclipModel, size: Size) -> Size:
    """The size that a model generates from which an image of `size` is best made.

    That is the smallest one that is only reduced, else the one that is enlarged least.
    """
    if model.decoder.any_size:
        for multiple in MULTIPLES:
            larger = round_up(size[0], multiple), round_up(size[1], multiple)
            if max(larger) <= MAX_SIDE and generates(model, larger):
                return larger
    return min(model.sizes, key=lambda one: (max(1.0, scale(one, size)), one[0] * one[1]))


def scale(one: Size, other: Size) -> float:
    """The factor by which an image is scaled to cover another size."""
    return max(other[0] / one[0], other[1] / one[1])


def is_proportional(one: Size, other: Size) -> bool:
    """Whether two sizes have the same proportions, up to a pixel."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
