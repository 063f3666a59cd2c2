"""Inpainting and outpainting: windows of a canvas, drawn by the one pipeline with what is known of them held fixed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import generators
from unclip.embeddings.algebra import slerp
from unclip.images.processing import to_images
from unclip.inference.callbacks import Progress, Watcher
from unclip.inference.conditions import Known
from unclip.inference.run import timed
from unclip.models.text import TextEncoding
from unclip.modes.inpainting.canvas import Canvas
from unclip.modes.inpainting.plan import (
    Look,
    original,
    plans_of,
    share_of_style,
    shows_already,
    tiling_of,
    unheard,
    views_of,
)
from unclip.modes.inpainting.prepare import open_canvas
from unclip.requests.request import Request

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

Edited = tuple[Image.Image, float | None, tuple[str, ...]]
"""A finished picture, its CLIP score, and notes for the user."""


Item = TypeVar("Item")
Looks = Sequence[tuple[int, Look]]
"""Looks at canvases, each with the place of its canvas and its request in the batch."""


@torch.inference_mode()
def edit(
    pipe: "Unclip", requests: Sequence[Request], progress: Progress | None = None
) -> tuple[list[Edited], dict[str, float]]:
    """Resolved edits, one image each and alike in steps, guidance and samplers -> pictures, seconds of each stage.

    Each has its own image, mask, prompts and seed. The pictures have the sizes of their canvases, which need not be
    the same; the k-th windows of all of them go through a stage together. Pixels that are kept are not touched. Holes
    far apart are painted one after the other, each by itself.

    Where no one window sees all that matters, the decoder first sketches what is free in views that do, and then draws
    all of the windows as one picture, which begins at the sketch; the upsamplers enlarge it window by window.
    """
    canvases = [open_canvas(request) for request in requests]
    shown = [shows_already(pipe, *pair) for pair in zip(requests, canvases, strict=True)]
    plans = [plans_of(pipe, *each) for each in zip(requests, canvases, shown, strict=True)]
    noise, timings = generators([request.seed for request in requests]), {}
    # Before anything is painted: the image's own embedding is that of the image.
    guides = guiding(pipe, requests, canvases, plans, noise, progress, timings) if any(plans) else None
    for k, name, _ in rounds(plans, "hole"):
        some = [holed[k] if k < len(holed) else [] for holed in plans]
        job = Job(pipe, requests[0], canvases, some, guides, noise, in_look(progress, name), timings)
        outlooks = [views_of(pipe, *each) for each in zip(requests, canvases, some, strict=True)]
        job.paint({i: job.draw_whole(i, sketch) for i, sketch in job.sketch(outlooks).items()})
    edited = []
    for request, canvas, holed, shows in zip(requests, canvases, plans, shown, strict=True):
        image = canvas.image()
        named = request.prompt.strip() and pipe.clip.visual is not None
        score = pipe.score(image, request.prompt)[0] if named else None
        notes = [] if holed else ["the mask keeps every pixel: the image is unchanged"]
        if shows and any(look.prompt is None for plan in holed for look in plan):
            notes.append(
                "CLIP takes the prompt for what the image shows: nothing more was painted by it; give what is new as a "
                "side's prompt"
            )
        for side in unheard(request, holed):
            notes.append(f"no window lies beyond that side alone, so the {side}_prompt was not used; add more there")
        edited.append((image, score, tuple(notes)))
    return edited, timings


@dataclass(frozen=True)
class Guides:
    """What edits are drawn by: a row of embeddings and texts for each canvas and prompt."""

    rows: Mapping[tuple[int, str | None], int]
    embed: Tensor
    text: TextEncoding
    negative: TextEncoding

    def of(self, pairs: Sequence[tuple[int, str | None]]) -> tuple[Tensor, TextEncoding, TextEncoding]:
        rows = [self.rows[pair] for pair in pairs]
        return self.embed[rows], *(TextEncoding(*(part[rows] for part in t)) for t in (self.text, self.negative))


@dataclass(frozen=True)
class Job:
    """A batch of edits on its way: sketch, draw_whole for each sketch, paint. The canvases are written to."""

    pipe: "Unclip"
    request: Request  # the first, which is like the others in all that is read of it here
    canvases: Sequence[Canvas]
    plans: Sequence[Sequence[Look]]
    guides: Guides
    noise: Sequence[torch.Generator]
    progress: Progress | None
    timings: dict[str, float]

    def sketch(self, outlooks: Sequence[Sequence[Look]]) -> dict[int, Canvas]:
        """What is free on the canvases that there are views of, drawn roughly, by their place."""
        sketches = {i: self.canvases[i].sketch() for i, looks in enumerate(outlooks) if looks}
        for _, name, looks in rounds(outlooks, "view"):
            told = *self.guides.of([(i, look.prompt) for i, look in looks]), [self.noise[i] for i, _ in looks]
            known = seen(sketches, looks, self.pipe.sizes[0][0], self.pipe.device)
            drawn = self.pipe.decode(*told, self.request, in_look(self.progress, name), self.timings, known)
            paste(sketches, looks, drawn)
        return sketches

    def draw_whole(self, i: int, sketch: Canvas) -> list[Tensor]:
        """The windows of a canvas `3 h w` at the decoder's size, drawn as one picture from its sketch."""
        pairs = list(dict.fromkeys((i, look.prompt) for look in self.plans[i]))
        looks = [(i, look) for look in self.plans[i]]
        tiling = tiling_of(
            self.plans[i], self.pipe.decoder.shape[-1], [pairs.index((i, look.prompt)) for _, look in looks]
        )
        side, device = self.pipe.sizes[0][0], self.pipe.device
        known = seen(self.canvases, looks, side, device)
        known = Known(tiling.lay(known.image, 0.0), tiling.lay(known.mask, 1.0))
        draft = tiling.lay([sketch.picture(look.box, side).to(device) for _, look in looks], 0.0)
        told = *self.guides.of(pairs), [self.noise[i]], self.request, self.progress, self.timings
        return list(tiling.cut(self.pipe.decode(*told, known, draft=draft, tiling=tiling)))

    def paint(self, wholes: Mapping[int, Sequence[Tensor]]) -> None:
        """Paint the windows of all canvases; those of which there is a whole are only to be enlarged."""
        for k, name, looks in rounds(self.plans, "window"):
            progress = in_look(self.progress, name)
            for drawn in (True, False):
                some = [(i, look) for i, look in looks if (i in wholes) == drawn]
                if not some:
                    continue
                known = seen(self.canvases, some, self.pipe.sizes[-1][0], self.pipe.device)
                noise = [self.noise[i] for i, _ in some]
                if drawn:
                    held = [known.resized(height, width) for width, height in self.pipe.sizes[1:]]
                    small = torch.stack([wholes[i][k] for i, _ in some])
                    steps = self.request.upsampler_steps
                    pictures = self.pipe.upsample(small, noise, steps, held, progress, self.timings)
                else:
                    told = *self.guides.of([(i, look.prompt) for i, look in some]), noise
                    pictures = self.pipe.paint(*told, self.request, progress, self.timings, known)
                paste(self.canvases, some, pictures)


