"""What of its pictures a decoder is shown in training: parts, as an inpainting keeps, or the windows of an outpainting.

Windows need pictures whose border is flat, as those of scenes are: what lies behind it is taken to go on like it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_STILL = 0.5  # of the windows that only see their own picture: half of it is known where it stands
_SEEN = 0.25  # of the pictures beside others: they are what is known, and nothing is beside them
_SHRINK = 5 / 8  # what does not fit beside a known part as it is is drawn at this size, as objects beside others are
_COMPACT = 0.85  # of a side: what spans more is several objects, too small to draw when shrunk
_GRID = 1 / 16  # places of what is set beside something else: small networks learn a picture again at every offset
_DIFFERS = 0.1  # from the border, of the [-1, 1] of a channel


def with_known(
    images: Tensor, share: float, moved: float, beside: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # b 3 s s, b 1 s s
    """Pictures `b 3 s s` to draw, and masks of what a decoder is told of them, 1 = known: of most, nothing.

    In `share` of them something is known. Of `moved` of those that is one side, and the picture is another too: where
    it can be, of `beside` of those, `pictures_beside`, and else `random_windows`. Of the rest it is as `random_known`
    has it.
    """
    known = random_known(len(images), images.shape[-1], share, generator).to(images)
    if not moved:
        return images, known
    windows, seen = random_windows(images, generator)
    draws = torch.rand(2, len(images), generator=generator)
    window, other = (draws < torch.tensor([moved, beside])[:, None]).to(images.device)  # b, each
    window &= known.flatten(1).any(1)
    if beside:
        others, seen_beside, fits = pictures_beside(images, generator)
        other &= fits
        windows, seen = _where(other, others, windows), _where(other, seen_beside, seen)
    return _where(window, windows, images), _where(window, seen, known)


def random_known(count: int, size: int, share: float, generator: torch.Generator) -> Tensor:
    """Masks `b 1 h w`, 1 = known: nothing known, or in `share` of the samples all but, or only, a random box.

    A third of each box's sides are moved out to the picture's: an outpainting's windows are known up to their border.
    """
    given, inside = torch.rand(2, count, generator=generator)
    corners = torch.rand(2, 2, count, generator=generator).sort(dim=1).values * size  # axis, low and high, b
    moved = torch.rand(2, 2, count, generator=generator) < 1 / 3
    corners = torch.where(moved, torch.tensor([0.0, size])[:, None], corners)
    grid = torch.arange(size) + 0.5
    across = [(grid >= low[:, None]) & (grid < high[:, None]) for low, high in corners]  # b size, each
    box = across[0][:, :, None] & across[1][:, None, :]  # b h w
    known = box ^ (inside < 0.7)[:, None, None]
    return (known & (given < share)[:, None, None])[:, None].float()


def random_windows(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures `b 3 s s` as windows at the edge of an outpainting see them, and masks `b 1 s s`, 1 = known.

    A window is known on one side or on two, for a quarter to three quarters of its length, and the picture has moved
    out of it on that side, wholly at most; or, in some, it has not moved. Behind it its border goes on.
    """
    count, size = len(images), images.shape[-1]
    shift, length = torch.rand(2, 2, count, generator=generator)  # axis b, each
    backwards, still = torch.rand(2, 2, count, generator=generator) < 0.5
    still[1] &= ~still[0]  # it is known along one axis at least
    shift = (shift * size).round().long().masked_fill(torch.rand(count, generator=generator) < _STILL, 0)
    shift = torch.where(backwards, -shift, shift).masked_fill(still, 0)
    free = _beyond(((0.25 + 0.5 * length) * size).round(), backwards, size) | still[..., None]  # axis b s
    return _shifted(images, *shift), _mask(free).to(images)


