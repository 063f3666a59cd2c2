"""Augmentations that teach the decoder to in- and outpaint.

Known regions (`random_known_masks`) keep a random box, or all but a box, as GLIDE trains inpainting; the decoder
generates the rest. Shifted windows (`shifted_windows`) are known on one or two sides, and the image is shifted towards
the known side: outpainting works in windows that see only a part of the original, and without them a decoder of centred
objects generates another one in the centre, cut off by the known part. Images beside others (`images_beside`) have
another image in the known part and the whole captioned image in the rest: without them a decoder assumes that an object
it does not see lies outside the window, and never generates what the prompt adds. Context views (`context_views`) show
a whole original, made smaller, and the area around it: outpainting sketches such a view first, so that nothing is
generated twice. Draft windows (`add_draft_windows`) show any part of the image, at the noise levels of a draft: a
window of a larger canvas shows only a part of what the prompt names, and the draft of the canvas says which.

All but the known regions need images whose border has one colour, like those of scenes: beyond the image the border is
repeated. Shapes: images are `b 3 s s` in [-1, 1], masks `b 1 s s` with 1 = known; "axis" is 0 for rows, 1 for columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_UNSHIFTED = 0.5  # fraction of the shifted windows whose image stays where it is
_NOTHING_BESIDE = 0.25  # fraction of `images_beside` in which the image is known and nothing is beside it
_SHRINK = 5 / 8  # scale of an image that does not fit beside the known part at full size
_COMPACT = 0.85  # fraction of a side; wider content is several objects, too small to generate when shrunk
_GRID = 1 / 16  # of a side: offsets are multiples of it, because small networks learn every offset separately
_DIFFERS = 0.1  # smallest difference of a channel in [-1, 1] that counts as another colour
_VIEW_SCALES = (1 / 2, 5 / 8, 3 / 4)  # side of the original over the side of the context view
_NOTHING_AROUND = 0.2  # fraction of the context views whose original is the captioned image, with nothing around it
_DISTORTED = 0.5  # fraction of the originals in views that look generated, because generated images are extended too


def add_known_regions(
    images: Tensor, generator: torch.Generator, *, known: float, moved: float, beside: float, views: float
) -> tuple[Tensor, Tensor, Tensor]:  # b 3 s s, b 1 s s, b
    """Give some images a known part: target images, masks of their known pixels, and which are windows.

    known: fraction of the images with a known part. moved: fraction of these that become windows of an outpainting.
    views: fraction of the windows that become context views, where possible. beside: fraction of the other windows that
    show the image beside another one, where possible. The remaining windows are shifted.
    """
    mask = random_known_masks(len(images), images.shape[-1], known, generator).to(images)
    if not moved:
        return images, mask, torch.zeros(len(images), dtype=torch.bool, device=images.device)
    windows, window_mask = shifted_windows(images, generator)
    chances = torch.rand(3, len(images), generator=generator)
    is_window, *wanted = (chances < torch.tensor([moved, beside, views])[:, None]).to(images.device)  # b, each
    is_window &= mask.flatten(1).any(1)
    for chosen, fraction, augment in zip(wanted, (beside, views), (images_beside, context_views), strict=True):
        if fraction:
            other_windows, other_mask, possible = augment(images, generator)
            chosen &= possible
            windows, window_mask = _select(chosen, other_windows, windows), _select(chosen, other_mask, window_mask)
    return _select(is_window, windows, images), _select(is_window, window_mask, mask), is_window


def add_draft_windows(
    images: Tensor, mask: Tensor, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # b 3 s s, b
    """Shift a fraction of the images without a known part, by up to a side; return images and which are shifted.

    The decoder learns from them that a window of a larger canvas need not show all that the prompt names. They are to
    be trained only at the noise levels of a draft, which shows the window's part of the canvas.
    """
    count, size = len(images), images.shape[-1]
    if not fraction:
        return images, torch.zeros(count, dtype=torch.bool, device=images.device)
    shift = ((2 * torch.rand(2, count, generator=generator) - 1) * size).round().long()  # axis b
    direction, chance = torch.rand(2, count, generator=generator)
    shift[0] = shift[0].masked_fill(direction < 1 / 3, 0)
    shift[1] = shift[1].masked_fill(direction > 2 / 3, 0)
    is_draft = (chance < fraction).to(images.device) & ~mask.flatten(1).any(1)
    return _select(is_draft, _shift(images, *shift), images), is_draft


def random_known_masks(count: int, size: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Masks `b 1 s s`: in a fraction of them, all but a random box is known (70%) or only the box; others are 0.

    A third of the sides of the boxes are moved to the image's border, because windows are known up to theirs.
    """
    chance, inverted = torch.rand(2, count, generator=generator)
    edges = torch.rand(2, 2, count, generator=generator).sort(dim=1).values * size  # axis, low and high, b
    at_border = torch.rand(2, 2, count, generator=generator) < 1 / 3
    edges = torch.where(at_border, torch.tensor([0.0, size])[:, None], edges)
    position = torch.arange(size) + 0.5
    rows, columns = ((position >= low[:, None]) & (position < high[:, None]) for low, high in edges)  # b s, each
    box = rows[:, :, None] & columns[:, None, :]  # b s s
    known = box ^ (inverted < 0.7)[:, None, None]
    return (known & (chance < fraction)[:, None, None])[:, None].float()


