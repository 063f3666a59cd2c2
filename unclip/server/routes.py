"""The routes: which path does what."""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from unclip.images.metadata import canvas_bytes
from unclip.requests.values import size_text
from unclip.server import schemas
from unclip.server.body import read_body
from unclip.server.canvas import Placed, canvas_record, compose
from unclip.server.errors import ApiError
from unclip.server.jobs import Job
from unclip.server.metrics import MEDIA_TYPE
from unclip.server.openai import Call, invalid_value
from unclip.server.responses import Responder, in_thread
from unclip.server.state import State, state_of
from unclip.server.store import StoredFile
from unclip.server.uploads import Upload, find_uploads
from unclip.version import __version__

T = TypeVar("T")
router = APIRouter()
WEB = Path(__file__).parent / "web"
"""The files of the canvas."""
PURPOSES = ("vision", "user_data", "assistants")


def takes(schema: Any, *types: str) -> dict[str, Any]:
    """The description of a body that is read by `body`, for /openapi.json."""
    return {
        "requestBody": {"required": True, "content": {type: {"schema": schema.model_json_schema()} for type in types}}
    }


JSON, FORM = "application/json", "multipart/form-data"


# ---- images


@router.post("/v1/images/generations", openapi_extra=takes(schemas.Generation, JSON, FORM))
async def generate(http: HttpRequest) -> Response:
    """Generate images from a prompt."""
    state = state_of(http)
    state.queue.check_room()
    return await respond(http, "image_generation", state.protocol.generation(await read_body(http)))


@router.post("/v1/images/edits", openapi_extra=takes(schemas.Edit, FORM, JSON))
async def edit(http: HttpRequest) -> Response:
    """Edit an image: inpaint, outpaint, or change it by a text diff."""
    state = state_of(http)
    state.queue.check_room()
    body = await read_body(http)
    images, masks = (find_uploads(body, name, state.store) for name in ("image", "mask"))
    return await respond(http, "image_edit", await in_thread(partial(state.protocol.edit, body, images, masks)))


@router.post("/v1/images/variations", openapi_extra=takes(schemas.Variation, FORM, JSON))
async def vary(http: HttpRequest) -> Response:
    """Generate variations of an image, reconstruct it, or interpolate between several."""
    state = state_of(http)
    state.queue.check_room()
    body = await read_body(http)
    images = find_uploads(body, "image", state.store)
    return await respond(http, "image_generation", await in_thread(partial(state.protocol.variation, body, images)))


async def respond(http: HttpRequest, kind: str, call: Call) -> Response:
    """Queue a call and answer it. If the client goes, what is left of the call is dropped."""
    state = state_of(http)
    job = state.queue.submit(call.request, call.model, call.interest, call.input)
    responder = Responder(state.store, str(http.base_url).rstrip("/"), kind, call)
    if call.stream:
        return EventStream(state, job, responder)
    try:
        return JSONResponse(await unless_disconnected(http, responder.answer(job)))
    finally:
        state.queue.cancel(job)


class EventStream(StreamingResponse):
    """The events of a job, which is cancelled if nobody reads them any more."""

    def __init__(self, state: State, job: Job, responder: Responder) -> None:
        headers = {"x-accel-buffering": "no"}  # a proxy must pass on each event at once
        super().__init__(responder.events(job), media_type="text/event-stream", headers=headers)
        self._cancel = partial(state.queue.cancel, job)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._cancel()


async def unless_disconnected(http: HttpRequest, answer: Awaitable[T]) -> T:
    """The answer. Raises ClientDisconnect as soon as the client has gone."""
    waiting = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_wait_for_disconnect(http))
    try:
        await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()
        gone.cancel()


async def _wait_for_disconnect(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


# ---- models


@router.get("/v1/models")
async def list_models(http: HttpRequest) -> dict[str, Any]:
    """The models, with their sizes."""
    state = state_of(http)
    return {"object": "list", "data": [describe_model(state, name) for name in state.models.pipelines]}


@router.get("/v1/models/{name:path}")
async def show_model(http: HttpRequest, name: str) -> dict[str, Any]:
    """One model; also by an alias."""
    state = state_of(http)
    return {**describe_model(state, state.models.find(name)), "id": name}


def describe_model(state: State, name: str) -> dict[str, Any]:
    """A model as OpenAI lists it, and as extensions its sizes and what it can do."""
    model = state.models.pipelines[name].model
    return {
        "id": name,
        "object": "model",
        "created": state.started,
        "owned_by": "unclip",
        "sizes": [size_text(size) for size in model.sizes],
        "prior": bool(model.priors),
        "image_encoder": model.encoder.encodes_images,
        "closed_vocabulary": model.vocabulary is not None,
    }


# ---- files: uploads and results


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


@router.post("/v1/canvas", openapi_extra=takes(schemas.Composition, JSON))
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


# ---- the server itself


@router.get("/v1/server")
async def show_server(http: HttpRequest) -> dict[str, Any]:
    """The version, the limits and the load of the server, for pages."""
    state = state_of(http)
    settings = state.settings
    return {
        "version": __version__,
        "model": next(iter(state.models.pipelines)),
        "max_images": settings.max_images,
        "max_body": settings.max_body,
        "max_pixels": settings.max_pixels,
        "keep_time": settings.keep_time,
        "queued_images": state.queue.images,
    }


@router.get("/healthz")
async def health() -> dict[str, str]:
    """Whether the server serves."""
    return {"status": "ok"}


@router.get("/metrics")
async def metrics(http: HttpRequest) -> Response:
    """The counters, for Prometheus."""
    state = state_of(http)
    state.metrics.stored.set(state.store.bytes)
    return Response(state.metrics.text(), media_type=MEDIA_TYPE)


@router.get("/")
async def page() -> Response:
    """The canvas."""
    if (index := WEB / "index.html").is_file():
        return FileResponse(index, media_type="text/html")
    return PlainTextResponse("unclip serves the OpenAI Images API here, below /v1.\n")
