"""The fields of the calls: OpenAI's, and as extensions the fields of a Request with their names and limits."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from unclip.requests.fields import FIELDS_OF, FILE_FIELDS, MAX_SIDE
from unclip.requests.request import Request

MAX_TEXT = 32_000  # characters of a prompt, as OpenAI's
MAX_PREVIEWS = 10  # OpenAI's limit is 3
JSON, FORM = "application/json", "multipart/form-data"


class OpenAIFields(BaseModel):
    """The fields of OpenAI's Images API beside those that are fields of a Request."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())

    model: str | None = Field(None, description="name of a model; dall-e-2 and gpt-image-* are the first one")
    response_format: Literal["url", "b64_json"] | None = Field(
        None, description="default: url for dall-e-*, b64_json for gpt-image-*, both for other names"
    )
    output_format: Literal["png", "jpeg", "webp"] | None = Field(None, description="default: png")
    output_compression: int | None = Field(None, ge=0, le=100, description="quality of jpeg and webp; default: 95")
    background: Literal["auto", "opaque", "transparent"] | None = Field(
        None, description="images are opaque, except where an edited image is transparent and kept"
    )
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="has no effect: set speed, or steps"
    )
    style: Literal["vivid", "natural"] | None = Field(None, description="has no effect")
    moderation: Literal["auto", "low"] | None = Field(None, description="has no effect: nothing is moderated")
    input_fidelity: Literal["high", "low"] | None = Field(None, description="has no effect: kept pixels stay exact")
    complexity: Literal["low", "medium", "high"] | None = Field(None, description="has no effect")
    user: str | None = Field(None, description="an identifier of the caller's own; not used")
    safety_identifier: str | None = Field(None, description="an identifier of the caller's own; not used")
    stream: bool = Field(False, description="send events, with partial images, as server-sent events")
    partial_images: int = Field(0, ge=0, le=MAX_PREVIEWS, description="partial images of each image, with stream")
    progress: bool = Field(False, description="extension: also send an event for each denoising step, with stream")


def extensions(*modes: str) -> dict[str, Any]:
    """The fields of a Request that a call has, as pydantic's `create_model` takes them: those of its modes.

    Files are read apart from these (see `uploads`).
    """
    own = {name for mode in modes for name in FIELDS_OF[mode]}
    others = {name for names in FIELDS_OF.values() for name in names} - own
    return {
        name: (info.annotation, info)
        for name, info in Request.model_fields.items()
        if name not in others and name not in FILE_FIELDS
    }


ImageFile = Annotated[
    Any,
    Field(
        None,
        description="an image: a file of a form; in JSON a data url, or the id of a stored file, as text or as an "
        "object with image_url or file_id",
    ),
]

EmbeddingFile = Annotated[
    Any,
    Field(
        None,
        description="a file of `unclip embed`, in place of the prior's embedding; for mode edit: the target. A file of "
        "a form, or a data url",
    ),
]

Frame = Annotated[
    Any,
    Field(
        None,
        description='extension: "left,top,width,height", the part of the canvas to edit; it may extend past the image, '
        "and what is past it is generated",
    ),
]

Texts = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(lambda value: value.split("|") if isinstance(value, str) else value),
    Field(None, description="interpolate: texts that follow the images, as an array or with | between them"),
]

GENERATE, EDIT, VARY = ("generate",), ("inpaint", "outpaint", "edit"), ("vary", "reconstruct", "interpolate")
"""The modes of each call; the first is the default, as far as the images do not say otherwise."""

Generation = create_model("Generation", __base__=OpenAIFields, **extensions(*GENERATE), embedding=EmbeddingFile)
Edit = create_model(
    "Edit",
    __base__=OpenAIFields,
    **extensions(*EDIT),
    image=ImageFile,
    images=ImageFile,
    mask=ImageFile,
    embedding=EmbeddingFile,
    frame=Frame,
)
Variation = create_model(
    "Variation",
    __base__=OpenAIFields,
    **{**extensions(*VARY), "sources": Texts},
    image=ImageFile,
    images=ImageFile,
    frame=Frame,
)


class Layer(BaseModel):
    """An image on a canvas, with its top left corner. Corners may be negative: the canvas grows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_id: str
    left: int = Field(0, ge=-(1 << 16), le=1 << 16)
    top: int = Field(0, ge=-(1 << 16), le=1 << 16)
    width: int | None = Field(None, ge=1, le=MAX_SIDE, description="with height: scale the image to this size")
    height: int | None = Field(None, ge=1, le=MAX_SIDE)
    replaces: bool = Field(False, description="its transparent pixels, too, replace those below")


class Composition(BaseModel):
    """Stored images, the first at the bottom, put together into a new one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[Layer, ...] = Field(min_length=1, max_length=64)


def takes(schema: type[BaseModel], *types: str) -> dict[str, Any]:
    """The description of a body that a route reads by `read_body`, for /openapi.json."""
    return {
        "requestBody": {"required": True, "content": {type: {"schema": schema.model_json_schema()} for type in types}}
    }