def shifted_windows(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images as windows at the edge of an outpainting see them, and their masks.

    A window is known on one side or on two, for 1/4 to 3/4 of its length. In half of the windows the image is shifted
    towards the known side, by up to a side.
    """
    count, size = len(images), images.shape[-1]
    shift, length = torch.rand(2, 2, count, generator=generator)  # axis b, each
    from_end, unused = torch.rand(2, 2, count, generator=generator) < 0.5  # axis b, each
    unused[1] &= ~unused[0]  # at least one axis has a known side
    unshifted = torch.rand(count, generator=generator) < _UNSHIFTED
    shift = (shift * size).round().long().masked_fill(unshifted, 0)
    shift = torch.where(from_end, -shift, shift).masked_fill(unused, 0)
    unknown = _after(((0.25 + 0.5 * length) * size).round(), from_end, size) | unused[..., None]  # axis b s
    return _shift(images, *shift), _known_mask(unknown).to(images)


def images_beside(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images beside parts of others: windows, masks, and for which images this is possible, bool `b`.

    On one side, 1/4 to 3/4 of the length is known: the near part of another image with the same border colour. The
    whole content of the image is in the centre of the rest, at full size or smaller. In a quarter of the windows the
    roles are exchanged: the part with the image is known and the rest is empty, so that the decoder does not generate
    the same object again. It is not possible if no other image has the border colour, if the part of the other is
    empty, or if the image does not fit.
    """
    count, size = len(images), images.shape[-1]
    length, axis, from_end, exchange = torch.rand(4, count, generator=generator)
    length = ((0.25 + 0.5 * length) * size).round()
    along = torch.stack([axis < 0.5, axis >= 0.5])  # axis b
    from_end = (from_end < 0.5).expand(2, -1)  # axis b
    unknown = _after(length, from_end, size) | ~along[..., None]  # axis b s
    mask = _known_mask(unknown).to(images)

    # The other image is shifted so that its edge is where the unknown part begins.
    other, has_other = _similar_images(images, torch.rand(count, count, generator=generator))
    shift = torch.where(from_end, length - size, size - length).long() * along  # axis b
    others = _shift(images[other.to(images.device)], *shift)

    # The image goes to the centre of the unknown part, at full size if it fits, else shrunk.
    spans, grid = _spans(images), max(1, round(_GRID * size))  # axis b; pixels
    span, room = torch.where(along, spans, 0).amax(0), size - length - grid  # b, each
    shrunk = span > room
    # Two pixels of room, because resizing blurs the edges.
    fits = ~shrunk | ((spans.amax(0) <= _COMPACT * size) & (_SHRINK * span + 2 <= room))
    centre = torch.where(from_end, -length, length) / 2 * along  # axis b, relative to the window's centre
    offset = (centre / grid).round().long() * grid
    smaller = _shrink(images, round(_SHRINK * size))
    placed = _shift(_select(shrunk.to(images.device), smaller, images), *-offset)
    possible = (has_other & fits).to(images.device) & (_contrast(others, mask) > _DIFFERS)

    exchanged = (exchange < _NOTHING_BESIDE).to(images.device)
    possible = torch.where(exchanged, (fits & _border(images)[1]).to(images.device), possible)
    background = images[..., :1, :1].expand_as(images)
    windows = torch.where(mask.bool(), _select(exchanged, background, others), placed)
    return windows, _select(exchanged, 1 - mask, mask), possible


def context_views(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Context views of outpaintings: images, masks, and for which images this is possible, bool `b`.

    An original, made smaller, is known: at a side of the view, in a corner or in the centre. In a fifth of the views it
    is the captioned image, and the rest is empty. In the others it is another image with the same border colour, and
    the content of the captioned image is in the centre of the area beside it, at the original's scale or smaller. It is
    not possible if no other image has the border colour, or if the image does not fit.
    """
    count = len(images)
    axis, from_end, central, corner, own, distorted = torch.rand(6, count, generator=generator)
    scale = torch.randint(len(_VIEW_SCALES), (count,), generator=generator)
    own = own < _NOTHING_AROUND
    other, has_other = _similar_images(images, torch.rand(count, count, generator=generator))
    originals = _select(own.to(images.device), images, images[other.to(images.device)])
    possible = _border(images)[1] & (own | has_other & (_contrast(originals) > _DIFFERS).cpu())
    originals = _select((distorted < _DISTORTED).to(images.device), _distort(originals, generator), originals)
    # The original's place along each axis, from -1 (start) over 0 (centre) to 1 (end).
    beside = torch.stack([axis < 0.5, axis >= 0.5])  # axis b
    main = torch.where(from_end < 0.5, -1, 1).masked_fill(own & (central < 0.25), 0)
    cross = torch.where(corner < 2 / 3, 0, torch.where(corner < 5 / 6, -1, 1))
    place = torch.where(beside, main, cross)  # axis b
    views, mask = images.clone(), torch.zeros_like(images[:, :1])
    for k, fraction in enumerate(_VIEW_SCALES):
        rows = (scale == k).nonzero()[:, 0]
        views[rows], mask[rows], fits = _compose_views(
            images[rows], originals[rows], fraction, own=own[rows], beside=beside[:, rows], place=place[:, rows]
        )
        possible[rows] &= fits
    return views, mask, possible.to(images.device)


def is_unknown_uniform(images: Tensor, mask: Tensor) -> Tensor:
    """Whether the unknown part of each image has a single colour, bool `b`: nothing is left to generate."""
    high, low = (torch.where(mask == 0, sign * images, -torch.inf).amax((2, 3)) for sign in (1, -1))  # b 3, each
    return (high + low).amax(1) < _DIFFERS


def _compose_views(
    images: Tensor, originals: Tensor, scale: float, *, own: Tensor, beside: Tensor, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # b 3 s s, b 1 s s, b
    """Context views with originals `b 3 s s` at one scale, their masks, and for which images everything fits.

    own: bool `b`, nothing is around the original. beside: bool `axis b`, the axis along which there is something new.
    place: `axis b`, the original's place along both axes, -1 .. 1.
    """
    size = images.shape[-1]
    margin = round((1 - scale) * size / 2)
    side = size - 2 * margin  # of the original
    small, room = round(_SHRINK * side), size - side - 2  # two pixels of room, because resizing blurs the edges
    spans = _spans(images)
    span = torch.where(beside, spans, 0).amax(0)
    at_scale = span * side / size <= room
    fits = at_scale | ((span * small / size <= room) & (spans.amax(0) <= _COMPACT * size))
    centre = place * margin  # axis b, of the original, relative to the view's centre
    new_centre = torch.where(beside, -place * (side // 2), place * margin)
    new = _select(at_scale.to(images.device), _place(images, side, new_centre), _place(images, small, new_centre))
    new = _select(own.to(images.device), images[..., :1, :1].expand_as(images), new)
    inside = (torch.arange(size) + 0.5 - size / 2 - centre[..., None]).abs() < side / 2  # axis b s
    box = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)  # b 1 s s
    return torch.where(box, _place(originals, side, centre), new), box.to(images), own | fits


def _select(chosen: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Per item of a batch `b c h w`: the first where `chosen` (bool `b`) is True, else the second."""
    return torch.where(chosen[:, None, None, None], first, second)


def _after(length: Tensor, from_end: Tensor, size: int) -> Tensor:
    """Mask `... s` of the positions of a side that are not within `length` pixels of its start, or of its end."""
    position, length = torch.arange(size), length[..., None]
    return torch.where(from_end[..., None], position < size - length, position >= length)


def _known_mask(unknown: Tensor) -> Tensor:
    """Masks `b 1 s s`: a pixel is known unless it is unknown along both axes, bool `axis b s`."""
    return 1 - (unknown[0][:, None, :, None] & unknown[1][:, None, None, :]).float()


def _shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images seen from a window that is shifted by pixels `b` down and right; the border is repeated outside."""
    size = images.shape[-1]
    position = torch.arange(size)
    y, x = ((position + shift[:, None]).clamp(0, size - 1).to(images.device) for shift in (down, right))  # b s, each
    item = torch.arange(len(images), device=images.device)[:, None, None]
    return images[item, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _shrink(images: Tensor, side: int) -> Tensor:
    """Images made smaller, to `side` pixels, in their centre; the border is repeated around them."""
    size = images.shape[-1]
    small = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    before = (size - side) // 2
    after = size - side - before
    return F.pad(small, (before, after, before, after), mode="replicate")


def _place(images: Tensor, side: int, centre: Tensor) -> Tensor:
    """Images made smaller, to `side` pixels, with their centre moved by pixels `axis b` from the middle."""
    return _shift(_shrink(images, side), *-centre.long())


def _distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images with the artefacts of a small model: wavy outlines and blotches."""
    count, size = len(images), images.shape[-1]

    def smooth_noise(channels: int, cells: int) -> Tensor:
        """Noise `b c s s` with about unit variance on a grid of cells."""
        coarse = torch.randn(count, channels, cells, cells, generator=generator).to(images)
        return F.interpolate(coarse, size=(size, size), mode="bicubic")

    identity = torch.eye(2, 3).to(images).expand(count, 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)  # b s s 2
    grid = grid + 0.04 * smooth_noise(2, 8).permute(0, 2, 3, 1)  # one pixel in 50
    wavy = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    foreground = (wavy - images[..., :1, :1]).abs().amax(1, keepdim=True) > _DIFFERS
    return (wavy + 0.08 * smooth_noise(3, size // 4) * foreground).clamp(-1, 1)


def _similar_images(images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the index `b` of another with the same border colour, and whether there is one, bool `b`.

    order: random numbers `b b`; the candidate with the largest is taken. Neighbours in the batch are no candidates,
    because they may show the same objects (`hard_pairs` of the scenes).
    """
    colour, uniform = _border(images)
    same = (colour[:, None] - colour).abs().amax(2) < _DIFFERS
    place = torch.arange(len(images))
    apart = (place[:, None] - place).abs() > 1
    same = same.cpu() & uniform & uniform[:, None] & apart
    return torch.where(same, order, -1).argmax(1), same.any(1)


def _contrast(images: Tensor, mask: Tensor | float = 1.0) -> Tensor:
    """The largest difference `b` from the colour of the corner, within a mask."""
    return ((images - images[..., :1, :1]).abs() * mask).amax((1, 2, 3))


def _border(images: Tensor) -> tuple[Tensor, Tensor]:
    """The colour of a corner, `b 3`, and whether the whole border has it, bool `b`."""
    ring = torch.cat([images[:, :, [0, -1]].flatten(2), images[..., [0, -1]].flatten(2)], 2)  # b 3 n
    return ring[..., 0], ((ring - ring[..., :1]).abs().amax((1, 2)) < _DIFFERS).cpu()


def _spans(images: Tensor) -> Tensor:
    """The extent of the content, symmetric about the centre, in pixels: `axis b`."""
    size = images.shape[-1]
    differs = (images - images[..., :1, :1]).abs().amax(1) > _DIFFERS  # b s s
    extent = (torch.arange(size) + 0.5 - size / 2).abs() * 2 + 1
    return torch.stack([(differs.any(2 - axis).cpu() * extent).amax(1) for axis in range(2)])