def rounds(items: Sequence[Sequence[Item]], kind: str) -> Iterator[tuple[int, str | None, list[tuple[int, Item]]]]:
    """The k-th items of all that have so many, for each k, and what they are called where there are several."""
    count = max(map(len, items), default=0)
    for k in range(count):
        yield (
            k,
            f"{kind} {k + 1} of {count}" if count > 1 else None,
            [(i, own[k]) for i, own in enumerate(items) if k < len(own)],
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
    plans: Sequence[Sequence[Sequence[Look]]],
    noise: Sequence[torch.Generator],
    progress: Progress | None,
    timings: dict[str, float],
) -> Guides:
    """What the plans of all holes are drawn by. An embedding is the prior's, the image's own, or one between them.

    Without a prompt it is the image's own; an embedding from a file goes before the prior's. Where nothing more is to
    be painted it is the one that stands for none. The prior draws only for those that need it, so that an image's noise
    does not depend on what else is in the batch.
    """
    jobs = list(dict.fromkeys((i, look.prompt) for i, holed in enumerate(plans) for plan in holed for look in plan))
    style = [share_of_style(requests[i], prompt) for i, prompt in jobs]
    with timed(timings, "text", pipe.device):
        text = pipe.encode_text([prompt or "" for _, prompt in jobs])
        negative = pipe.encode_text([requests[i].negative_prompt for i, _ in jobs])
    embed = pipe.decoder.network.projection.null_embed.to(text.embed).expand_as(text.embed).clone()
    asked = [row for row, share in enumerate(style) if share is not None and share < 1]
    if asked:
        part, counter = (TextEncoding(*(value[asked] for value in t)) for t in (text, negative))
        own = [noise[jobs[row][0]] for row in asked]
        files = [requests[jobs[row][0]].embedding for row in asked]
        with timed(timings, "prior", pipe.device):
            embed[asked] = pipe.guide(files, part, counter, own, requests[0], progress)
    copied = [row for row, share in enumerate(style) if share]
    if copied:
        images = pipe.embed_image([original(canvases[jobs[row][0]]) for row in copied])
        share = torch.tensor([style[row] for row in copied], device=embed.device)
        embed[copied] = slerp(embed[copied], images, share)
    return Guides({job: row for row, job in enumerate(jobs)}, embed, text, negative)


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
