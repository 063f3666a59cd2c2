"""Answers to calls: finished images as JSON, or as a stream of server-sent events."""

import asyncio
import base64
import io
import json
import re
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio.to_thread
from PIL import Image

from unclip.images.metadata import FORMATS
from unclip.images.result import Result
from unclip.requests.values import size_text
from unclip.server.errors import api_error
from unclip.server.jobs import Finished, Job, Preview, Step
from unclip.server.openai import Call, Output
from unclip.server.store import Store, StoredFile

KEEP_ALIVE = 15.0  # seconds without an event, after which a comment shows that the connection is alive
UNMETERED = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""OpenAI's clients read this field of a finished stream. Nothing is charged here."""


@dataclass(frozen=True)
class Responder:
    """Turns results into answers to one call. base: the server's url as the client knows it. kind: of the events."""

    store: Store
    base: str
    kind: str
    call: Call

    async def answer(self, job: Job) -> dict[str, Any]:
        """The JSON of all images. Raises the error of the first one that fails."""
        results = await asyncio.gather(*map(self._resized, await job.results()))
        images = await asyncio.gather(*map(self._image, results))
        return {
            "created": int(time.time()),
            "data": list(images),
            "model": job.model,
            "output_format": self.call.output.format,
            "notes": notes(self.call, results),
        }

    async def events(self, job: Job) -> AsyncGenerator[bytes]:
        """The server-sent events of a job: partial images and steps as the client wants them, and finished images."""
        events = aiter(job)
        following = None
        try:
            while True:
                following = asyncio.ensure_future(anext(events))
                while not (await asyncio.wait([following], timeout=KEEP_ALIVE))[0]:
                    yield b": keep-alive\n\n"
                event = following.result()
                if isinstance(event, Step):
                    yield sse("unclip.step", {"stage": event.stage, "done": event.done, "total": event.total})
                elif isinstance(event, Preview):
                    yield sse(f"{self.kind}.partial_image", await self._partial(event))
                elif isinstance(event, Finished):
                    yield sse(f"{self.kind}.completed", await self._completed(event))
        except StopAsyncIteration:
            return
        except Exception as error:
            yield f"event: error\ndata: {json.dumps(api_error(error).body())}\n\n".encode()
        finally:
            if following is not None:
                following.cancel()

    async def _resized(self, result: Result) -> Result:
        size = self.call.output.size
        return result if size is None else await in_thread(partial(result.resized, size))

    async def _image(self, result: Result) -> dict[str, Any]:
        """An image of an answer: as a url, as base64, or both; with its seed and its id for later calls."""
        output = self.call.output
        data = await in_thread(partial(result.to_bytes, output.format, output.quality))
        stored = self._keep(result, data)
        found: dict[str, Any] = {"revised_prompt": None}
        if output.b64_json:
            found["b64_json"] = base64.b64encode(data).decode()
        if output.url:
            found["url"] = self.base + stored.path
        return {
            **found,
            "file_id": stored.id,
            "seed": result.seed,
            "width": result.image.width,
            "height": result.image.height,
            "score": result.score,
        }

    def _keep(self, result: Result, data: bytes) -> StoredFile:
        name = f"{re.sub(r'[^A-Za-z0-9.-]+', '-', result.model)}-{result.seed}.{self.call.output.format}"
        return self.store.add(data, self.call.output.format, result.image.size, name)

    async def _partial(self, event: Preview) -> dict[str, Any]:
        data = await in_thread(partial(preview_bytes, event, self.call.output))
        return {
            **self._common(event.image, data),
            "partial_image_index": event.number,
            "index": event.index,
            "stage": event.stage,
        }

    async def _completed(self, event: Finished) -> dict[str, Any]:
        result = await self._resized(event.result)
        found = await self._image(result)
        if "b64_json" not in found:  # of a stream, OpenAI's clients read nothing else
            stored = self.store.get(found["file_id"])
            found["b64_json"] = "" if stored is None else base64.b64encode(stored.data).decode()
        return {
            **self._common(result.image, None),
            **found,
            "usage": UNMETERED,
            "index": event.index,
            "notes": notes(self.call, [result]),
        }

    def _common(self, image: Image.Image, data: bytes | None) -> dict[str, Any]:
        return {
            **({} if data is None else {"b64_json": base64.b64encode(data).decode()}),
            "created_at": int(time.time()),
            "size": size_text(image.size),
            "quality": "auto",
            "background": "transparent" if image.mode == "RGBA" else "opaque",
            "output_format": self.call.output.format,
        }


def notes(call: Call, results: Sequence[Result]) -> list[str]:
    """The messages for the user, each once."""
    found = [*call.notes, *(note for result in results for note in result.notes)]
    if call.output.is_opaque and any(result.image.mode == "RGBA" for result in results):
        found.append("background opaque has no effect on pixels that are kept: some are transparent")
    return list(dict.fromkeys(found))


def preview_bytes(event: Preview, output: Output) -> bytes:
    """A preview as an image file."""
    buffer = io.BytesIO()
    image = event.image.convert("RGB") if output.format == "jpeg" else event.image
    image.save(buffer, format=FORMATS[output.format])
    return buffer.getvalue()


def sse(type: str, fields: dict[str, Any]) -> bytes:
    """A server-sent event, with its type in the data too, as OpenAI's clients read it."""
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


async def in_thread(function: Any) -> Any:
    """The result of a function that runs beside the event loop. Of these, as many run at once as the app allows."""
    return await anyio.to_thread.run_sync(function)
