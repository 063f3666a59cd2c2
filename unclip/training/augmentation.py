"""What of its pictures a decoder is shown in training: parts, as an inpainting keeps, or what an outpainting sees.

That is a window with the near part of the original in it, or a view of all of it, made smaller. Both need pictures
whose border is flat, as those of scenes are: what lies behind it is taken to go on like it.
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
_VIEWS = (1 / 2, 5 / 8, 3 / 4)  # the side of an original in a view of it, over that of the view
_OWN = 0.2  # of the views are of the picture itself, if there are others for the rest
_ROUGH = 0.5  # of the originals in views are as a model would draw them, for pictures that it drew are widened too


def with_known(
    images: Tensor, share: float, moved: float, beside: float, views: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:  # b 3 s s, b 1 s s, b
    """Pictures `b 3 s s` to draw, masks of what a decoder is told of them, 1 = known, and which are windows.

    Of most nothing is known.
    In `share` of them something is known. Of `moved` of those the picture is another too, as an outpainting sees it:
    where it can be, of `views` of those, `random_views`; else, of `beside` of them, `pictures_beside`; and else
    `random_windows`. These are windows. Of the rest it is as `random_known` has it.
    """
    known = random_known(len(images), images.shape[-1], share, generator).to(images)
    if not moved:
        return images, known, torch.zeros(len(images), dtype=torch.bool, device=images.device)
    windows, seen = random_windows(images, generator)
    draws = torch.rand(3, len(images), generator=generator)
    window, *chosen = (draws < torch.tensor([moved, beside, views])[:, None]).to(images.device)  # b, each
    window &= known.flatten(1).any(1)
    for wanted, kind, make in zip(chosen, (beside, views), (pictures_beside, random_views), strict=True):
        if kind:
            others, seen_there, fits = make(images, generator)
            wanted &= fits
            windows, seen = _where(wanted, others, windows), _where(wanted, seen_there, seen)
    shown, known = _where(window, windows, images), _where(window, seen, known)
    return shown, known, window


def with_drafts(
    images: Tensor, known: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # b 3 s s, b
    """Pictures `b 3 s s`, some of them as a window of a larger one has them, and which those are.

    Of `share` of the pictures of which nothing is known, any part is shown, or what is beside them, where their border
    goes on. So a decoder learns that not all of what a prompt names is in each window: what there is of it, a draft of
    the larger picture says, for it is at the noise levels below that of a draft that these are to be seen.
    """
    count, size = len(images), images.shape[-1]
    if not share:
        nothing = torch.zeros(count, dtype=torch.bool, device=images.device)
        return images, nothing
    shift = ((2 * torch.rand(2, count, generator=generator) - 1) * size).round().long()  # axis b
    still, chosen = torch.rand(2, count, generator=generator)
    shift[0] = shift[0].masked_fill(still < 1 / 3, 0)
    shift[1] = shift[1].masked_fill(still > 2 / 3, 0)
    drafted = (chosen < share).to(images.device) & ~known.flatten(1).any(1)
    return _where(drafted, _shifted(images, *shift), images), drafted


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
    drawn = _shifted(_where(shrunk.to(images.device), _smaller(images, round(_SHRINK * size)), images), *-step)
    mask = _mask(free).to(images)
    can = (alike & fits).to(images.device) & (_contrast(known, mask) > _DIFFERS)
    # the other way round
    bare, seen = images[..., :1, :1].expand_as(images), (seen < _SEEN).to(images.device)
    can = torch.where(seen, (fits & _flat(images)[1]).to(images.device), can)
    drawn = torch.where(mask.bool(), _where(seen, bare, known), drawn)
    return drawn, _where(seen, 1 - mask, mask), can


def random_views(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures `b 3 s s` as an outpainting sees them as a whole, masks `b 1 s s`, and of which that can be, `b`.

    Known is a picture, made smaller, at a side of the view or in its middle. In some it is the picture itself and the
    rest is bare. In the others it is another with a border of the same colour, and what the picture shows is in the
    middle of what is free beside it, as small as the other or smaller. Where no other has this colour, or the picture
    does not fit, it cannot be.
    """
    count = len(images)
    axis, backwards, middle, across, own, rough = torch.rand(6, count, generator=generator)
    pick = torch.randint(len(_VIEWS), (count,), generator=generator)
    own = own < _OWN
    other, alike = _alike(images, torch.rand(count, count, generator=generator))
    shown = _where(own.to(images.device), images, images[other.to(images.device)])
    can = _flat(images)[1] & (own | alike & (_contrast(shown) > _DIFFERS).cpu())
    shown = _where((rough < _ROUGH).to(images.device), _rough(shown, generator), shown)
    # Where it stands along each axis, from -1, the start, to 1: at a side, and in the middle or a corner of that side.
    beside = torch.stack([axis < 0.5, axis >= 0.5])  # axis b
    end = torch.where(backwards < 0.5, -1, 1).masked_fill(own & (middle < 0.25), 0)
    corner = torch.where(across < 2 / 3, 0, torch.where(across < 5 / 6, -1, 1))
    place = torch.where(beside, end, corner)
    drawn, known = images.clone(), torch.zeros_like(images[:, :1])
    for k, share in enumerate(_VIEWS):
        rows = (pick == k).nonzero()[:, 0]
        parts = images[rows], shown[rows], own[rows], beside[:, rows], place[:, rows]
        drawn[rows], known[rows], fits = _view(share, *parts)
        can[rows] &= fits
    return drawn, known, can.to(images.device)


