"""Inpainting and outpainting: windows of a canvas, sampled with their known pixels held fixed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from unclip.embeddings.algebra import slerp
from unclip.images.processing import to_images
from unclip.inference.conditions import Conditioning, Known, Start
from unclip.inference.model import UnclipModel
from unclip.inference.run_context import Run
from unclip.modes.base import Output, Requirement, make_conditioning, read_embeddings
from unclip.modes.inpainting.canvas import Canvas
from unclip.modes.inpainting.plan import (
    Edit,
    Window,
    adds_only_the_prompt,
    image_size,
    image_weight,
    plan_context_views,
    plan_edit,
    plan_tiling,
    possible_image_weights,
)
from unclip.modes.inpainting.prepare import check_edit, open_canvas
from unclip.requests.request import Request

Item = TypeVar("Item")
Placed = Sequence[tuple[int, Window]]
"""Windows, each with the index of its canvas."""
RESAMPLE_WITHOUT_MASK_TRAINING = 4
"""RePaint passes for a decoder that was not trained with masks: without them, it ignores the known pixels."""


class CanvasMode:
    """An edit of a canvas of any size. Known pixels are preserved byte for byte."""

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        trained = model.edit_decoder.network.has_inpainting_inputs
        found: dict[str, Any] = {"resample": 1 if trained else RESAMPLE_WITHOUT_MASK_TRAINING}
        if request.prompts or request.embedding is not None:
            found["keep_style"] = 0.0
        elif not adds_only_the_prompt(model, request):
            found["keep_style"] = 1.0
        return found

    def requirements(self, model: UnclipModel, request: Request) -> set[Requirement]:
        weights = possible_image_weights(model, request)
        needs: set[Requirement] = {"image encoder"} if any(weights) else set()
        if min(weights, default=1) < 1 and request.embedding is None:
            needs.add("prior")
        return needs

    def check(self, model: UnclipModel, request: Request) -> None:
        check_edit(request)

    @torch.inference_mode()
    def generate(self, model: UnclipModel, requests: Sequence[Request], run: Run) -> list[Output]:
        """One image per edit. The k-th windows of all canvases go through a stage as one batch.

        Masked regions that are far apart are generated one after the other. Where one window does not see everything
        that matters, the decoder first sketches the region in context views, and then denoises all its windows as one
        canvas that starts from the sketch; the upsamplers enlarge it window by window.
        """
        edits = [plan_edit(model, *each) for each in zip(requests, open_canvases(requests), strict=True)]
        # Embeddings come first: the image's own embedding must describe the unedited image.
        prompts = embed_prompts(model, edits, run)
        for k, label, _ in rounds([edit.regions for edit in edits], "region"):
            windows = [edit.regions[k] if k < len(edit.regions) else () for edit in edits]
            job = RegionJob(model, edits, windows, prompts, run.within(label))
            views = [plan_context_views(model, *each) for each in zip(edits, windows, strict=True)]
            sketches = job.sketch(views)
            job.generate({i: job.denoise_windows_together(i, sketch) for i, sketch in sketches.items()})
        return [finish(model, edit) for edit in edits]


class Inpainting(CanvasMode):
    """Regenerates the masked pixels of an image."""


class Outpainting(CanvasMode):
    """Generates margins around an image."""


def open_canvases(requests: Sequence[Request]) -> Iterator[Canvas]:
    """The canvas of each request. Input files that several requests share are opened once."""
    opened: dict[tuple[Any, ...], Canvas] = {}
    for request in requests:
        sources = [one if isinstance(one, str) else id(one) for one in (request.image, request.mask)]
        margins = request.left, request.right, request.top, request.bottom
        key = (*sources, request.mask_mode, request.feather, request.size, request.anchor, *margins)
        if key not in opened:
            opened[key] = open_canvas(request)
        yield opened[key].copy()


def finish(model: UnclipModel, edit: Edit) -> Output:
    """The edited image with its score and notes."""
    prompt, score = edit.request.prompt, None
    if prompt.strip() and model.encoder.encodes_images:
        score = model.encoder.score([edit.canvas.visible()], [prompt])[0]
    return Output(edit.canvas.image(), score, tuple(edit.notes()))


@dataclass(frozen=True)
class PromptEmbeddings:
    """The conditioning of each (canvas index, prompt) of a batch of edits, and its row."""

    rows: Mapping[tuple[int, str | None], int]
    conditioning: Conditioning

    def select(self, pairs: Sequence[tuple[int, str | None]]) -> Conditioning:
        """The conditioning of some (canvas index, prompt) pairs, in their order."""
        return self.conditioning.rows([self.rows[pair] for pair in pairs])


def embed_prompts(model: UnclipModel, edits: Sequence[Edit], run: Run) -> PromptEmbeddings:
    """The conditioning of all windows of a batch of edits.

    An embedding is sampled from the prior, read from the request's file, or the image's own (without a prompt), or
    between these (keep_style). Windows without a prompt get the null embedding. The prior runs only for prompts that
    need it, so that an image does not depend on the rest of its batch.
    """
    pairs = list(
        dict.fromkeys(
            (i, window.prompt) for i, edit in enumerate(edits) for region in edit.regions for window in region
        )
    )
    weights = [image_weight(edits[i].request, prompt) for i, prompt in pairs]
    with run.stage("text"):
        text = model.encode_text([prompt or "" for _, prompt in pairs])
        negative = model.encode_text([edits[i].request.negative_prompt for i, _ in pairs])
    given: list[Tensor | None] = [model.null_embed_of(model.edit_decoder)] * len(pairs)
    for row, ((i, _), weight) in enumerate(zip(pairs, weights, strict=True)):
        if weight is not None and weight < 1:
            [given[row]] = read_embeddings(model, [edits[i].request.embedding])
    conditioning = make_conditioning(model, given, text, negative, run.rows([i for i, _ in pairs]))
    styled = [row for row, weight in enumerate(weights) if weight]
    if styled:
        embed = conditioning.embed  # n d
        images = model.encoder.embed_images([edits[pairs[row][0]].canvas.original() for row in styled])
        fraction = torch.tensor([weights[row] for row in styled], device=embed.device)
        embed[styled] = slerp(embed[styled], images, fraction)
    return PromptEmbeddings({pair: row for row, pair in enumerate(pairs)}, conditioning)


@dataclass(frozen=True)
class RegionJob:
    """The generation of one masked region of each canvas of a batch. It writes to the canvases.

    windows: of the region, for each edit; empty for edits with fewer regions.
    """

    model: UnclipModel
    edits: Sequence[Edit]
    windows: Sequence[Sequence[Window]]
    prompts: PromptEmbeddings
    run: Run

    @property
    def canvases(self) -> dict[int, Canvas]:
        return {i: edit.canvas for i, edit in enumerate(self.edits)}

    def sketch(self, views: Sequence[Sequence[Window]]) -> dict[int, Canvas]:
        """A sketch of each canvas that has context views, generated at the decoder's size."""
        sketches = {i: self.edits[i].canvas.copy_opaque() for i, own in enumerate(views) if own}
        for _, label, placed in rounds(views, "context view"):
            known = self._crop_known(sketches, placed, self.model.sizes[0][0])
            run = self.run.within(label).rows([i for i, _ in placed])
            paste(sketches, placed, self.model.decode(self._conditioning(placed), run, known))
        return sketches

    def denoise_windows_together(self, i: int, sketch: Canvas) -> Sequence[Tensor]:
        """The windows `3 h w` of a canvas at the decoder's size, denoised as one image that starts as a sketch."""
        placed = [(i, window) for window in self.windows[i]]
        pairs = list(dict.fromkeys((i, window.prompt) for window in self.windows[i]))
        rows = [pairs.index((i, window.prompt)) for window in self.windows[i]]
        tiling = plan_tiling(self.windows[i], self.model.decoder.shape[-1], rows)
        side = self.model.sizes[0][0]
        known = self._crop_known(self.canvases, placed, side)
        known = Known(tiling.assemble(known.image, 0.0), tiling.assemble(known.mask, 1.0))
        crops = [sketch.crop(window.box, side).to(self.model.device) for window in self.windows[i]]
        start = Start(draft=tiling.assemble(crops, 0.0))
        image = self.model.decode(self.prompts.select(pairs), self.run.rows([i]), known, start, tiling)  # 1 3 H W
        return list(tiling.cut(image))

    def generate(self, small: Mapping[int, Sequence[Tensor]]) -> None:
        """Generate the windows of all canvases at full size. small: windows that were decoded already, by canvas."""
        for k, label, placed in rounds(self.windows, "window"):
            groups: dict[tuple[bool, tuple[int, int]], list[tuple[int, Window]]] = {}
            for i, window in placed:
                groups.setdefault((i in small, image_size(self.model, window.box)), []).append((i, window))
            for (decoded, size), some in groups.items():
                run = self.run.within(label).rows([i for i, _ in some])
                run = replace(run, options=replace(run.options, size=size))
                known = self._crop_known(self.canvases, some, size[0])
                if decoded:
                    images = self.model.upsample(torch.stack([small[i][k] for i, _ in some]), run, known)
                else:
                    images = self.model.sample(self._conditioning(some), run, known)
                paste(self.canvases, some, images)

    def _conditioning(self, placed: Placed) -> Conditioning:
        return self.prompts.select([(i, window.prompt) for i, window in placed])

    def _crop_known(self, canvases: Mapping[int, Canvas], placed: Placed, side: int) -> Known:
        """The known pixels of windows, at `side` pixels."""
        crops = [canvases[i].crop_known(window.box, side) for i, window in placed]
        image, mask = (torch.stack(parts).to(self.model.device) for parts in zip(*crops, strict=True))
        return Known(image, mask)


def rounds(items: Sequence[Sequence[Item]], kind: str) -> Iterator[tuple[int, str | None, list[tuple[int, Item]]]]:
    """For each k: the k-th item of every list that is long enough, with the list's index, and a label such as
    "window 2 of 5", or None where there is one round only."""
    count = max(map(len, items), default=0)
    for k in range(count):
        label = f"{kind} {k + 1} of {count}" if count > 1 else None
        yield k, label, [(i, own[k]) for i, own in enumerate(items) if k < len(own)]


def paste(canvases: Mapping[int, Canvas], placed: Placed, images: Tensor) -> None:
    """Paste generated windows `b 3 h w` into their canvases."""
    for (i, window), image in zip(placed, to_images(images), strict=True):
        canvases[i].paste(window.box, image, window.within)
