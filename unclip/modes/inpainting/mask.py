"""Masks: what people give (white, black or transparent = repaint) becomes `known` (KEEP = preserve), here and nowhere
else."""

import numpy as np
from PIL import Image, ImageFilter

from unclip.errors import RequestError
from unclip.images.pixels import split_alpha, to_eight_bits
from unclip.images.reading import describe, open_image
from unclip.modes.inpainting.canvas import KEEP
from unclip.requests.request import Request
from unclip.requests.values import size_text

ROUNDED = 8
"""Of 255: values of a mask that differ by less from "keep" or "repaint" are meant as such. They come from lossy formats
and from brushes, and would change every pixel of an image a little."""
_NOTED, _MOSTLY = 0.01, 0.5  # fractions of a mask, from which on notes report unusual values
_WORDS = {"white": ("black", "white"), "black": ("white", "black"), "alpha": ("opaque", "transparent")}
"""The pixels that are kept, and those that are repainted, by mask mode."""


def read_known(request: Request, size: tuple[int, int], alpha: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The known pixels `h w` uint8 of an inpainting, and notes for the user.

    They come from its mask, or from the alpha `h w` of its image. Transparent pixels of a mask are kept in the modes
    white and black. Soft values stay soft, except near the ends (see ROUNDED). size: of the image. Raises RequestError
    as `check_edit`.
    """
    mode, hint = "white" if request.mask_mode is None else request.mask_mode, ""
    if request.mask is None:
        check_mask_source(request, alpha is not None)
        subject, mode, known = "the transparency of the image", "alpha", alpha
    else:
        mask = to_eight_bits(open_image(request.mask, "mask"), describe(request.mask, "mask"))
        colours, mask_alpha = split_alpha(mask)
        check_mask(request, mask.size, size, mask_alpha is not None)
        subject, known = "the mask", mask_alpha
        if mode != "alpha":
            grey = np.asarray(colours.convert("L"))
            repaint = (grey if mode == "white" else 255 - grey).astype(np.float32)
            if mask_alpha is not None:
                repaint *= np.asarray(mask_alpha) / np.float32(255)
                hint = "; mask_mode alpha repaints its transparent pixels"
            known = 255 - repaint.round().astype(np.uint8)
    rounded, notes = round_known(np.array(known), mode, subject, hint)
    return feather_known(rounded, request.feather or 0), notes


def round_known(known: np.ndarray, mode: str, subject: str, hint: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Known pixels `h w` uint8 with the values near 0 and KEEP rounded, and notes on a mask with unusual values.

    subject: names the mask in the notes. hint: ends the notes.
    """
    keep, repaint = _WORDS[mode]
    nearly = (known < KEEP) & (known > KEEP - ROUNDED)
    rounded = np.where(nearly, np.uint8(KEEP), np.where(known < ROUNDED, np.uint8(0), known))
    soft = rounded[(rounded > 0) & (rounded < KEEP)]
    notes = []
    if nearly.mean() > _NOTED:
        off = KEEP - int(known[nearly].min())
        notes.append(
            f"{nearly.sum():,} pixels of {subject} are nearly {keep} (up to {off} of 255 from it); they were kept, as "
            f"exactly {keep} ones are: save a mask as PNG, with its background exactly {keep}"
        )
    if soft.size > _MOSTLY * known.size:
        usual = KEEP - int(np.bincount(soft).argmax())
        notes.append(
            f"{soft.size / known.size:.0%} of {subject} is neither {keep} nor {repaint} (mostly {usual} of 255 from "
            f"{keep}), where new pixels are mixed with old ones: to keep pixels exactly, make them {keep}{hint}"
        )
    elif hint and (rounded == KEEP).all():
        notes.append(f"{subject} has no opaque {repaint} pixels{hint}")
    return rounded, tuple(notes)


def check_mask_source(request: Request, has_transparency: bool) -> None:
    """Raise RequestError for an inpainting without a mask whose image cannot serve as one."""
    if request.mask_mode not in (None, "alpha"):
        raise RequestError(f"mask is missing: mask_mode {request.mask_mode} needs one")
    if not has_transparency:
        raise RequestError("mask is missing, and the image has no transparency to use as one: give a mask")


def check_mask(
    request: Request, mask_size: tuple[int, int], image_size: tuple[int, int], has_transparency: bool
) -> None:
    """Raise RequestError for a mask of another size than the image, or without the transparency it needs."""
    if image_size != mask_size:
        raise RequestError(
            f"the mask is {size_text(mask_size)} and the image {size_text(image_size)}: give a mask of that size"
        )
    if request.mask_mode == "alpha" and not has_transparency:
        raise RequestError("the mask has no transparency, so mask_mode alpha finds nothing to repaint")


def feather_known(known: np.ndarray, pixels: int) -> np.ndarray:
    """Fade the masked side of each edge into the kept side over some pixels. known: `h w` uint8."""
    if not pixels:
        return known
    kept = Image.fromarray(np.where(known == KEEP, np.uint8(255), np.uint8(0)))
    blurred = np.asarray(kept.filter(ImageFilter.GaussianBlur(pixels / 2)), dtype=np.float32)
    return np.maximum(known, (2 * blurred).clip(0, 255).astype(np.uint8))  # blurred is 1/2 at an edge: 2x is all kept
