"""The canvas of an edit: its pixels, which of them are known, and windows cropped from and pasted into it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.images.colour import ColourProfile
from unclip.inference.conditions import Known
from unclip.modes.inpainting.blending import match_edges
from unclip.requests.fields import SIDES

KEEP = 255
"""The value of `known` for a pixel to preserve; 0 is a masked pixel, and values between blend."""
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class Box:
    """A square of a canvas, in pixels. It may extend past the canvas, to the left and top with negative corners."""

    left: int
    top: int
    side: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas that lie in the box."""
        rows, columns = (slice(max(0, start), start + self.side) for start in (self.top, self.left))
        return rows, columns

    def place(self, rows: int, columns: int) -> tuple[slice, slice]:
        """The slices of the box that lie on the canvas. rows, columns: their lengths."""
        top, left = max(0, -self.top), max(0, -self.left)
        return slice(top, top + rows), slice(left, left + columns)


@dataclass(frozen=True)
class Canvas:
    """An image being edited. Its arrays change as windows are pasted.

    pixels   `h w 3` uint8
    known    `h w` uint8, KEEP = preserve, 0 = generate
    alpha    `h w` uint8, or None if opaque
    origin   (left, top, right, bottom) of the original image on the canvas
    profile  of the pixels; None for sRGB. The model gets and returns sRGB
    notes    messages for the user about the input files
    """

    pixels: np.ndarray
    known: np.ndarray
    alpha: np.ndarray | None
    origin: tuple[int, int, int, int]
    profile: ColourProfile | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.known.shape[1], self.known.shape[0]

    @property
    def masked(self) -> np.ndarray:
        """The pixels to generate, in whole or in part: `h w` bool."""
        return self.known < KEEP

    @property
    def has_margins(self) -> bool:
        """Whether the canvas is larger than the original image (outpainting)."""
        return self.origin != (0, 0, *self.size)

    def on_white(self, area: tuple[slice, slice]) -> np.ndarray:
        """The visible pixels `h w 3` uint8 of an area: transparent ones are white, whatever colour they store."""
        if self.alpha is None:
            return self.pixels[area]
        opacity = self.alpha[area][..., None] / np.float32(255)
        return (opacity * self.pixels[area] + (1 - opacity) * 255).round().astype(np.uint8)

    def in_srgb(self, area: tuple[slice, slice]) -> np.ndarray:
        """The visible pixels `h w 3` uint8 of an area in sRGB, which is what the model gets."""
        visible = self.on_white(area)
        return visible if self.profile is None else np.asarray(self.profile.to_srgb(Image.fromarray(visible)))

    def original(self) -> Image.Image:
        """The original image in sRGB and on white, before anything is pasted into it."""
        left, top, right, bottom = self.origin
        return Image.fromarray(self.in_srgb((slice(top, bottom), slice(left, right))))

    def visible(self) -> Image.Image:
        """The canvas as it is now, in sRGB and on white."""
        return Image.fromarray(self.in_srgb((slice(None), slice(None))))

    def image(self) -> Image.Image:
        """The canvas as it is now, with its colour profile: RGB, or RGBA if transparency remains."""
        if self.alpha is None or (self.alpha == 255).all():
            image = Image.fromarray(self.pixels)
        else:
            image = Image.fromarray(np.dstack([self.pixels, self.alpha]))
        if self.profile is not None:
            image.info["icc_profile"] = self.profile.data
        return image

    def copy(self) -> "Canvas":
        """A copy with arrays of its own."""
        alpha = None if self.alpha is None else self.alpha.copy()
        return replace(self, pixels=self.pixels.copy(), known=self.known.copy(), alpha=alpha)

    def copy_opaque(self) -> "Canvas":
        """An opaque copy, to sketch on."""
        pixels = self.on_white((slice(None), slice(None))).copy()
        return replace(self, pixels=pixels, known=self.known.copy(), alpha=None)

    def crop_known(self, box: Box, size: int) -> tuple[Tensor, Tensor]:
        """The known pixels of a box, resized to `size`: an image `3 s s` in [-1, 1] and a mask `1 s s`, 1 = known.

        Partly known pixels count as masked: they are blended when the window is pasted. So does everything past the
        canvas. But where a thin canvas fills less than half of the box, it is mirrored over all of it: a model that
        knows a few rows only would not continue their colours.
        """
        pixels = self.in_srgb(box.slices).astype(np.float32) / 127.5 - 1  # h w 3
        known = self.known[box.slices] == KEEP
        for axis, part in enumerate(box.place(*known.shape)):
            padding = [(0, 0)] * 3
            padding[axis] = (part.start, box.side - part.stop)
            mode = "symmetric" if 2 * self.known.shape[axis] < box.side else "constant"
            pixels, known = np.pad(pixels, padding, mode=mode), np.pad(known, padding[:2], mode=mode)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # 1 3 s s
        found = Known(image, torch.from_numpy(known).float()[None, None]).resized(size, size)
        return found.image[0], found.mask[0]

    def crop(self, box: Box, size: int) -> Tensor:
        """All pixels of a box as `3 s s` in [-1, 1], resized to `size`; past the canvas, its edge is repeated."""
        place = box.place(*self.known[box.slices].shape)
        padding = [(part.start, box.side - part.stop) for part in place]
        pixels = np.pad(self.in_srgb(box.slices), (*padding, (0, 0)), mode="edge")
        return F.interpolate(
            torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1,
            size=(size, size),
            mode="bilinear",
            antialias=True,
        )[0]

    def paste(self, box: Box, image: Image.Image, within: Sequence[Box] | None = None) -> None:
        """Paste a generated window into the masked pixels of a box, without a seam. They are known from then on.

        within: paste only into these boxes.
        """
        pixels, known, visible = self.pixels[box.slices], self.known[box.slices], self.on_white(box.slices)
        image = image.resize((box.side, box.side), Image.Resampling.BICUBIC)
        if self.profile is not None:
            image = self.profile.from_srgb(image)
        new = np.asarray(image, dtype=np.float32)[box.place(*known.shape)]
        new = match_edges(new, visible, known)
        masked = known < KEEP
        if within is not None:
            masked &= self.covered(within)[box.slices]
        kept = (known[masked] / np.float32(KEEP))[:, None]
        pixels[masked] = (kept * visible[masked] + (1 - kept) * new[masked]).round().clip(0, 255).astype(np.uint8)
        if self.alpha is not None:
            self.alpha[box.slices][masked] = 255
        known[masked] = KEEP

    def covered(self, boxes: Sequence[Box]) -> np.ndarray:
        """The pixels of the canvas in any of the boxes, `h w` bool."""
        covered = np.zeros(self.known.shape, bool)
        for box in boxes:
            covered[box.slices] = True
        return covered

    def side_of(self, box: Box) -> str | None:
        """The side of the original ("left", ...) beyond which most masked pixels of a box lie.

        None if nothing is masked, or if more than half as many lie beyond the opposite side.
        """
        left, top, right, bottom = self.origin
        y, x = (part.start + places for part, places in zip(box.slices, self.masked[box.slices].nonzero(), strict=True))
        beyond = {"left": x < left, "right": x >= right, "top": y < top, "bottom": y >= bottom}
        counts = {side: int(is_beyond.sum()) for side, is_beyond in beyond.items()}
        side = max(SIDES, key=counts.__getitem__)
        return side if counts[side] > 2 * counts[OPPOSITE[side]] else None
