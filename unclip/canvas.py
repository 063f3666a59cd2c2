"""Pictures to edit: files and PIL images <-> tensors, masks, the outpainting canvas, its windows, and paste-back.

What people call a mask (white repaints, or transparency does) becomes `known` here and nowhere else: 255 = keep.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from torch import Tensor

from unclip.errors import DataError, RequestError
from unclip.request import MAX_SIDE, SIDES, Request, size_text
from unclip.seams import match_edges
from unclip.stage import Known

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
KEEP = 255
_CONTEXT = 1.5  # the side of a window over that of the region it repaints, and never less than
_MARGIN = 1.1
_SHRINK = 2  # a window of up to this many times the model's size is shrunk to it rather than cut up


@dataclass(frozen=True)
class Box:
    """A square window of a canvas, in pixels."""

    left: int
    top: int
    side: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


@dataclass(frozen=True)
class Canvas:
    """A picture that is being edited. Its arrays are written to as the windows are drawn.

    pixels: `h w 3` uint8; known: `h w` uint8, 255 = keep, 0 = free; alpha: `h w` uint8, or None for an opaque picture;
    origin: the box (left, top, right, bottom) of the original picture.
    """

    pixels: np.ndarray
    known: np.ndarray
    alpha: np.ndarray | None
    origin: tuple[int, int, int, int]

    def crop(self, box: Box, size: int) -> tuple[Tensor, Tensor]:
        """A window as a picture `3 s s` in [-1, 1] and its mask `1 s s`, 1 = known, at `size` pixels."""
        pixels = torch.from_numpy(self.pixels[box.slices]).permute(2, 0, 1).float() / 127.5 - 1  # 3 h w
        mask = torch.from_numpy(self.known[box.slices])[None].float() / KEEP  # 1 h w
        known = Known(pixels[None], mask[None]).resized(size, size)
        return known.image[0], known.mask[0]

    def paste(self, box: Box, picture: Image.Image) -> None:
        """Put a drawn window where the canvas is free, without a seam. The window is known from then on."""
        drawn = np.asarray(picture.resize((box.side, box.side), Image.Resampling.BICUBIC), dtype=np.float32)
        pixels, known = self.pixels[box.slices], self.known[box.slices]
        free = known < KEEP
        drawn = match_edges(drawn, pixels, known)
        share = (known[free] / np.float32(KEEP))[:, None]
        pixels[free] = (share * pixels[free] + (1 - share) * drawn[free]).round().clip(0, 255).astype(np.uint8)
        if self.alpha is not None:
            self.alpha[box.slices][free] = 255
        known[:] = KEEP

    def image(self) -> Image.Image:
        """The picture as it stands: RGB, or RGBA where the original has transparency that was not to be filled."""
        if self.alpha is None or (self.alpha == 255).all():
            return Image.fromarray(self.pixels)
        return Image.fromarray(np.dstack([self.pixels, self.alpha]))

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.known.shape[1], self.known.shape[0]

    def side_of(self, box: Box) -> str | None:
        """Beyond which side of the original a window's middle lies farthest out, or None within it."""
        left, top, right, bottom = self.origin
        x, y = box.left + box.side / 2, box.top + box.side / 2
        beyond = {"left": left - x, "right": x - right, "top": top - y, "bottom": y - bottom}
        side = max(SIDES, key=beyond.__getitem__)
        return side if beyond[side] >= 0 else None


# ---- a request -> its canvas


def open_canvas(request: Request) -> Canvas:
    """The canvas of an edit. Raises DataError for a picture that cannot be read, RequestError for a wrong size."""
    image = open_picture(request.image, "image")
    pixels, alpha = split_alpha(image)
    if request.mode == "inpaint":
        known = read_known(request, image, alpha)
        # Transparency that was the mask is filled; any other stays.
        filled = request.mask is None
        height, width = known.shape
        return Canvas(pixels, known, None if filled else alpha, (0, 0, width, height))
    left, top, width, height = outpainting(request, image.size)
    bottom, right = top + image.height, left + image.width
    area = (slice(top, bottom), slice(left, right))
    canvas = Canvas(
        np.zeros((height, width, 3), np.uint8),
        np.zeros((height, width), np.uint8),
        None if alpha is None else np.full((height, width), 255, np.uint8),
        (left, top, right, bottom),
    )
    canvas.pixels[area], canvas.known[area] = pixels, KEEP
    if alpha is not None:
        canvas.alpha[area] = alpha
    return canvas


