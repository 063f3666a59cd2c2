"""Previews: the image that a step of the decoder predicts, for an edit in its place on the canvas."""

import re

from PIL import Image

from unclip.inference.model import UnclipModel
from unclip.modes.inpainting.canvas import Box
from unclip.modes.inpainting.inpaint import open_canvases
from unclip.modes.inpainting.plan import plan_context_views, plan_edit
from unclip.requests.request import Request

MAX_SIDE = 1024  # pixels; larger previews are scaled down
_PART = re.compile(r"(region|context view|window) (\d+) of (\d+)")


def part_of(fraction: float, stage: str, *kinds: str) -> float:
    """The fraction of the whole that is done, if `fraction` of a part is. stage: such as "window 2 of 5, decoder"."""
    for kind, number, count in _PART.findall(stage):
        if kind in kinds:
            fraction = (int(number) - 1 + fraction) / int(count)
    return fraction


class EditPreview:
    """The canvas of an edit, on which the windows that are being denoised are placed."""

    def __init__(self, model: UnclipModel, request: Request) -> None:
        [canvas] = open_canvases([request])
        self._edit = plan_edit(model, request, canvas)
        self._views = [plan_context_views(model, self._edit, windows) for windows in self._edit.regions]
        self._small = model.sizes[0]
        self._masked = Image.fromarray(255 - canvas.known)
        self._image = self._base = canvas.image().convert("RGB")
        self._part = ""

    def fraction_done(self, stage: str, fraction: float, size: tuple[int, int]) -> float:
        """The fraction of all steps of the decoder that are done, 0 .. 1, if `fraction` of a stage is.

        size: of the stage's image. Sketches in context views count for half of their region.
        """
        fraction = part_of(fraction, stage, "context view", "window")
        if self._views[_numbers(stage).get("region", 0)]:
            fraction = fraction / 2 + (0.5 if size != self._small else 0)
        return part_of(fraction, stage, "region")

    def place(self, stage: str, image: Image.Image) -> Image.Image:
        """The whole canvas with the predicted image of a step, in its place, between the known pixels."""
        part = f"{stage.rpartition(',')[0]} {image.size == self._small}"
        if part != self._part:  # earlier windows stay as they were last
            self._part, self._base = part, self._image
        left, top, right, bottom = self._box(stage, image.size)
        patch = image.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
        self._image = self._base.copy()
        self._image.paste(patch, (left, top), self._masked.crop((left, top, right, bottom)))
        shown = self._image.copy()
        shown.thumbnail((MAX_SIDE, MAX_SIDE))
        return shown

    def _box(self, stage: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) on the canvas of an image that is predicted in a stage."""
        numbers = _numbers(stage)
        region = numbers.get("region", 0)
        windows, views = self._edit.regions[region], self._views[region]
        if size != self._small:  # all windows, denoised as one image
            return _around([window.box for window in windows])
        if views and "window" not in numbers:
            return _around([views[numbers.get("context view", 0)].box])
        return _around([windows[numbers.get("window", 0)].box])


def _numbers(stage: str) -> dict[str, int]:
    """{"window": 1} of "window 2 of 5, decoder"."""
    return {kind: int(number) - 1 for kind, number, _ in _PART.findall(stage)}


def _around(boxes: list[Box]) -> tuple[int, int, int, int]:
    return (
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.left + box.side for box in boxes),
        max(box.top + box.side for box in boxes),
    )
