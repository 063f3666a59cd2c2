"""What is looked at to edit a picture, and by which prompt: windows of its holes, and views of the whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from unclip.canvas import KEEP, Box, Canvas
from unclip.diffusion.tiling import Tiling
from unclip.request import Request
from unclip.windows import holes, sees_all, views, windows

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


@dataclass(frozen=True)
class Look:
    """What is drawn at once: a window of a canvas or a view of it, by which prompt, and the parts that are wanted.

    prompt: None where nothing more is to be painted.
    """

    box: Box
    prompt: str | None
    parts: tuple[Box, ...] | None = None


def is_told_what_is_new(pipe: "Unclip", request: Request) -> bool:
    """Whether an outpainting is by a decoder that paints beyond a picture all that it is told, and no more.

    Where an embedding is given, or the image's own is to guide a prompt, it is left to that.
    """
    guided = request.embedding is not None or bool(request.keep_style and request.prompt.strip())
    return request.mode == "outpaint" and pipe.shown_above < 1 and not guided


def shows_already(pipe: "Unclip", request: Request, canvas: Canvas) -> bool:
    """Whether such an outpainting's prompt says what the picture shows. CLIP can tell, where it has an image tower."""
    if not is_told_what_is_new(pipe, request) or not request.prompt.strip() or pipe.clip.visual is None:
        return False
    return pipe.score(original(canvas), request.prompt)[0] >= pipe.shown_above


def plans_of(pipe: "Unclip", request: Request, canvas: Canvas, shown: bool) -> list[list[Look]]:
    """The windows of each hole of a canvas, each with the prompt of the side that it lies beyond.

    shown: the prompt of the whole says what is there already, and so nothing that is to be painted.
    """

    def look(box: Box) -> Look:
        side = canvas.side_of(box)
        own = None if side is None else getattr(request, f"{side}_prompt")
        prompt = request.prompt if own is None else own
        nothing = shown and own is None or not prompt.strip() and is_told_what_is_new(pipe, request)
        return Look(box, None if nothing else prompt)

    size, cells = pipe.sizes[-1][0], pipe.decoder.shape[-1]
    return [[look(box) for box in windows(canvas, size, cells, hole)] for hole in holes(canvas, size)]


def views_of(pipe: "Unclip", request: Request, canvas: Canvas, plan: Sequence[Look]) -> list[Look]:
    """The views that come before the windows of a plan: of the original and the windows of each prompt, one by one.

    None, where one window sees all; or all of what a prompt is to add, if the prompt is not of the original, too.
    """
    looks, free, size = [], canvas.known < KEEP, pipe.sizes[-1][0]
    prompts = dict.fromkeys(look.prompt for look in plan)
    if (
        sees_all(canvas, [look.box for look in plan])
        or is_told_what_is_new(pipe, request)
        and len(prompts) == len(plan)
    ):
        return []
    for prompt in prompts:
        boxes = tuple(look.box for look in plan if look.prompt == prompt)
        wanted = canvas.covered(boxes)
        for view in views(canvas, boxes, size):
            drawn = wanted & free & canvas.covered([view])
            if drawn.any():
                looks.append(Look(view, prompt, boxes))
                free &= ~drawn
    return looks


def tiling_of(plan: Sequence[Look], cells: int, rows: Sequence[int]) -> Tiling:
    """The windows of a plan in positions of the decoder's latent, of which there are `cells` to a side."""
    side = plan[0].box.side
    corners = [(round(look.box.top * cells / side), round(look.box.left * cells / side)) for look in plan]
    (top, left), (bottom, right) = ([edge(starts) for starts in zip(*corners, strict=True)] for edge in (min, max))
    corners = [(y - top, x - left) for y, x in corners]
    return Tiling(bottom - top + cells, right - left + cells, cells, tuple(corners), tuple(rows))


def original(canvas: Canvas) -> Image.Image:
    """The picture that a canvas was opened with."""
    left, top, right, bottom = canvas.origin
    return Image.fromarray(canvas.pixels[top:bottom, left:right])
