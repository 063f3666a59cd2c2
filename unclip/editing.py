"""Inpainting and outpainting: window by window, each drawn by the one pipeline with what is known of it held fixed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from unclip.canvas import Canvas, open_canvas, to_images, windows
from unclip.diffusion.noise import generators
from unclip.embeddings import slerp
from unclip.models.clip import TextEncoding
from unclip.progress import Progress, Watcher
from unclip.request import Request
from unclip.stage import Known

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

Edited = tuple[Image.Image, float | None, tuple[str, ...]]
"""A finished picture, its CLIP score, and notes for the user."""


@torch.inference_mode()
def edit(
    pipe: "Unclip", requests: Sequence[Request], progress: Progress | None = None
) -> tuple[list[Edited], dict[str, float]]:
    """Resolved edits, one image each and alike in steps, guidance and samplers -> pictures, seconds of each stage.

    Each has its own image, mask, prompts and seed. The pictures have the sizes of their canvases, which need not be
    the same; the k-th windows of all of them are drawn together. Pixels that are kept are not touched.
    """
    first, noise, timings = requests[0], generators([request.seed for request in requests]), {}
    size = pipe.sizes[-1][0]
    canvases = [open_canvas(request) for request in requests]
    plans = [windows(canvas, size) for canvas in canvases]
    prompts = [
        [prompt_beyond(request, canvas.side_of(box)) for box in plan]
        for request, canvas, plan in zip(requests, canvases, plans, strict=True)
    ]
    jobs = list(dict.fromkeys((i, prompt) for i, own in enumerate(prompts) for prompt in own))
    if jobs:
        text = pipe.encode_text([prompt for _, prompt in jobs])
        negative = pipe.encode_text([requests[i].negative for i, _ in jobs])
        embed = guiding(pipe, requests, canvases, jobs, text, negative, noise, progress)
    rounds = max(map(len, plans))
    for k in range(rounds):
        active = [i for i, plan in enumerate(plans) if k < len(plan)]
        boxes = [plans[i][k] for i in active]
        rows = [jobs.index((i, prompts[i][k])) for i in active]
        crops = [canvases[i].crop(box, size) for i, box in zip(active, boxes, strict=True)]
        known = Known(*(torch.stack(parts).to(pipe.device) for parts in zip(*crops, strict=True)))
        pictures = pipe.paint(
            embed[rows],
            TextEncoding(*(part[rows] for part in text)),
            TextEncoding(*(part[rows] for part in negative)),
            [noise[i] for i in active],
            first,
            in_window(progress, k + 1, rounds),
            timings,
            known,
        )
        for i, box, picture in zip(active, boxes, to_images(pictures), strict=True):
            canvases[i].paste(box, picture)
    edited = []
    for request, canvas, plan in zip(requests, canvases, plans, strict=True):
        image = canvas.image()
        told = request.prompt.strip() and pipe.clip.visual is not None
        score = pipe.score(image, request.prompt)[0] if told else None
        edited.append((image, score, () if plan else ("the mask keeps every pixel: the image is unchanged",)))
    return edited, timings


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


def in_window(progress: Progress | None, k: int, count: int) -> Progress | None:
    """A progress callback that also tells which window is being drawn."""
    if progress is None or count == 1:
        return progress
    window = f"window {k} of {count}"
    if isinstance(progress, Watcher):
        return WindowWatcher(progress, window)
    return lambda stage, done, total: progress(f"{window}, {stage}", done, total)  # spared the pictures


class WindowWatcher(Watcher):
    """Tells a Watcher of one window."""

    def __init__(self, watcher: Watcher, window: str) -> None:
        self._watcher = watcher
        self._window = window

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._watcher(f"{self._window}, {stage}", done, total)

    def see(self, stage: str, images: Sequence[Image.Image], seeds: Sequence[int]) -> None:
        self._watcher.see(stage, images, seeds)
