"""The routes: which path does what."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from unclip.requests.values import size_text
from unclip.server import schemas
from unclip.server.body import read_body
from unclip.server.metrics import MEDIA_TYPE
from unclip.server.openai import Call
from unclip.server.responses import Responder, in_thread
from unclip.server.state import State, state_of
from unclip.server.uploads import find_uploads
from unclip.version import __version__

T = TypeVar("T")
router = APIRouter()
WEB = Path(__file__).parent / "web"
"""The files of the canvas."""


# ---- images


@router.post("/v1/images/generations", openapi_extra=schemas.takes(schemas.Generation, schemas.JSON, schemas.FORM))
async def generate(http: HttpRequest) -> Response:
    """Generate images from a prompt."""
    state = state_of(http)
    state.queue.check_room()
    body = await read_body(http)
    embeddings = find_uploads(body, "embedding", state.store)
    read = partial(state.protocol.generation, body, embeddings)
    call = await in_thread(read) if embeddings else read()  # the model's encoder checks that an embedding fits
    return await respond(http, "image_generation", call)


@router.post("/v1/images/edits", openapi_extra=schemas.takes(schemas.Edit, schemas.FORM, schemas.JSON))
async def edit(http: HttpRequest) -> Response:
    """Edit an image: inpaint, outpaint, or change it by a text diff."""
    state = state_of(http)
    state.queue.check_room()
    body = await read_body(http)
    files = [find_uploads(body, name, state.store) for name in ("image", "mask", "embedding")]
    return await respond(http, "image_edit", await in_thread(partial(state.protocol.edit, body, *files)))


@router.post("/v1/images/variations", openapi_extra=schemas.takes(schemas.Variation, schemas.FORM, schemas.JSON))
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
    job = state.queue.submit(call.request, call.model, call.interest, call.memory)
    responder = Responder(state.store, str(http.base_url).rstrip("/"), kind, call)
    headers = generated_size(call)
    release = partial(state.queue.release, job)
    if call.stream:
        headers["x-accel-buffering"] = "no"  # a proxy must pass on each event at once
        events = StreamingResponse(responder.events(job), media_type="text/event-stream", headers=headers)
        return FinalResponse(events, release)
    try:
        answer = await unless_disconnected(http, responder.answer(job))
        return FinalResponse(await in_thread(partial(JSONResponse, answer, headers=headers)), release)
    except BaseException:
        release()
        raise


def generated_size(call: Call) -> dict[str, str]:
    """A header with the size that is generated, for a call whose images are resized."""
    if call.output.size is None:
        return {}
    return {} if call.request.size is None else {"x-generated-size": size_text(call.request.size)}


class FinalResponse(Response):
    """A response after which its job is released: it was sent completely, or its client has gone."""

    def __init__(self, response: Response, release: Callable[[], None]) -> None:
        super().__init__()
        self._response = response
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._response(scope, receive, send)
        finally:
            self._release()


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
        "default_size": size_text(model.default_size),
        "prior": bool(model.priors),
        "image_encoder": model.encoder.encodes_images,
        "closed_vocabulary": model.vocabulary is not None,
    }


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


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def health(http: HttpRequest) -> Response:
    """Whether the server serves: 503 if it is shutting down, or no longer generates images."""
    runs = state_of(http).queue.runs
    return JSONResponse({"status": "ok" if runs else "stopped"}, 200 if runs else 503)


@router.get("/metrics")
async def metrics(http: HttpRequest) -> Response:
    """The counters, for Prometheus."""
    state = state_of(http)
    state.metrics.stored.set(state.store.bytes)
    state.metrics.held.set(state.memory.used)
    return Response(state.metrics.text(), media_type=MEDIA_TYPE)


@router.head("/", include_in_schema=False)
@router.get("/")
async def page() -> Response:
    """The canvas."""
    if (index := WEB / "index.html").is_file():
        return FileResponse(index, media_type="text/html")
    return PlainTextResponse("unclip serves the OpenAI Images API here, below /v1.\n")
