"""The canvas: parts of it that are edited, and images put together on it. Kept pixels stay byte for byte."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops

from unclip.images.colour import to_rgb, to_srgb
from unclip.requests.fields import MAX_SIDE
from unclip.server.errors import ApiError
from unclip.version import __version__

MAX_RECORD = 1 << 19  # characters of the record of a canvas

Frame = tuple[int, int, int, int]
"""(left, top, width, height) in pixels of the image; left and top may be negative."""


@dataclass(frozen=True)
class Selection:
    """The part of an image that is edited, with the mask of what is generated there.

    mask, mask_mode: as in a Request. has_transparency: some pixels are not opaque. margins: (left, right, top, bottom)
    as fields of a Request, if all pixels but those of one rectangle are transparent, and these are opaque.
    """

    image: Image.Image
    mask: Image.Image | None
    mask_mode: str | None
    has_transparency: bool
    margins: dict[str, int] | None

    def opaque_part(self) -> Image.Image:
        """The image without its transparent margins."""
        assert self.margins is not None
        right, bottom = self.image.width - self.margins["right"], self.image.height - self.margins["bottom"]
        return self.image.crop((self.margins["left"], self.margins["top"], right, bottom))


def parse_frame(value: Any, max_pixels: int) -> Frame | None:
    """A frame from "left,top,width,height" or four numbers. Raises ApiError."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [int(part) for part in value.split(",") if re.fullmatch(r"\s*-?\d{1,6}\s*", part)]
    is_valid = isinstance(value, (list, tuple)) and len(value) == 4 and all(type(number) is int for number in value)
    if not is_valid or not all(1 <= side <= MAX_SIDE for side in value[2:]) or abs(value[0]) + abs(value[1]) > 1 << 20:
        raise ApiError(
            f'frame must be "left,top,width,height" in pixels, with sides from 1 to {MAX_SIDE}', param="frame"
        )
    if value[2] * value[3] > max_pixels:
        raise ApiError(
            f"the frame has {value[2] * value[3]:,} pixels; at most {max_pixels:,} are edited", param="frame"
        )
    return value[0], value[1], value[2], value[3]


def select(
    image: Image.Image, mask: Image.Image | None, mask_mode: str | None, frame: Frame | None = None
) -> Selection:
    """The part of an image in a frame, or all of it, and what is generated there.

    mask: of the frame's size. Its mode is `mask_mode`; by default transparent pixels are generated if it has any, else
    white ones. Pixels of the frame past the image are generated, too.
    """
    if mask is not None and mask_mode is None:
        mask_mode = "alpha" if alpha_of(mask) is not None else "white"
    if frame is not None:
        image = crop(image, frame)
    alpha = alpha_of(image)
    if frame is not None and mask is not None and alpha is not None and mask.size == image.size:
        mask, mask_mode = ImageChops.lighter(repainted(mask, mask_mode), ImageChops.invert(alpha)), "white"
    return Selection(image, mask, mask_mode, alpha is not None, None if alpha is None else margins(alpha))


def crop(image: Image.Image, frame: Frame) -> Image.Image:
    """The part of an image in a frame; transparent past the image."""
    left, top, width, height = frame
    box = (left, top, left + width, top + height)
    if left >= 0 and top >= 0 and box[2] <= image.width and box[3] <= image.height:
        return image.crop(box)
    if left >= image.width or top >= image.height or box[2] <= 0 or box[3] <= 0:
        raise ApiError("the frame lies past the image: move it so that both have pixels in common", param="frame")
    found = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    found.paste(image.convert("RGBA"), (-left, -top))
    found.info = dict(image.info)  # the colour profile
    return found


def alpha_of(image: Image.Image) -> Image.Image | None:
    """The alpha of an RGB or RGBA image, or None if it is opaque."""
    if image.mode != "RGBA":
        return None
    alpha = image.getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def margins(alpha: Image.Image) -> dict[str, int] | None:
    """The margins of a picture whose alpha is 255 in one rectangle and 0 everywhere else; None for any other."""
    counts = alpha.histogram()
    box = alpha.getbbox()
    if box is None or counts[0] + counts[255] < alpha.width * alpha.height:
        return None
    left, top, right, bottom = box
    if counts[255] != (right - left) * (bottom - top):
        return None
    return {"left": left, "right": alpha.width - right, "top": top, "bottom": alpha.height - bottom}