def pictures_beside(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures `b 3 s s` drawn beside others, masks `b 1 s s`, 1 = known, and of which of them that can be, `b`.

    Known, on one side, for a quarter to three quarters of the length, is the near part of another picture with a border
    of the same colour. In the middle of the rest is what the picture shows, whole: so a decoder learns that what a
    prompt names, when the known part shows something else, is to be painted. In some it is the other way round: known
    is the part with the picture, and the rest is bare, so that what is there is not painted again. Where no other has
    this colour, or shows nothing there, or the picture does not fit, it cannot be.
    """
    count, size = len(images), images.shape[-1]
    length, axis, backwards, seen = torch.rand(4, count, generator=generator)
    length = ((0.25 + 0.5 * length) * size).round()
    along = torch.stack([axis < 0.5, axis >= 0.5])  # axis b
    backwards = (backwards < 0.5).expand(2, -1)
    free = _beyond(length, backwards, size) | ~along[..., None]  # axis b s
    # the other: moved until its edge, in place of its middle, is where the rest begins
    other, alike = _alike(images, torch.rand(count, count, generator=generator))
    shift = torch.where(backwards, length - size, size - length).long() * along
    known = _shifted(images[other.to(images.device)], *shift)
    # the picture: of its own size if it fits, and smaller else, about the middle of what is free
    spans, grid = _spans(images), max(1, round(_GRID * size))  # axis b
    span, room = torch.where(along, spans, 0).amax(0), size - length - grid
    shrunk = span > room
    fits = ~shrunk | ((spans.amax(0) <= _COMPACT * size) & (_SHRINK * span + 2 <= room))  # it blurs, too
    middle = torch.where(backwards, -length, length) / 2 * along  # of what is free, from that of the window
    step = (middle / grid).round().long() * grid
    drawn = _shifted(_where(shrunk.to(images.device), _smaller(images), images), *-step)
    mask = _mask(free).to(images)
    shows = ((known - known[..., :1, :1]).abs() * mask).amax((1, 2, 3)) > _DIFFERS
    can = (alike & fits).to(images.device) & shows
    # the other way round
    bare, seen = images[..., :1, :1].expand_as(images), (seen < _SEEN).to(images.device)
    can = torch.where(seen, (fits & _flat(images)[1]).to(images.device), can)
    drawn = torch.where(mask.bool(), _where(seen, bare, known), drawn)
    return drawn, _where(seen, 1 - mask, mask), can


def _where(chosen: Tensor, these: Tensor, those: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], these, those)


def _beyond(length: Tensor, backwards: Tensor, size: int) -> Tensor:
    """Which positions of a side, `... s`, lie beyond a length that is known of it, from its start or its end."""
    position, length = torch.arange(size), length[..., None]
    return torch.where(backwards[..., None], position < size - length, position >= length)


def _mask(free: Tensor) -> Tensor:
    """`b 1 s s`, 1 = known: all that is not free along both axes of `axis b s`."""
    return 1 - (free[0][:, None, :, None] & free[1][:, None, None, :]).float()


def _shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each picture of `b 3 s s` seen from so many pixels further down and right; its border goes on behind it."""
    size = images.shape[-1]
    position = torch.arange(size)
    y, x = ((position + shift[:, None]).clamp(0, size - 1).to(images.device) for shift in (down, right))  # b s, each
    item = torch.arange(len(images), device=images.device)[:, None, None]
    return images[item, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _smaller(images: Tensor) -> Tensor:
    """Each picture at a smaller size in its own middle; its border goes on around it."""
    size = images.shape[-1]
    small = F.interpolate(images, scale_factor=_SHRINK, mode="bicubic", antialias=True).clamp(-1, 1)
    before = (size - small.shape[-1]) // 2
    after = size - small.shape[-1] - before
    return F.pad(small, (before, after, before, after), mode="replicate")


def _alike(images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """For each picture another with a flat border of the same colour, by a random order `b b`, and if there is one.

    Not the one before or after it, which may show the same (`hard_pairs` of the scenes).
    """
    colour, flat = _flat(images)
    same = (colour[:, None] - colour).abs().amax(2) < _DIFFERS
    place = torch.arange(len(images))
    apart = (place[:, None] - place).abs() > 1
    same = same.cpu() & flat & flat[:, None] & apart
    return torch.where(same, order, -1).argmax(1), same.any(1)


def _flat(images: Tensor) -> tuple[Tensor, Tensor]:
    """The colour of a corner, `b 3`, and whether all of a picture's border has it."""
    ring = torch.cat([images[:, :, [0, -1]].flatten(2), images[..., [0, -1]].flatten(2)], 2)  # b 3 n
    return ring[..., 0], ((ring - ring[..., :1]).abs().amax((1, 2)) < _DIFFERS).cpu()


def _spans(images: Tensor) -> Tensor:
    """How far what differs from the colour of a corner reaches, symmetrically about the middle: `axis b`, in pixels."""
    size = images.shape[-1]
    differs = (images - images[..., :1, :1]).abs().amax(1) > _DIFFERS  # b h w
    far = (torch.arange(size) + 0.5 - size / 2).abs() * 2 + 1
    return torch.stack([(differs.any(2 - axis).cpu() * far).amax(1) for axis in range(2)])
