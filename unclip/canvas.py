"""A picture to edit, with what is known of it: its mask, or the room added around it, and what is pasted into it.

What people call a mask (white repaints, or transparency does) becomes `known` here and nowhere else: 255 = keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from unclip.errors import RequestError
from unclip.pictures import open_picture, split_alpha
from unclip.request import MAX_SIDE, SIDES, Request, size_text
from unclip.seams import match_edges
from unclip.stage import Known

KEEP = 255


@dataclass(frozen=True)
class Box:
    """A square window of a canvas, in pixels. It may reach out of it, up and left below 0."""

    left: int
    top: int
    side: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas in it."""
        return tuple(slice(max(0, start), start + self.side) for start in (self.top, self.left))

    def inside(self, rows: int, columns: int) -> tuple[slice, slice]:
        """Where in the window those first `rows` and `columns` of its slices are, which the canvas has."""
        top, left = max(0, -self.top), max(0, -self.left)
        return slice(top, top + rows), slice(left, left + columns)


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

    def seen(self, area: tuple[slice, slice]) -> np.ndarray:
        """What is to be seen there, `h w 3` uint8: what is clear is white, whatever colour it hides."""
        if self.alpha is None:
            return self.pixels[area]
        share = self.alpha[area][..., None] / np.float32(255)
        return (share * self.pixels[area] + (1 - share) * 255).round().astype(np.uint8)

    def crop(self, box: Box, size: int) -> tuple[Tensor, Tensor]:
        """A window as a picture `3 s s` in [-1, 1] and its mask `1 s s`, 1 = known, at `size` pixels.

        What is kept in part is free: it is blended with what is drawn there where that is pasted.
        """
        inside = box.inside(*self.known[box.slices].shape)
        pixels, mask = torch.zeros(3, box.side, box.side), torch.zeros(1, box.side, box.side)
        pixels[:, *inside] = torch.from_numpy(self.seen(box.slices)).permute(2, 0, 1).float() / 127.5 - 1
        mask[:, *inside] = torch.from_numpy(self.known[box.slices] == KEEP).float()
        known = Known(pixels[None], mask[None]).resized(size, size)
        return known.image[0], known.mask[0]

    def picture(self, box: Box, size: int) -> Tensor:
        """All of a window `3 s s` in [-1, 1], known or not; where it reaches out of the canvas, the edge goes on."""
        inside = box.inside(*self.known[box.slices].shape)
        around = [(part.start, box.side - part.stop) for part in inside]
        pixels = np.pad(self.seen(box.slices), (*around, (0, 0)), mode="edge")
        return F.interpolate(
            torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1,
            size=(size, size),
            mode="bilinear",
            antialias=True,
        )[0]

    def paste(self, box: Box, picture: Image.Image, parts: Sequence[Box] | None = None) -> None:
        """Put a drawn window where the canvas is free, without a seam. What was drawn is known from then on.

        parts: the windows in which alone it is put, if not everywhere.
        """
        pixels, known, seen = self.pixels[box.slices], self.known[box.slices], self.seen(box.slices)
        drawn = np.asarray(picture.resize((box.side, box.side), Image.Resampling.BICUBIC), dtype=np.float32)
        drawn = match_edges(drawn[box.inside(*known.shape)], seen, known)
        free = known < KEEP
        if parts is not None:
            free &= self.covered(parts)[box.slices]
        share = (known[free] / np.float32(KEEP))[:, None]
        pixels[free] = (share * seen[free] + (1 - share) * drawn[free]).round().clip(0, 255).astype(np.uint8)
        if self.alpha is not None:
            self.alpha[box.slices][free] = 255
        known[free] = KEEP

    def covered(self, boxes: Sequence[Box]) -> np.ndarray:
        """What of the canvas is in any of some windows, `h w` bool."""
        covered = np.zeros(self.known.shape, bool)
        for box in boxes:
            covered[box.slices] = True
        return covered

    def sketch(self) -> "Canvas":
        """A canvas of the same picture, to draw roughly on."""
        return Canvas(self.seen((slice(None), slice(None))).copy(), self.known.copy(), None, self.origin)

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
        """Beyond which side of the original most of what is free in a window lies.

        None where nothing is free, and where nearly as much lies beyond the opposite side.
        """
        left, top, right, bottom = self.origin
        rows, columns = np.nonzero(self.known[box.slices] < KEEP)
        y, x = (part.start + places for part, places in zip(box.slices, (rows, columns), strict=True))
        beyond = {"left": x < left, "right": x >= right, "top": y < top, "bottom": y >= bottom}
        found = {side: int(is_there.sum()) for side, is_there in beyond.items()}
        side = max(SIDES, key=found.__getitem__)
        opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
        return side if found[side] > 2 * found[opposite] else None


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
