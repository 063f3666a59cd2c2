"""OpenAI's Images API: the fields of a call become a Request, with notes on what has no effect."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unclip.errors import DataError, RequestError, did_you_mean
from unclip.inference.model import UnclipModel
from unclip.pipeline import Unclip
from unclip.requests.fields import CANVAS_MODES
from unclip.requests.other_tools import check_no_weights
from unclip.requests.request import Request
from unclip.requests.sources import EmbeddingBytes
from unclip.requests.values import show, size_text
from unclip.server import schemas
from unclip.server.body import MAX_FILES, Body
from unclip.server.call_fields import (
    check_text,
    edit_mode,
    given,
    pick_mode,
    stream_notes,
    unused_notes,
    validate,
)
from unclip.server.canvas import parse_frame, select
from unclip.server.errors import ApiError, field_of
from unclip.server.jobs import Interest
from unclip.server.settings import ServerSettings
from unclip.server.sizes import Size, generates, is_proportional, nearest_size
from unclip.server.uploads import Upload

ALIASES = re.compile(r"dall-e-\d|(chat)?gpt-image-.+")
"""Names of OpenAI's models, which clients send without asking: they stand for the first model."""


RESULT_BYTES = 8
"""Bytes for each pixel of a result: decoded, in a file, and in base64."""
MAX_SOURCES = 4
"""Times the pixels that one image may have, which all images of an interpolation may have together."""


@dataclass(frozen=True)
class Output:
    """How a call wants its images.

    format: png, jpeg or webp. quality: of a lossy format, or None. is_opaque: no pixel should be transparent.
    size: (width, height) to which results are resized, or None.
    """

    url: bool
    b64_json: bool
    format: str
    quality: int | None
    is_opaque: bool
    size: Size | None


@dataclass(frozen=True)
class Call:
    """A call that was understood. memory: bytes of its decoded input images and its results."""

    request: Request
    model: str
    output: Output
    interest: Interest
    stream: bool
    notes: tuple[str, ...]
    memory: int = 0


def embedding_of(uploads: Sequence[Upload]) -> dict[str, EmbeddingBytes]:
    """The field `embedding` of a Request, if a call gives one. Raises ApiError for several."""
    if len(uploads) > 1:
        raise ApiError(f"{len(uploads)} embeddings were given; send one.", param="embedding")
    return {"embedding": EmbeddingBytes(uploads[0].data)} if uploads else {}


@dataclass(frozen=True)
class Models:
    """The loaded models by name, in the order in which they were given."""

    pipelines: Mapping[str, Unclip]

    def find(self, name: str | None) -> str:
        """The name of the model that a call means. Raises ApiError if there is none of the name."""
        if name is None or name not in self.pipelines and ALIASES.fullmatch(name):
            return next(iter(self.pipelines))
        if name not in self.pipelines:
            hint = did_you_mean(name, self.pipelines)
            raise ApiError(f"The model {show(name)} does not exist; {hint}", 404, param="model", code="model_not_found")
        return name