def is_bare(images: Tensor, known: Tensor) -> Tensor:
    """Whether what is free of each picture is all of one colour, `b`."""
    most, least = (torch.where(known == 0, sign * images, -torch.inf).amax((2, 3)) for sign in (1, -1))  # b 3
    return (most + least).amax(1) < _DIFFERS


def _view(
    share: float, images: Tensor, shown: Tensor, own: Tensor, beside: Tensor, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Views `b 3 s s` in which originals `b 3 s s` have a share of the side, their masks, and in which all fits, `b`.

    own: in which nothing is painted; beside: along which axis there is something new (`axis b`); place: where the
    originals stand along both axes, -1 to 1.
    """
    size = images.shape[-1]
    before = round((1 - share) * size / 2)
    side = size - 2 * before
    small, room = round(_SHRINK * side), size - side - 2  # it blurs, too
    spans = _spans(images)
    span = torch.where(beside, spans, 0).amax(0)
    large = span * side / size <= room
    fits = large | ((span * small / size <= room) & (spans.amax(0) <= _COMPACT * size))
    at, free = place * before, torch.where(beside, -place * (side // 2), place * before)  # axis b, middles
    new = _where(large.to(images.device), _placed(images, side, free), _placed(images, small, free))
    new = _where(own.to(images.device), images[..., :1, :1].expand_as(images), new)
    inside = (torch.arange(size) + 0.5 - size / 2 - at[..., None]).abs() < side / 2  # axis b s
    box = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)
    return torch.where(box, _placed(shown, side, at), new), box.to(images), own | fits


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


def _smaller(images: Tensor, side: int) -> Tensor:
    """Each picture with a smaller side in its own middle; its border goes on around it."""
    size = images.shape[-1]
    small = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    before = (size - side) // 2
    after = size - side - before
    return F.pad(small, (before, after, before, after), mode="replicate")


def _placed(images: Tensor, side: int, middle: Tensor) -> Tensor:
    """Each picture with a smaller side, its middle so many pixels down and right (`axis b`) of its own."""
    return _shifted(_smaller(images, side), *-middle.long())


def _rough(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures as a small model draws what they show: with an outline that wavers, and blotches."""
    count, size = len(images), images.shape[-1]

    def waves(channels: int, cells: int) -> Tensor:  # of unit variance, roughly, where cells meet
        coarse = torch.randn(count, channels, cells, cells, generator=generator).to(images)
        return F.interpolate(coarse, size=(size, size), mode="bicubic")

    grid = F.affine_grid(torch.eye(2, 3).to(images).expand(count, 2, 3), images.shape, align_corners=False)  # b h w 2
    grid = grid + 0.04 * waves(2, 8).permute(0, 2, 3, 1)  # a pixel in 50
    wavering = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    shown = (wavering - images[..., :1, :1]).abs().amax(1, keepdim=True) > _DIFFERS
    return (wavering + 0.08 * waves(3, size // 4) * shown).clamp(-1, 1)


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


def _contrast(images: Tensor, where: Tensor | float = 1.0) -> Tensor:
    """How far each picture goes from the colour of its corner, `b`, there where a mask has it."""
    return ((images - images[..., :1, :1]).abs() * where).amax((1, 2, 3))


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
