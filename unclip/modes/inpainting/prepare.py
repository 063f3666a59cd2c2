"""Prepare the canvas of an edit: from an image and its mask, or with margins to outpaint.

Masks that people give (white or transparent = repaint) become `known` (KEEP = preserve) here and nowhere else.
"""

import numpy as np
from PIL import Image, ImageFilter

from unclip.errors import RequestError
from unclip.images.reading import check_header, open_image, split_alpha
from unclip.modes.inpainting.canvas import KEEP, Canvas
from unclip.requests.fields import MAX_SIDE, SIDES
from unclip.requests.request import Request
from unclip.requests.values import size_text


def check_edit(request: Request) -> tuple[int, int]:
    """(width, height) of the canvas, from the headers of the input files: no pixels are decoded.

    Raises DataError for a file that cannot be opened, RequestError for sizes that do not fit or a missing mask.
    """
    size, has_transparency = check_header(request.image, "image")
    if request.outpaints:
        _, _, width, height = place_original(request, size)
        return width, height
    if request.mask is None:
        check_mask_source(request, has_transparency)
    else:
        mask_size, mask_has_transparency = check_header(request.mask, "mask")
        check_mask(request, mask_size, size, mask_has_transparency)
    return size


def open_canvas(request: Request) -> Canvas:
    """The canvas of an edit. Raises DataError for an image that cannot be read, RequestError as `check_edit`."""
    image = open_image(request.image, "image")
    pixels, alpha = split_alpha(image)
    if request.outpaints:
        return add_margins(request, pixels, alpha)
    known = read_known(request, image.size, alpha)
    # Transparency that served as the mask is filled; any other transparency stays.
    height, width = known.shape
    return Canvas(pixels, known, None if request.mask is None else alpha, (0, 0, width, height))


def add_margins(request: Request, pixels: np.ndarray, alpha: np.ndarray | None) -> Canvas:
    """A canvas with an image `h w 3` on it and masked margins around it. alpha: `h w`, or None."""
    rows, columns = pixels.shape[:2]
    left, top, width, height = place_original(request, (columns, rows))
    bottom, right = top + rows, left + columns
    area = (slice(top, bottom), slice(left, right))
    canvas = Canvas(
        np.zeros((height, width, 3), np.uint8),
        np.zeros((height, width), np.uint8),
        None if alpha is None else np.full((height, width), 255, np.uint8),
        (left, top, right, bottom),
    )
    canvas.pixels[area], canvas.known[area] = pixels, KEEP
    if canvas.alpha is not None:
        canvas.alpha[area] = alpha
    return canvas


def place_original(request: Request, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top) of the original on the canvas, and (width, height) of the canvas. size: of the original.

    Raises RequestError for a canvas that is too small or too large, or a side prompt without a margin.
    """
    if request.size is None:
        left, right, top, bottom = (getattr(request, side) or 0 for side in SIDES)
        width, height = size[0] + left + right, size[1] + top + bottom
    else:
        width, height = request.size
        if width < size[0] or height < size[1]:
            raise RequestError(
                f"size {size_text(request.size)} is smaller than the image, {size_text(size)}: give a larger size"
            )
        if (width, height) == size:
            raise RequestError(f"size {size_text(size)} is the size of the image: give a larger one to outpaint")
        anchor = request.anchor or "center"
        left = 0 if "left" in anchor else width - size[0] if "right" in anchor else (width - size[0]) // 2
        top = 0 if "top" in anchor else height - size[1] if "bottom" in anchor else (height - size[1]) // 2
    if max(width, height) > MAX_SIDE:
        raise RequestError(
            f"the canvas would be {size_text((width, height))}, and sides may have at most {MAX_SIDE} pixels: add less"
        )
    margins = dict(zip(SIDES, (left, width - size[0] - left, top, height - size[1] - top), strict=True))
    for side, pixels in margins.items():
        if getattr(request, f"{side}_prompt") is not None and not pixels:
            raise RequestError(f"{side}_prompt is given, but there is no margin on that side: add one, or leave it out")
    return left, top, width, height


def read_known(request: Request, size: tuple[int, int], alpha: np.ndarray | None) -> np.ndarray:
    """The known pixels `h w` uint8 of an inpainting, from its mask or the alpha of its image. Soft values stay soft.

    size: of the image. Raises RequestError as `check_edit`.
    """
    if request.mask is None:
        check_mask_source(request, alpha is not None)
        known = alpha
    else:
        mask = open_image(request.mask, "mask")
        pixels, mask_alpha = split_alpha(mask)
        check_mask(request, mask.size, size, mask_alpha is not None)
        if request.mask_mode == "alpha":
            known = mask_alpha
        else:
            grey = np.asarray(Image.fromarray(pixels).convert("L"))
            known = grey if request.mask_mode == "black" else 255 - grey
    return feather_known(np.array(known), request.feather or 0)  # a copy: a canvas writes into its arrays


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
