"""Let a running `unclip serve` make the images of a command: no model is loaded, and torch is not imported."""

import base64
import http.client
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from PIL import Image

from unclip.cli.settings import DEFAULT_URL
from unclip.errors import InputError, UnclipError, one_line
from unclip.images import metadata
from unclip.images.inputs import input_hashes
from unclip.images.result import Result
from unclip.inference.callbacks import Progress
from unclip.requests.fields import FILE_FIELDS
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.values import show
from unclip.version import __version__

API_KEY = "UNCLIP_API_KEY"
"""The variable with a key of the server, which is also the setting of `unclip serve --api-key`."""
TIMEOUT = 600.0  # seconds without a byte; the server sends one every 15 s while it works

PATHS = {
    "generate": "/v1/images/generations",
    **dict.fromkeys(("inpaint", "outpaint", "edit"), "/v1/images/edits"),
    **dict.fromkeys(("vary", "reconstruct", "interpolate"), "/v1/images/variations"),
}


@dataclass(frozen=True, kw_only=True)
class ServerResult(Result):
    """A result from a server. recorded: its record, with the input files of this machine."""

    recorded: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self, format: str = "png", quality: int | None = None) -> bytes:
        """As `Result.to_bytes`: the file is the one that a run on this machine would write."""
        return metadata.image_bytes(self.image, self.recorded, format, quality)


class Server:
    """A running `unclip serve`."""

    def __init__(self, url: str) -> None:
        """url: of the server; "host:port" is http. Raises InputError if it is none."""
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        try:
            self._address: SplitResult = urlsplit(self.url)
            is_valid = self._address.scheme in ("http", "https") and bool(self._address.hostname)
            _ = self._address.port
        except ValueError:
            is_valid = False
        if not is_valid or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise InputError(f"--server {show(url)} is not a url; give one such as {DEFAULT_URL}")

    def stream(self, requests: Iterable[Request], model: str, progress: Progress) -> Iterator[Result]:
        """The images of requests that have a seed, in order. progress: called as (stage, done, total).

        Raises InputError for what the server refuses, and UnclipError for what it cannot do.
        """
        requests = list(requests)
        for request in requests:
            check_sendable(request)
        limit = self._most_images()
        for request in requests:
            for part in split(request, limit):
                yield from self._generate(part, model, progress)

    def _most_images(self) -> int:
        """The most images of one call."""
        found = self._json("GET", "/v1/server").get("max_images")
        if not isinstance(found, int):
            raise InputError(f"{self.url} is not an unclip server; start one with `unclip serve`")
        return found

    def _generate(self, request: Request, model: str, progress: Progress) -> Iterator[Result]:
        """The images of one call, as soon as each is there."""
        body = {**call_fields(request), "model": model, "response_format": "b64_json", "output_format": "png"}
        waiting: dict[int, Result] = {}  # that are there before an earlier one
        following = 0
        for kind, event in self._events(PATHS[request.mode], {**body, "stream": True, "progress": True}):
            if kind == "unclip.step":
                progress(str(event.get("stage")), int(event["done"]), int(event["total"]))
            elif kind.endswith(".completed"):
                waiting[event["index"]] = read_result(base64.b64decode(event["b64_json"]), request)
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1
        if following < request.count:
            raise UnclipError(f"{self.url} sent {following} of {request.count} images; look at the server's log")

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, fields) of the server-sent events of a call."""
        connection, response = self._call("POST", path, body)
        kind, data, failure = "", "", None
        try:
            while line := response.readline():
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                name, _, value = text.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    data += value
                elif not text and data:
                    if kind == "error":
                        failure = data
                        break
                    yield kind, json.loads(data)
                    kind, data = "", ""
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise UnclipError(f"the connection to {self.url} broke off ({one_line(str(error))}); try again") from None
        finally:
            connection.close()
        if failure is not None:
            raise self._error(500, failure.encode())

    def _json(self, method: str, path: str) -> dict[str, Any]:
        connection, response = self._call(method, path, None)
        try:
            found = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            found = None
        finally:
            connection.close()
        if not isinstance(found, dict):
            raise InputError(f"{self.url} is not an unclip server; start one with `unclip serve`")
        return found

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An open connection with the response to a call. Raises InputError or UnclipError for any but 200."""
        secure = self._address.scheme == "https"
        connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(
            self._address.hostname or "", self._address.port, timeout=TIMEOUT
        )
        headers = {"Content-Type": "application/json", "User-Agent": f"unclip/{__version__}"}
        if key := os.environ.get(API_KEY, "").split("\n")[0]:
            headers["Authorization"] = f"Bearer {key}"
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, self._address.path + path, data, headers)
            response = connection.getresponse()
            if response.status == 200:
                return connection, response
            found = response.read(1 << 16)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise InputError(
                f"no server answers at {self.url} ({one_line(str(error))}); start one with `unclip serve`, "
                "or leave out --server"
            ) from None
        connection.close()
        raise self._error(response.status, found)

    def _error(self, status: int, body: bytes) -> UnclipError:
        """The error of a response: an InputError if the server calls the request wrong."""
        try:
            error = json.loads(body)["error"]
            message, kind = f"{self.url}: {error['message']}", error["type"]
        except (ValueError, KeyError, TypeError):
            return InputError(f"{self.url} is not an unclip server (status {status}); start one with `unclip serve`")
        if status == 401:
            message = f"{message} Set the variable {API_KEY}."
        is_wrong = kind == "invalid_request_error" and status != 429
        return InputError(message) if is_wrong else UnclipError(message)