def repainted(mask: Image.Image, mask_mode: str | None) -> Image.Image:
    """A mask as grey values: white is generated."""
    if mask_mode == "alpha":
        if mask.mode != "RGBA":
            raise ApiError("the mask has no transparency, so mask_mode alpha finds nothing to repaint", param="mask")
        return ImageChops.invert(mask.getchannel("A"))
    grey = mask.convert("RGB").convert("L")
    return ImageChops.invert(grey) if mask_mode == "black" else grey


@dataclass(frozen=True)
class Placed:
    """An image on a canvas, with its top left corner.

    size: (width, height) to which it is scaled, or None. replaces: its transparent pixels, too, replace those below.
    record: of how it was made, or None.
    """

    image: Image.Image
    left: int
    top: int
    size: tuple[int, int] | None = None
    replaces: bool = False
    record: Mapping[str, Any] | None = None


def compose(layers: Sequence[Placed], max_pixels: int) -> Image.Image:
    """The images on one canvas that holds all of them, the first at the bottom. Where none is, it is transparent.

    A pixel of an upper image replaces the one below, unless it is transparent. The canvas has the colour profile of the
    first image, to which the others are converted. Raises ApiError for a canvas that is too large.
    """
    profile = layers[0].image.info.get("icc_profile")
    images = [
        layer.image
        if layer.size in (None, layer.image.size)
        else layer.image.resize(layer.size, Image.Resampling.LANCZOS)
        for layer in layers
    ]
    left, top = min(layer.left for layer in layers), min(layer.top for layer in layers)
    width = max(layer.left + image.width for layer, image in zip(layers, images, strict=True)) - left
    height = max(layer.top + image.height for layer, image in zip(layers, images, strict=True)) - top
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise ApiError(f"the canvas would be {width}x{height}; at most {max_pixels:,} pixels are kept", param="layers")
    canvas = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    for layer, image in zip(layers, images, strict=True):
        place, image = (layer.left - left, layer.top - top), convert_profile(image, profile)
        if layer.replaces or alpha_of(image) is None:
            canvas.paste(image.convert("RGBA"), place)
        else:
            canvas.alpha_composite(image.convert("RGBA"), place)
    canvas = canvas.convert("RGB") if alpha_of(canvas) is None else canvas
    if profile is not None:
        canvas.info["icc_profile"] = profile
    return canvas


def convert_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB or RGBA image in a colour profile; None is sRGB."""
    own = image.info.get("icc_profile")
    if own == profile:
        return image
    found = to_srgb(image.convert("RGB"), own)[0]
    target = to_rgb(found, profile)[1]
    found = found if target is None else target.from_srgb(found)
    if image.mode == "RGBA":
        found = found.convert("RGB")
        found.putalpha(image.getchannel("A"))
    return found


def canvas_record(layers: Sequence[Placed]) -> dict[str, Any]:
    """The record of a canvas: {"version", "canvas": its parts, the lowest first}, each with its place and its record.

    The parts of a layer that is a canvas itself take its place. If a record would be too long to be read again, the
    lowest parts are left out.
    """
    left, top = min(layer.left for layer in layers), min(layer.top for layer in layers)
    parts: list[dict[str, Any]] = []
    for layer in layers:
        width, height = layer.size or layer.image.size
        x, y = layer.left - left, layer.top - top
        below = None if layer.record is None else layer.record.get("canvas")
        if isinstance(below, list) and (width, height) == layer.image.size:
            moved = [part for part in below if isinstance(part, dict) and is_placed(part)]
            parts += [{**part, "left": part["left"] + x, "top": part["top"] + y} for part in moved]
        else:
            parts.append({"left": x, "top": y, "width": width, "height": height, "record": layer.record})
    room, kept = MAX_RECORD, []
    for part in reversed(parts):
        room -= len(json.dumps(part))
        if room < 0:
            break
        kept.insert(0, part)
    return {"version": __version__, "canvas": kept}


def is_placed(part: Mapping[str, Any]) -> bool:
    """Whether a part of a record, which may come from anywhere, says where it is."""
    return all(type(part.get(name)) is int and abs(part[name]) < 1 << 31 for name in ("left", "top"))
