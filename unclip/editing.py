"""Inpainting and outpainting: window by window, each drawn by the one pipeline with what is known of it held fixed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from unclip.canvas import Box, Canvas, open_canvas
from unclip.diffusion.noise import generators
from unclip.diffusion.tiling import Tiling
from unclip.embeddings import slerp
from unclip.models.clip import TextEncoding
from unclip.pictures import to_images
from unclip.progress import Progress, Watcher
from unclip.request import Request
from unclip.stage import Known
from unclip.windows import views, windows

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

Edited = tuple[Image.Image, float | None, tuple[str, ...]]
"""A finished picture, its CLIP score, and notes for the user."""


@dataclass(frozen=True)
class Look:
    """What is drawn at once: a window of a canvas or a view of it, by which prompt, and the parts that are wanted."""

    box: Box
    prompt: str
    parts: tuple[Box, ...] | None = None


Looks = Sequence[tuple[int, Look]]
"""Looks at canvases, each with the place of its canvas and its request in the batch."""


@torch.inference_mode()
def edit(
    pipe: "Unclip", requests: Sequence[Request], progress: Progress | None = None
) -> tuple[list[Edited], dict[str, float]]:
    """Resolved edits, one image each and alike in steps, guidance and samplers -> pictures, seconds of each stage.

    Each has its own image, mask, prompts and seed. The pictures have the sizes of their canvases, which need not be
    the same; the k-th windows of all of them are drawn together. Pixels that are kept are not touched.

    Where no one window sees all that matters, the decoder first sketches what is free in views that do, and then draws
    all of the windows as one picture, which begins at the sketch; the upsamplers enlarge it window by window.
    """
    first, noise, timings = requests[0], generators([request.seed for request in requests]), {}
    small, size, cells = pipe.sizes[0][0], pipe.sizes[-1][0], pipe.decoder.shape[-1]
    canvases = [open_canvas(request) for request in requests]
    plans = [windows_of(*pair, size, cells) for pair in zip(requests, canvases, strict=True)]
    outlooks = [views_of(*pair, size, cells) for pair in zip(canvases, plans, strict=True)]
    jobs = list(dict.fromkeys((i, look.prompt) for i, plan in enumerate(plans) for look in plan))
    if jobs:
        text = pipe.encode_text([prompt for _, prompt in jobs])
        negative = pipe.encode_text([requests[i].negative for i, _ in jobs])
        embed = guiding(pipe, requests, canvases, jobs, text, negative, noise, progress)

    def told(looks: Looks, name: str | None = None) -> tuple[Any, ...]:
        """What looks are drawn by, as `Unclip.paint` takes it: a prompt each, and a generator a canvas."""
        rows = [jobs.index((i, look.prompt)) for i, look in looks]
        texts = (TextEncoding(*(part[rows] for part in t)) for t in (text, negative))
        return embed[rows], *texts, [noise[i] for i in dict(looks)], first, in_look(progress, name), timings

    sketches = {i: canvases[i].sketch() for i, looks in enumerate(outlooks) if looks}
    for _, name, looks in rounds(outlooks, "view"):
        paste(sketches, looks, pipe.decode(*told(looks, name), seen(sketches, looks, small, pipe.device)))
    decoded = {}
    for i, sketch in sketches.items():
        looks = [(i, look) for look in plans[i]]
        tiling = tiling_of(plans[i], cells)
        known = seen(canvases, looks, small, pipe.device)
        known = Known(tiling.lay(known.image, 0.0), tiling.lay(known.mask, 1.0))
        draft = tiling.lay(seen({i: sketch}, looks, small, pipe.device).image, 0.0)
        decoded[i] = tiling.cut(pipe.decode(*told(looks), known, draft=draft, tiling=tiling))  # n 3 64 64
    for k, name, looks in rounds(plans, "window"):
        for sketched in (True, False):
            some = [(i, look) for i, look in looks if (i in sketches) == sketched]
            if some:
                given = torch.stack([decoded[i][k] for i, _ in some]) if sketched else None
                known = seen(canvases, some, size, pipe.device)
                paste(canvases, some, pipe.paint(*told(some, name), known, small=given))
    edited = []
    for request, canvas, plan in zip(requests, canvases, plans, strict=True):
        image = canvas.image()
        named = request.prompt.strip() and pipe.clip.visual is not None
        score = pipe.score(image, request.prompt)[0] if named else None
        edited.append((image, score, () if plan else ("the mask keeps every pixel: the image is unchanged",)))
    return edited, timings


def windows_of(request: Request, canvas: Canvas, size: int, cells: int) -> list[Look]:
    """The windows of a canvas, each with the prompt of the side that it lies beyond."""
    return [Look(box, prompt_beyond(request, canvas.side_of(box))) for box in windows(canvas, size, cells)]


def views_of(canvas: Canvas, plan: Sequence[Look], size: int, cells: int) -> list[Look]:
    """The views that come before the windows of a plan: each once a prompt, for the windows with that prompt in it."""
    looks = []
    for view in views(canvas, size, cells):
        parts: dict[str, tuple[Box, ...]] = {}
        for look in plan:
            if canvas.is_free(view, look.box):
                parts[look.prompt] = (*parts.get(look.prompt, ()), look.box)
        looks += [Look(view, prompt, boxes) for prompt, boxes in parts.items()]
    return looks


def tiling_of(plan: Sequence[Look], cells: int) -> Tiling:
    """The windows of a canvas in positions of the decoder's latent, of which there are `cells` to a side."""
    unit = plan[0].box.side // cells
    corners = tuple((look.box.top // unit, look.box.left // unit) for look in plan)
    height, width = (max(starts) + cells for starts in zip(*corners, strict=True))
    return Tiling(height, width, cells, corners)


def rounds(looks: Sequence[Sequence[Look]], kind: str) -> Iterator[tuple[int, str | None, Looks]]:
    """The k-th looks of all that have so many, for each k, and what they are called where there are several."""
    count = max(map(len, looks))
    for k in range(count):
        yield (
            k,
            f"{kind} {k + 1} of {count}" if count > 1 else None,
            [(i, own[k]) for i, own in enumerate(looks) if k < len(own)],
        )


def seen(canvases: Mapping[int, Canvas] | Sequence[Canvas], looks: Looks, side: int, device: torch.device) -> Known:
    """What looks at canvases see, at `side` pixels."""
    crops = [canvases[i].crop(look.box, side) for i, look in looks]
    return Known(*(torch.stack(parts).to(device) for parts in zip(*crops, strict=True)))


def paste(canvases: Mapping[int, Canvas] | Sequence[Canvas], looks: Looks, drawn: Tensor) -> None:
    """Put what was drawn, `b 3 h w`, on its canvases."""
    for (i, look), picture in zip(looks, to_images(drawn), strict=True):
        canvases[i].paste(look.box, picture, look.parts)


def guiding(
    pipe: "Unclip",
    requests: Sequence[Request],
    canvases: Sequence[Canvas],
    jobs: Sequence[tuple[int, str]],
    text: TextEncoding,
    negative: TextEncoding,
    noise: Sequence[torch.Generator],
    progress: Progress | None,
) -> Tensor:
    """The embeddings `b d` that guide jobs (request, prompt): the prior's, the image's own, or one between them.

    Without a prompt it is the image's own; an embedding from a file goes before the prior's. The prior draws only for
    those that need it, so that an image's noise does not depend on what else is in the batch.
    """
    style = [requests[i].keep_style if prompt.strip() or requests[i].embedding else 1.0 for i, prompt in jobs]
    embed = text.embed.clone()
    asked = [row for row, share in enumerate(style) if share < 1]
    if asked:
        part, counter = (TextEncoding(*(value[asked] for value in t)) for t in (text, negative))
        own = [noise[jobs[row][0]] for row in asked]
        files = [requests[jobs[row][0]].embedding for row in asked]
        embed[asked] = pipe.guide(files, part, counter, own, requests[0], progress)
    copied = [row for row, share in enumerate(style) if share > 0]
    if copied:
        images = pipe.embed_image([original(canvases[jobs[row][0]]) for row in copied])
        share = torch.tensor([style[row] for row in copied], device=embed.device)
        embed[copied] = slerp(embed[copied], images, share)
    return embed


def original(canvas: Canvas) -> Image.Image:
    """The picture that a canvas was opened with."""
    left, top, right, bottom = canvas.origin
    return Image.fromarray(canvas.pixels[top:bottom, left:right])


def prompt_beyond(request: Request, side: str | None) -> str:
    """The prompt of a window beyond a side of the original: that side's own, where it has one."""
    own = None if side is None else getattr(request, f"{side}_prompt")
    return request.prompt if own is None else own


def in_look(progress: Progress | None, name: str | None) -> Progress | None:
    """A progress callback that also tells which window, or view, is being drawn."""
    if progress is None or name is None:
        return progress
    if isinstance(progress, Watcher):
        return LookWatcher(progress, name)
    return lambda stage, done, total: progress(f"{name}, {stage}", done, total)  # spared the pictures


class LookWatcher(Watcher):
    """Tells a Watcher of one window or view."""

    def __init__(self, watcher: Watcher, name: str) -> None:
        self._watcher = watcher
        self._name = name

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._watcher(f"{self._name}, {stage}", done, total)

    def see(self, stage: str, images: Sequence[Image.Image], seeds: Sequence[int]) -> None:
        self._watcher.see(stage, images, seeds)