def outpainting(request: Request, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top) of the original on the canvas and the canvas's (width, height), for an original of `size`."""
    if request.size is None:
        left, right, top, bottom = (getattr(request, side) or 0 for side in SIDES)
        width, height = size[0] + left + right, size[1] + top + bottom
    else:
        width, height = request.size
        if width < size[0] or height < size[1]:
            raise RequestError(
                f"size {size_text(request.size)} is smaller than the image, {size_text(size)}: enlarge it"
            )
        if (width, height) == size:
            raise RequestError(f"size {size_text(size)} is that of the image: give one that leaves something to paint")
        anchor = request.anchor or "center"
        left = 0 if "left" in anchor else width - size[0] if "right" in anchor else (width - size[0]) // 2
        top = 0 if "top" in anchor else height - size[1] if "bottom" in anchor else (height - size[1]) // 2
    if max(width, height) > MAX_SIDE:
        raise RequestError(
            f"the canvas would be {size_text((width, height))}, with sides of at most {MAX_SIDE}: add less"
        )
    added = dict(zip(SIDES, (left, width - size[0] - left, top, height - size[1] - top), strict=True))
    for side, pixels in added.items():
        if getattr(request, f"{side}_prompt") is not None and not pixels:
            raise RequestError(f"{side}_prompt is given, and nothing is added on that side: add some, or leave it out")
    return left, top, width, height


def read_known(request: Request, image: Image.Image, alpha: np.ndarray | None) -> np.ndarray:
    """What an inpainting keeps, `h w` uint8, from its mask or the image's transparency. Soft values stay soft."""
    if request.mask is None:
        if request.mask_mode not in (None, "alpha"):
            raise RequestError(f"mask is missing: mask_mode {request.mask_mode} needs one")
        if alpha is None:
            raise RequestError("mask is missing, and the image has no transparency to take its place: give a mask")
        known = alpha
    else:
        mask = open_picture(request.mask, "mask")
        if image.size != mask.size:
            sizes = size_text(mask.size), size_text(image.size)
            raise RequestError("the mask is {} and the image {}: give a mask of that size".format(*sizes))
        pixels, transparency = split_alpha(mask)
        if request.mask_mode == "alpha":
            if transparency is None:
                raise RequestError("the mask has no transparency, so mask_mode alpha finds nothing to repaint")
            known = transparency
        else:
            grey = np.asarray(Image.fromarray(pixels).convert("L"))
            known = grey if request.mask_mode == "black" else 255 - grey
    return feathered(np.array(known), request.feather or 0)  # a canvas writes into its own


def feathered(known: np.ndarray, pixels: int) -> np.ndarray:
    """Fade what is repainted into what is kept over some pixels, on the repainted side alone."""
    if not pixels:
        return known
    kept = Image.fromarray(np.where(known == KEEP, np.uint8(255), np.uint8(0)))
    around = np.asarray(kept.filter(ImageFilter.GaussianBlur(pixels / 2)), dtype=np.float32)
    return np.maximum(known, (2 * around).clip(0, 255).astype(np.uint8))  # half is kept at an edge: 2 * that is all


# ---- the windows of a canvas


