"""A picture to edit, with what is known of it: its mask, or the room added around it, and what is pasted into it.

What people call a mask (white repaints, or transparency does) becomes `known` here and nowhere else: 255 = keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.inference.conditions import Known
from unclip.modes.inpainting.blending import match_edges
from unclip.requests.fields import SIDES

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
