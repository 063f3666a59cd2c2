"""Make the canvas of a request: from its image and mask, or with margins to outpaint."""

import numpy as np
from PIL import Image, ImageFilter

from unclip.errors import RequestError
from unclip.images.reading import open_picture, split_alpha
from unclip.modes.inpainting.canvas import KEEP, Canvas
from unclip.requests.fields import MAX_SIDE, SIDES
from unclip.requests.request import Request
from unclip.requests.values import size_text

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
