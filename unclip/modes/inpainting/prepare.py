"""Prepare the canvas of an edit: from an image and its mask, or with margins to outpaint."""

import numpy as np

from unclip.errors import RequestError
from unclip.images.pixels import Pixels, read_pixels
from unclip.images.reading import check_header
from unclip.modes.inpainting.canvas import KEEP, Canvas
from unclip.modes.inpainting.mask import check_mask, check_mask_source, read_known
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
    image = read_pixels(request.image, "image")
    if request.outpaints:
        return add_margins(request, image)
    height, width = image.colours.shape[:2]
    known, notes = read_known(request, (width, height), image.alpha)
    # Transparency that served as the mask is filled; any other transparency stays.
    alpha = None if request.mask is None else image.alpha
    return Canvas(image.colours, known, alpha, (0, 0, width, height), image.profile, (*image.notes, *notes))


def add_margins(request: Request, image: Pixels) -> Canvas:
    """A canvas with an image on it and masked margins around it."""
    rows, columns = image.colours.shape[:2]
    left, top, width, height = place_original(request, (columns, rows))
    bottom, right = top + rows, left + columns
    area = (slice(top, bottom), slice(left, right))
    canvas = Canvas(
        np.zeros((height, width, 3), np.uint8),
        np.zeros((height, width), np.uint8),
        None if image.alpha is None else np.full((height, width), 255, np.uint8),
        (left, top, right, bottom),
        image.profile,
        image.notes,
    )
    canvas.pixels[area], canvas.known[area] = image.colours, KEEP
    if canvas.alpha is not None:
        canvas.alpha[area] = image.alpha
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
