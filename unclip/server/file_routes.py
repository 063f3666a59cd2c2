"""The routes of files: uploads and results, and canvases that are put together from them."""

import time
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.requests import Request as HttpRequest

from unclip.images.metadata import canvas_bytes
from unclip.server import schemas
from unclip.server.body import read_body
from unclip.server.call_fields import invalid_value
from unclip.server.canvas import Placed, canvas_record, compose
from unclip.server.errors import ApiError
from unclip.server.responses import in_thread
from unclip.server.state import State, state_of
from unclip.server.store import StoredFile
from unclip.server.uploads import Upload, find_uploads

router = APIRouter()
PURPOSES = ("vision", "user_data", "assistants")


@router.post("/v1/files")
async def upload(http: HttpRequest) -> dict[str, Any]:
    """Keep an image on the server, for later calls."""
    state = state_of(http)
    body = await read_body(http)
    found = find_uploads(body, "file", state.store)
    if len(found) != 1:
        raise ApiError("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    purpose = str(body.fields.get("purpose", PURPOSES[0]))
    if purpose not in PURPOSES:
        raise ApiError(f"{purpose[:80]!r} is not one of {list(PURPOSES)} - 'purpose'", param="purpose")
    format, size = await in_thread(partial(found[0].describe, state.settings.max_pixels))
    return describe_file(state, state.store.add(found[0].data, format, size, purpose=purpose))


@router.get("/v1/files/{id}")
async def show_file(http: HttpRequest, id: str) -> dict[str, Any]:
    """A stored file's size and name."""
    return describe_file(state_of(http), find_file(http, id))


@router.get("/v1/files/{id}/content")
async def file_content(http: HttpRequest, id: str) -> Response:
    """The bytes of a stored file."""
    return file_response(find_file(http, id))


@router.delete("/v1/files/{id}")
async def delete_file(http: HttpRequest, id: str) -> dict[str, Any]:
    """Drop a stored file."""
    state_of(http).store.remove(find_file(http, id).id)
    return {"id": id, "object": "file", "deleted": True}


@router.head("/files/{name}", include_in_schema=False)
@router.get("/files/{name}")
async def result_file(http: HttpRequest, name: str) -> Response:
    """The url of a result: no key is needed, as nobody can guess it."""
    return file_response(find_file(http, name.partition(".")[0]))


def find_file(http: HttpRequest, id: str) -> StoredFile:
    """A stored file. Raises ApiError if there is none of this id, or none any more."""
    found = state_of(http).store.get(id)
    if found is None:
        raise ApiError(f"No such file: {id[:80]!r}. It may have expired.", 404, param="id", code="file_not_found")
    return found


def file_response(file: StoredFile) -> Response:
    """The bytes of a file, for display in a page or to be saved under its name."""
    headers = {"content-disposition": f'inline; filename="{file.name}"', "cache-control": "private, max-age=3600"}
    return Response(file.data, media_type=file.media_type, headers=headers)


def describe_file(state: State, file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI describes it, and as extensions its size in pixels and its path."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.data),
        "created_at": file.created,
        "expires_at": int(time.time() + state.settings.keep_time),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "width": file.size[0],
        "height": file.size[1],
        "path": file.path,
    }


@router.post("/v1/canvas", openapi_extra=schemas.takes(schemas.Composition, schemas.JSON))
async def compose_canvas(http: HttpRequest) -> dict[str, Any]:
    """Put stored images together into a new one, which is kept as PNG. Kept pixels stay byte for byte."""
    state = state_of(http)
    body = await read_body(http)
    try:
        composition = schemas.Composition(**body.fields)
    except ValidationError as error:
        raise invalid_value(error) from None
    uploads = [Upload("layers", find_file(http, layer.file_id).data) for layer in composition.layers]
    data, size = await in_thread(partial(_compose, composition, uploads, state.settings.max_pixels))
    return describe_file(state, state.store.add(data, "png", size, purpose="canvas"))


def _compose(composition: schemas.Composition, uploads: list[Upload], max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    layers = []
    for layer, upload in zip(composition.layers, uploads, strict=True):
        size = None if layer.width is None or layer.height is None else (layer.width, layer.height)
        image, record = upload.decode(max_pixels), upload.record()
        layers.append(Placed(image, layer.left, layer.top, size, layer.replaces, record))
    image = compose(layers, max_pixels)
    return canvas_bytes(image, canvas_record(layers)), image.size
