"""Plan an edit: which windows are denoised, and the prompt of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from unclip.diffusion.tiling import Tiling
from unclip.inference.model import UnclipModel
from unclip.modes.inpainting.canvas import Box, Canvas
from unclip.modes.inpainting.regions import masked_regions
from unclip.modes.inpainting.windows import one_window_suffices, place_context_views, place_windows
from unclip.requests.fields import SIDES
from unclip.requests.request import Request


@dataclass(frozen=True)
class Window:
    """A window, or a context view, of a canvas.

    prompt: None to continue the image and add nothing. within: the boxes into which its pixels are pasted; None for
    everywhere.
    """

    box: Box
    prompt: str | None
    within: tuple[Box, ...] | None = None


@dataclass(frozen=True)
class Edit:
    """One edit: its canvas, and the windows of each masked region, in order.

    prompt_shown: whether the image already shows what the prompt says (see `prompt_is_shown`).
    """

    request: Request
    canvas: Canvas
    regions: tuple[tuple[Window, ...], ...]
    prompt_shown: bool

    def notes(self) -> list[str]:
        """Messages for the user about the input files, and about parts of the request without effect."""
        windows = [window for region in self.regions for window in region]
        notes = [*self.canvas.notes]
        if not windows:
            notes.append("the mask keeps every pixel: the image is unchanged")
        if self.prompt_shown and any(window.prompt is None for window in windows):
            notes.append(
                "the image seems to show the prompt already (by CLIP), so nothing was added; to add something new, use "
                "the prompt of a side"
            )
        for side in self.unused_side_prompts():
            notes.append(f"no window lies mainly beyond that side, so {side}_prompt was not used; add more there")
        return notes

    def unused_side_prompts(self) -> list[str]:
        """The sides whose own prompt no window uses."""
        used = {window.prompt or "" for region in self.regions for window in region}
        prompts = {side: getattr(self.request, f"{side}_prompt") for side in SIDES}
        return [side for side, prompt in prompts.items() if prompt is not None and prompt not in used]


def plan_edit(model: UnclipModel, request: Request, canvas: Canvas) -> Edit:
    """The windows of each masked region. A window has the prompt of the side that most of its masked pixels lie beyond.

    Uses CLIP to compare the prompt with the image, if the model needs that.
    """
    shown = prompt_is_shown(model, request, canvas)
    least, size, cells = model.default_size[0], window_size(model, canvas), model.decoder.shape[-1]
    separate = any(getattr(request, f"{side}_prompt") is not None for side in SIDES)
    regions = (
        place_windows(canvas, size, cells, region, least=least, separate_sides=separate)
        for region in masked_regions(canvas, size, least)
    )
    planned = tuple(
        tuple(Window(box, prompt_beyond(model, request, canvas.side_of(box), shown)) for box in boxes)
        for boxes in regions
    )
    return Edit(request, canvas, planned, shown)


def window_size(model: UnclipModel, canvas: Canvas) -> int:
    """Side in pixels of the windows into which a large region of a canvas is divided.

    It is the side of the model's images. A second upsampler draws larger windows in full detail: then, windows are as
    large as the canvas allows, and show as much of it as they would of a canvas of the default size.
    """
    return max(model.default_size[0], min(model.sizes[-1][0], *canvas.size))


def image_size(model: UnclipModel, box: Box) -> tuple[int, int]:
    """(width, height) of the images that are generated for a window: the default, or larger ones for a larger window.

    Those are then made smaller, which is sharper than to enlarge images of the default size.
    """
    return model.default_size if box.side <= model.default_size[0] else model.sizes[-1]


def adds_only_the_prompt(model: UnclipModel, request: Request) -> bool:
    """Whether an outpainting adds what its prompts say and otherwise continues the image.

    Decoders with shown_above < 1 were trained so. False if an embedding guides, which describes a whole image.
    """
    return request.outpaints and model.shown_above < 1 and request.embedding is None and not request.keep_style


def prompt_is_shown(model: UnclipModel, request: Request, canvas: Canvas) -> bool:
    """Whether the image already shows what the prompt of an outpainting says, by CLIP similarity.

    CLIP was not trained on distorted images, so an image that is not square is compared by its two ends and its middle.
    """
    if not adds_only_the_prompt(model, request) or not request.prompt.strip() or not model.encoder.encodes_images:
        return False
    image = canvas.original()
    side = min(image.size)
    x, y = ((0, (length - side) // 2, length - side) for length in image.size)
    squares = [image.crop((left, top, left + side, top + side)) for left, top in dict.fromkeys(zip(x, y, strict=True))]
    return max(model.encoder.score(squares, [request.prompt] * len(squares))) >= model.shown_above


def prompt_beyond(model: UnclipModel, request: Request, side: str | None, prompt_shown: bool = False) -> str | None:
    """The prompt of a window beyond a side: the side's own, or the main prompt; None to add nothing.

    prompt_shown: the image shows the main prompt already, so that it describes nothing new.
    """
    own = None if side is None else getattr(request, f"{side}_prompt")
    prompt = request.prompt if own is None else own
    adds_nothing = prompt_shown and own is None or not prompt.strip() and adds_only_the_prompt(model, request)
    return None if adds_nothing else prompt


def image_weight(request: Request, prompt: str | None) -> float | None:
    """The weight of the image's own embedding against a prompt's, 0 .. 1; None where no embedding is used."""
    if prompt is None:
        return None
    return (request.keep_style or 0.0) if prompt.strip() or request.embedding is not None else 1.0


def possible_image_weights(model: UnclipModel, request: Request) -> list[float]:
    """The image weights of all windows that a resolved edit may have. Needs no image."""
    sides = [side for side in SIDES if request.size is not None or getattr(request, side)] or [None]
    weights = [image_weight(request, prompt_beyond(model, request, side)) for side in sides]
    return [weight for weight in weights if weight is not None]


def plan_context_views(model: UnclipModel, edit: Edit, windows: Sequence[Window]) -> list[Window]:
    """The context views to sketch before the windows of a region: for each prompt, of the original and its windows.

    None if one window suffices, or if each window adds its own content, by a prompt that describes new content only.
    """
    views, size, canvas = [], window_size(model, edit.canvas), edit.canvas
    masked = canvas.masked
    prompts = dict.fromkeys(window.prompt for window in windows)
    each_its_own = adds_only_the_prompt(model, edit.request) and len(prompts) == len(windows)
    if one_window_suffices(canvas, [window.box for window in windows]) or each_its_own:
        return []
    for prompt in prompts:
        boxes = tuple(window.box for window in windows if window.prompt == prompt)
        wanted = canvas.covered(boxes)
        for view in place_context_views(canvas, boxes, size):
            sketched = wanted & masked & canvas.covered([view])
            if sketched.any():
                views.append(Window(view, prompt, boxes))
                masked &= ~sketched
    return views


def plan_tiling(windows: Sequence[Window], cells: int, rows: Sequence[int]) -> Tiling:
    """The tiling of windows in latent positions, `cells` along each side. rows: of the conditioning, per window."""
    side = windows[0].box.side
    corners = [(round(w.box.top * cells / side), round(w.box.left * cells / side)) for w in windows]
    tops, lefts = zip(*corners, strict=True)
    top, left = min(tops), min(lefts)
    relative = tuple((y - top, x - left) for y, x in corners)
    return Tiling(max(tops) - top + cells, max(lefts) - left + cells, cells, relative, tuple(rows))