def windows(canvas: Canvas, size: int) -> list[Box]:
    """The windows in which a model of `size` pixels paints what is free, in their order.

    One window with some context, where the region is small enough to be seen as a whole; else windows of the model's
    size that overlap by half, each where it finds closest to half of itself known already: so they grow outwards from
    what is given.
    """
    width, height = canvas.size
    most = min(width, height)
    free = canvas.known < KEEP
    rows, columns = np.flatnonzero(free.any(1)), np.flatnonzero(free.any(0))
    if not len(rows):
        return []
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    region = int(max(right - left, bottom - top))
    side = min(max(size, round(_CONTEXT * region)), _SHRINK * size, most)
    if canvas.origin == (0, 0, width, height) and region * _MARGIN <= side or region == side == width == height:
        x = min(max(0, int(left + right - side) // 2), width - side)
        y = min(max(0, int(top + bottom - side) // 2), height - side)
        return [Box(x, y, side)]
    return list(_growing(free, min(size, most)))


def _growing(free: np.ndarray, side: int) -> Iterator[Box]:
    """Windows that cover `free` (`h w` bool), those first of which half is known, counting those before as known."""
    height, width = free.shape
    tops, lefts = _starts(height, side), _starts(width, side)
    edges_y, edges_x = (np.unique([e for s in starts for e in (s, s + side)])[:-1] for starts in (tops, lefts))
    # free pixels of every cell between the edges of windows; a window is a rectangle of cells
    cells = np.add.reduceat(np.add.reduceat(free.astype(np.int64), edges_y, axis=0), edges_x, axis=1)
    (y0, y1), (x0, x1) = (
        np.searchsorted(edges, [starts, np.add(starts, side)]) for edges, starts in ((edges_y, tops), (edges_x, lefts))
    )
    while cells.any():
        total = np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of the cells above and to the left
        inside = total[np.ix_(y1, x1)] - total[np.ix_(y0, x1)] - total[np.ix_(y1, x0)] + total[np.ix_(y0, x0)]
        distance = np.where(inside > 0, abs(inside / side**2 - 0.5), np.inf)
        y, x = np.unravel_index(distance.argmin(), distance.shape)
        yield Box(lefts[x], tops[y], side)
        cells[y0[y] : y1[y], x0[x] : x1[x]] = 0


def _starts(length: int, side: int) -> list[int]:
    """Where windows of a side begin on a length: every half side, and flush with the end."""
    step = max(1, side // 2)
    return sorted({*range(0, length - side + 1, step), length - side})


# ---- files and PIL images


def open_picture(source: Any, name: str) -> Image.Image:
    """A file or a PIL image -> an upright PIL image in full. Raises DataError, which names the field and the file."""
    is_open = isinstance(source, Image.Image)
    try:
        with contextlib.nullcontext(source) if is_open else Image.open(source, formats=FORMATS) as image:
            if max(image.size) > MAX_SIDE:
                found = size_text(image.size)
                raise DataError(f"the {name} is {found}; sides of at most {MAX_SIDE} pixels are edited: shrink it")
            return ImageOps.exif_transpose(image)  # which decodes it
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways
        raise unreadable(source, name, error) from None


def unreadable(source: str | Path, name: str, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{name} {str(source)!r} is no picture that can be read; give one of {', '.join(FORMATS)}")
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(f"cannot read the {name} {str(source)!r} ({reason})")


def split_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """A PIL image of any mode -> its colours `h w 3` and, unless it is opaque, its alpha `h w`; both uint8."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bit and wider: PIL's own conversion would clip
        values = np.asarray(image).astype(np.float64)
        grey = (values / (257 if image.mode.startswith("I") else 1)).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), None
    pixels = np.array(image.convert("RGBA"))
    alpha = pixels[..., 3].copy()
    return pixels[..., :3].copy(), None if (alpha == 255).all() else alpha


def to_images(pictures: Tensor) -> list[Image.Image]:
    """`b 3 h w` in [-1, 1] -> PIL images."""
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # b h w 3
    return [Image.fromarray(image) for image in pixels]


def to_tensor(image: Image.Image) -> Tensor:
    """PIL image -> `3 h w` in [-1, 1]."""
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def to_square(image: Image.Image, side: int, crop: bool) -> Image.Image:
    """An image as a square: squeezed, or the middle of it."""
    width, height = image.size
    if not crop:
        return image.resize((side, side), Image.Resampling.BICUBIC)
    short = min(width, height)
    wide, high = (side * length // short for length in (width, height))
    left, top = (wide - side) // 2, (high - side) // 2
    return image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def squared(source: Any, fit: str) -> tuple[Image.Image, tuple[str, ...]]:
    """A file or a PIL image as an opaque square, and notes on what that took.

    fit: "crop" takes its middle, "pad" adds to the shorter sides the colour that is usual at its border. Raises
    DataError for a picture that cannot be read.
    """
    pixels, alpha = split_alpha(open_picture(source, "image"))
    image, notes = Image.fromarray(pixels), []
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), Image.fromarray(alpha))
        notes.append("what is transparent in the image was made white")
    size, side = image.size, (min if fit == "crop" else max)(image.size)
    if fit == "crop" and size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.NEAREST)  # of this size, nothing is resized
        notes.append(f"of the image, {size_text(size)}, the middle {size_text((side, side))} was taken; see fit pad")
    elif size != (side, side):
        ring = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
        colour = tuple(np.median(ring, axis=0).astype(int).tolist())
        image = ImageOps.pad(image, (side, side), Image.Resampling.NEAREST, colour)
        notes.append(f"the image, {size_text(size)}, was padded to {size_text((side, side))}")
    return image, tuple(notes)
