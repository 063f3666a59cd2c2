"""Calls and images for the tests of the server."""

import base64
import io
import json
from typing import Any

from PIL import Image

GENERATIONS, EDITS, VARIATIONS = (f"/v1/images/{name}" for name in ("generations", "edits", "variations"))


def png(image: Image.Image, format: str = "PNG") -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def images_of(response: Any) -> list[Image.Image]:
    """The images of an answer, from their base64."""
    assert response.status_code == 200, response.text
    return [decoded(one["b64_json"]) for one in response.json()["data"]]


def decoded(text: str) -> Image.Image:
    """An image from base64."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def error_of(response: Any, status: int = 400) -> dict[str, Any]:
    """The error of an answer, which has OpenAI's form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and "\n" not in error["message"]
    return error


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two images have the same mode, size and pixels."""
    return (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())


def events_of(response: Any) -> list[tuple[str, dict[str, Any]]]:
    """The (type, data) of the server-sent events of an answer."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found