def check_sendable(request: Request) -> None:
    """Raise InputError for sources that a call cannot carry: embedding files, and a prompt before an image."""
    kinds = [source_kind(source) for source in request.sources or ()]
    if "embedding" in kinds:
        raise InputError("a server takes no embedding files to interpolate; leave out --server")
    if kinds != sorted(kinds, key=lambda kind: kind == "prompt"):
        raise InputError("a server takes images before prompts; give them in this order, or leave out --server")


def split(request: Request, limit: int) -> Iterator[Request]:
    """The request in parts of at most `limit` images, if their seeds are all that differs between its images."""
    if request.n <= limit or request.best_of is not None or request.count != request.n or request.seed is None:
        yield request
        return
    for start in range(0, request.n, limit):
        yield request.replace(n=min(limit, request.n - start), seed=request.seed + start)


def call_fields(request: Request) -> dict[str, Any]:
    """The fields of a call for a request. Its files are sent along."""
    found = {name: value for name, value in request.to_dict().items() if value is not None and name != "id"}
    found.pop("sources", None)
    for name in FILE_FIELDS:
        if name in found:
            found[name] = data_url(name, getattr(request, name))
    if request.mask is not None and request.mask_mode is None:
        found["mask_mode"] = "white"  # a server's default looks at the mask
    if request.sources is not None:
        images = [data_url("source", source) for source in request.sources if source_kind(source) != "prompt"]
        texts = [source for source in request.sources if source_kind(source) == "prompt"]
        found |= ({"images": images} if images else {}) | ({"sources": texts} if texts else {})
    return found


def data_url(name: str, path: str) -> str:
    """A file as a data url. Raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return f"data:application/octet-stream;base64,{base64.b64encode(file.read()).decode()}"
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the {name} {show(path)} ({one_line(str(error))})") from None


def read_result(png: bytes, request: Request) -> ServerResult:
    """The result in a PNG of the server, with the input files of `request`, which it was made from."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as opened:
        opened.load()
        image = opened.copy()
    profile = image.info.get("icc_profile")
    image.info = {} if profile is None else {"icc_profile": profile}
    found = metadata.read_open(io.BytesIO(png), "the server's image")
    own = {name: getattr(request, name) for name in FILE_FIELDS if getattr(request, name) is not None}
    if request.sources is not None:
        own["sources"] = list(request.sources)
    if request.mask_mode is None and "mask_mode" in found["request"]:
        own["mask_mode"] = None
    recorded: dict[str, Any] = {}
    inputs = input_hashes(request)
    for key, value in found.items():
        recorded[key] = {**value, **own} if key == "request" else inputs if key == "inputs" else value
        if key == "request" and inputs:
            recorded["inputs"] = inputs  # as a file, not as the pixels that the server got
    return ServerResult(
        image=image,
        request=Request.from_dict(recorded["request"]),
        seed=found["seed"],
        model=found["model"],
        score=found.get("score"),
        ranked=tuple(found.get("ranked", ())),
        notes=tuple(found.get("notes", ())),
        recorded=recorded,
    )