@dataclass(frozen=True)
class Protocol:
    """Turns the bodies of calls into Calls, for one server. Decodes images, so it belongs in a thread of its own."""

    models: Models
    settings: ServerSettings

    def generation(self, body: Body, embeddings: Sequence[Upload] = ()) -> Call:
        """A call for images from a prompt or an embedding."""
        fields = {**validate(schemas.Generation, schemas.GENERATE, body), **embedding_of(embeddings)}
        if not fields.get("prompt") and not embeddings:
            raise ApiError("Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter")
        return self._call(fields, schemas.GENERATE[0], {}, [])

    def edit(
        self, body: Body, images: Sequence[Upload], masks: Sequence[Upload], embeddings: Sequence[Upload] = ()
    ) -> Call:
        """A call to edit an image: masked pixels, margins, or without either the whole image, by a text diff."""
        fields = {**validate(schemas.Edit, schemas.EDIT, body), **embedding_of(embeddings)}
        image = self._one_image(images)
        if len(masks) > 1:
            raise ApiError(f"{len(masks)} masks were given; send one.", param="mask")
        mask = masks[0].decode(self.settings.max_pixels) if masks else None
        frame = parse_frame(fields.pop("frame", None), self.settings.max_pixels)
        selection = select(image, mask, fields.get("mask_mode"), frame)
        has_mode = fields.get("mode") is not None
        mode, notes = edit_mode(fields, selection)
        is_filled = mode == "outpaint" and selection.margins is not None and not given(fields, selection.margins)
        size, own = None, selection.image.size
        if mode == "inpaint" or is_filled and not has_mode and not given(fields, ["anchor"]):
            # Clients send the size of the result with every call. It is no canvas: the image says where its pixels are.
            size, more = self._edited_size(fields.pop("size", None), own, mode)
            notes = [*notes, *more]
        elif is_filled and fields.get("size") == own:
            del fields["size"]
        if mode == "inpaint":
            found = {"image": selection.image, "mask": selection.mask, "mask_mode": selection.mask_mode}
        elif is_filled and selection.margins is not None and not given(fields, ["size"]):
            found = {"image": selection.opaque_part(), **selection.margins}
        else:
            found = {"image": selection.image}
        if mode != "inpaint" and mask is not None:
            raise ApiError(f"mask is a field of inpaint, and this call's mode is {mode}", param="mask")
        return self._call(fields, mode, found, notes, size)

    def _edited_size(self, size: Size | None, own: Size, mode: str) -> tuple[Size | None, list[str]]:
        """(the size to which an edit of an image of size `own` is resized, or None; notes). Raises ApiError."""
        if size is None or size == own:
            return None, []
        if self.settings.sizes == "exact":
            raise ApiError(
                f"size must be the image's own, {size_text(own)}, for mode {mode}; leave it out", param="size"
            )
        if not is_proportional(own, size):
            return None, [f"size {size_text(size)} has no effect: the image is {size_text(own)}, which an edit keeps"]
        return size, [f"the edit was resized from {size_text(own)}; without size, kept pixels stay byte for byte"]

    def variation(self, body: Body, images: Sequence[Upload]) -> Call:
        """A call for variations of an image, its reconstruction, or an interpolation between several sources."""
        fields = validate(schemas.Variation, schemas.VARY, body)
        texts = fields.pop("sources", None) or ()
        frame = parse_frame(fields.pop("frame", None), self.settings.max_pixels)
        mode = fields.get("mode") or ("interpolate" if texts or len(images) > 1 else pick_mode(fields, schemas.VARY))
        if mode == "interpolate" and frame is not None:
            raise ApiError("frame is a part of one image, and interpolations have several; leave it out", param="frame")
        if len(images) + len(texts) > MAX_FILES:
            raise ApiError(f"At most {MAX_FILES} images and texts are interpolated.", param="sources")
        if mode != "interpolate":
            if texts:
                raise ApiError(f"sources is a field of interpolate, and this call's mode is {mode}", param="sources")
            image = self._one_image(images)
            return self._call(fields, mode, {"image": select(image, None, None, frame).image}, [])
        sources, room = [], MAX_SOURCES * self.settings.max_pixels
        for upload in images:
            sources.append(upload.decode(self.settings.max_pixels))
            room -= sources[-1].width * sources[-1].height
            if room < 0:
                raise ApiError(
                    f"The images have more than {MAX_SOURCES * self.settings.max_pixels:,} pixels together.",
                    param="image",
                )
        return self._call(fields, mode, {"sources": (*sources, *map(check_text, texts))}, [])

    def _one_image(self, images: Sequence[Upload]) -> Image.Image:
        if not images:
            raise ApiError("Missing required parameter: 'image'.", param="image", code="missing_required_parameter")
        if len(images) > 1:
            raise ApiError(f"{len(images)} images were given; this model edits one image at a time.", param="image")
        return images[0].decode(self.settings.max_pixels)

    def _call(
        self,
        fields: dict[str, Any],
        mode: str,
        found: Mapping[str, Any],
        notes: Iterable[str],
        resized: Size | None = None,
    ) -> Call:
        """A Call from validated fields and decoded images. Raises ApiError for what the model cannot do.

        resized: the size to which results are resized. It is found here for modes that generate sizes of the model.
        """
        own = {name: value for name, value in fields.items() if name in Request.field_names()}
        others = {name: value for name, value in fields.items() if name not in own}
        model = self.models.find(others.get("model"))
        pipe = self.models.pipelines[model]
        size = own.get("size")
        if size is not None and mode not in CANVAS_MODES and not generates(pipe.model, size):
            resized, own["size"] = size, self._generated_size(pipe.model, size)
        try:
            request = pipe.resolve(Request(**{**own, "mode": mode, **found}))
            for name, text in request.texts():
                check_no_weights(name, text)
            pipe.check(request)
            width, height = resized or pipe.output_size(request)
        except (RequestError, DataError) as error:
            raise ApiError(str(error), param=field_of(str(error))) from None
        count, limit = max(request.count, request.best_of or 0), self.settings.max_images
        if count > limit:
            name = "n" if request.n > limit else "best_of" if request.best_of else "frames"
            raise ApiError(f"Invalid '{name}': this server generates at most {limit} images a call.", param=name)
        if width * height > self.settings.max_pixels:
            raise ApiError(
                f"The result would be {width}x{height}; this server makes at most {self.settings.max_pixels:,} pixels.",
                param="size",
            )
        images = {id(image): image for image in found.values() if isinstance(image, Image.Image)}
        images |= {id(image): image for image in found.get("sources", ()) if isinstance(image, Image.Image)}
        return Call(
            request,
            model,
            self._output(others, resized),
            self._interest(others),
            bool(others.get("stream")),
            (*notes, *unused_notes(others), *stream_notes(others, request)),
            sum(image.width * image.height * len(image.getbands()) for image in images.values())
            + count * width * height * RESULT_BYTES,
        )

    def _generated_size(self, model: UnclipModel, size: Size) -> Size:
        """The size that is generated for an image of another size. Raises ApiError if that is not wanted."""
        if self.settings.sizes == "exact":
            known = "of any size" if model.decoder.any_size else f"one of {list(map(size_text, model.sizes))}"
            raise ApiError(f"{size_text(size)!r} is not {known} - 'size'", param="size")
        return nearest_size(model, size)

    def _output(self, fields: Mapping[str, Any], size: Size | None) -> Output:
        format, quality = fields.get("output_format", "png"), fields.get("output_compression")
        if quality == 100 and format == "png":
            quality = None  # OpenAI's default, which clients send with every format
        if quality is not None and format == "png":
            raise ApiError("output_compression is for jpeg and webp; leave it out for png", param="output_compression")
        if fields.get("background") == "transparent":
            raise ApiError(
                "background 'transparent' is not supported: images are opaque; leave it out", param="background"
            )
        wanted, name = fields.get("response_format"), fields.get("model") or ""
        if wanted is None and ALIASES.fullmatch(name) and name not in self.models.pipelines:
            wanted = "url" if name.startswith("dall-e") else "b64_json"
        is_opaque = fields.get("background") == "opaque"
        return Output(wanted in (None, "url"), wanted in (None, "b64_json"), format, quality, is_opaque, size)

    def _interest(self, fields: Mapping[str, Any]) -> Interest:
        if not fields.get("stream"):
            return Interest()
        return Interest(bool(fields.get("progress")), fields.get("partial_images", 0))
