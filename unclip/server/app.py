"""The application: routes, and what they share."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from unclip.pipeline import Unclip
from unclip.server import file_routes, routes
from unclip.server.errors import ApiError
from unclip.server.memory import Memory
from unclip.server.metrics import Metrics
from unclip.server.openai import Models, Protocol
from unclip.server.queue import Queue
from unclip.server.security import Guard, error_response
from unclip.server.settings import ServerSettings
from unclip.server.state import State
from unclip.server.store import Store
from unclip.server.worker import Worker
from unclip.version import __version__

THREADS = 4  # that decode uploads and encode results


def create_app(
    models: Mapping[str, Unclip],
    settings: ServerSettings = ServerSettings(),  # noqa: B008
    worker: Worker | None = None,
) -> FastAPI:
    """The server as an ASGI application.

    models: loaded models by name; the first one is the default. worker: runs the models; the caller calls its `run`
    in the thread of its choice. By default the application starts a thread for it, and ends it.
    """
    if not models:
        raise ValueError("a server needs a model")
    own = worker is None
    worker = Worker() if worker is None else worker
    metrics, memory = Metrics(), Memory(settings.max_memory)
    named = Models(dict(models))
    state = State(
        settings,
        named,
        Protocol(named, settings),
        Queue(named.pipelines, worker, settings, metrics, memory),
        Store(settings.keep_time, settings.keep_size),
        metrics,
        memory,
        int(time.time()),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        thread = worker.start_thread() if own else None
        state.queue.start()
        try:
            yield
        finally:
            await state.queue.stop()
            if thread is not None:
                worker.stop()
                thread.join()

    app = FastAPI(
        title="unclip",
        version=__version__,
        summary="The OpenAI Images API on an unCLIP model",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
    )
    app.state.server = state
    app.add_middleware(Guard, settings=settings, metrics=metrics, memory=memory)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.include_router(routes.router)
    app.include_router(file_routes.router)
    if routes.WEB.is_dir():
        app.mount("/web", StaticFiles(directory=routes.WEB), name="web")
    return app


async def _http_error(http: HttpRequest, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    hint = "; the API is below /v1" if http.url.path.startswith(("/images", "/models", "/files")) else ""
    messages = {
        404: f"Invalid URL ({http.method} {http.url.path[:200]}){hint}",
        405: f"Not allowed to {http.method} on {http.url.path[:200]}",
    }
    code = {404: "unknown_url", 405: "method_not_supported"}.get(error.status_code)
    found = ApiError(messages.get(error.status_code, error.detail), error.status_code, code=code, headers=error.headers)
    return error_response(found)


async def _validation_error(http: HttpRequest, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(ApiError(f"Invalid value: {first['msg']}", param=str(first["loc"][-1])))
