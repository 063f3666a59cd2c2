"""What is looked at to edit a picture, and by which prompt: windows of its holes, and views of the whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from unclip.diffusion.tiling import Tiling
from unclip.modes.inpainting.canvas import KEEP, Box, Canvas
from unclip.modes.inpainting.regions import holes
from unclip.modes.inpainting.windows import sees_all, views, windows
from unclip.requests.fields import SIDES
from unclip.requests.request import Request

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

    Where an embedding is given, or the image's own is to guide, it is left to that.
    """
    return request.mode == "outpaint" and pipe.shown_above < 1 and request.embedding is None and not request.keep_style


def shows_already(pipe: "Unclip", request: Request, canvas: Canvas) -> bool:
    """Whether CLIP, where it has an image tower, takes such an outpainting's prompt for what the picture shows.

    Of a picture that is no square it looks at both ends and the middle: it was not trained on squeezed ones.
    """
    if not is_told_what_is_new(pipe, request) or not request.prompt.strip() or pipe.clip.visual is None:
        return False
    image = original(canvas)
    side = min(image.size)
    x, y = ((0, (length - side) // 2, length - side) for length in image.size)
    squares = [image.crop((left, top, left + side, top + side)) for left, top in dict.fromkeys(zip(x, y, strict=True))]
    return max(pipe.score(squares, request.prompt)) >= pipe.shown_above


def said(pipe: "Unclip", request: Request, side: str | None, shown: bool = False) -> str | None:
    """What is painted beyond a side by: its own prompt, or that of the whole; None where nothing more is painted.

    shown: the prompt of the whole says what is there already, and so nothing that is to be painted.
    """
    own = None if side is None else getattr(request, f"{side}_prompt")
    prompt = request.prompt if own is None else own
    nothing = shown and own is None or not prompt.strip() and is_told_what_is_new(pipe, request)
    return None if nothing else prompt


def share_of_style(request: Request, prompt: str | None) -> float | None:
    """How much the image's own embedding guides what a resolved request paints by a prompt; None: no embedding does."""
    if prompt is None:
        return None
    return (request.keep_style or 0.0) if prompt.strip() or request.embedding is not None else 1.0


def shares_of_style(pipe: "Unclip", request: Request) -> list[float]:
    """Those of all that a resolved edit may paint, as far as it can be told without its picture."""
    sides = [side for side in SIDES if request.size is not None or getattr(request, side)] or [None]
    shares = [share_of_style(request, said(pipe, request, side)) for side in sides]
    return [share for share in shares if share is not None]


def plans_of(pipe: "Unclip", request: Request, canvas: Canvas, shown: bool) -> list[list[Look]]:
    """The windows of each hole of a canvas, each with the prompt of the side that most of what it paints lies beyond.

    shown: the prompt of the whole says what is there already.
    """
    size, cells = pipe.sizes[-1][0], pipe.decoder.shape[-1]
    apart = any(getattr(request, f"{side}_prompt") is not None for side in SIDES)
    plans = [windows(canvas, size, cells, hole, apart=apart) for hole in holes(canvas, size)]
    return [[Look(box, said(pipe, request, canvas.side_of(box), shown)) for box in plan] for plan in plans]


def unheard(request: Request, plans: Sequence[Sequence[Look]]) -> list[str]:
    """The sides whose own prompts nothing is painted by: those that no window lies beyond more than beyond others."""
    heard = {look.prompt or "" for plan in plans for look in plan}
    own = {side: getattr(request, f"{side}_prompt") for side in SIDES}
    return [side for side, prompt in own.items() if prompt is not None and prompt not in heard]


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
    """The picture that a canvas was opened with, until it is painted in; what is clear in it is white."""
    left, top, right, bottom = canvas.origin
    return Image.fromarray(canvas.seen((slice(top, bottom), slice(left, right))))
