"""Check the responses of the hub before its library makes file names of them."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unclip.errors import CheckpointError
from unclip.requests.values import show

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ETAG = re.compile(rf'(?:W/)?"?({HASH.pattern})"?')
_LISTING = re.compile(r"/api/models/[^/]+/[^/]+(/(revision|tree)/.+)?")
_LOCK = threading.RLock()


@contextmanager
def checked_responses() -> Iterator[None]:
    """Within this context, a response of the hub that could lead out of the cache raises CheckpointError.

    The library of the hub joins ETags, commits and file names, which a server chooses, to the paths that it writes. It
    has one HTTP client for the whole process, so downloads of several threads take turns.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    with _LOCK:
        # An application may have set a factory of its own, for a proxy. The library has no public name for it.
        factory = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)

        def make_client() -> Any:
            client = factory()
            hooks = client.event_hooks
            client.event_hooks = {**hooks, "response": [check_response, *hooks.get("response", [])]}
            return client

        set_client_factory(make_client)
        try:
            yield
        finally:
            set_client_factory(factory)


def check_response(response: Any) -> None:
    """Raise CheckpointError unless all hashes and file names in a response of the hub are what they should be.

    response: of httpx, with headers; the body of a listing is read here, of a file it is not.
    """
    headers, is_redirect = response.headers, 300 <= response.status_code < 400
    for key in ("X-Repo-Commit", "X-Xet-Hash", "X-Linked-ETag"):
        if (value := headers.get(key)) is not None:
            check_hash(value)
    # Only the ETag of a file's metadata becomes a name, and only without X-Linked-ETag.
    etag = headers.get("ETag")
    if response.request.method == "HEAD" and response.status_code < 400 and etag is not None:
        if is_redirect and _ETAG.fullmatch(etag) is None:
            del headers["ETag"]  # it may belong to the redirecting page
        elif "X-Linked-ETag" not in headers:
            check_hash(etag)
    if response.status_code == 200 and _LISTING.fullmatch(response.request.url.path.partition("?")[0]):
        response.read()
        check_listing(response.json())


def check_listing(listing: Any) -> None:
    """Raise CheckpointError for a wrong hash or file name in what a hub says of a repository."""
    description = listing if isinstance(listing, dict) else {}
    entries = [entry for entry in listing if isinstance(entry, dict)] if isinstance(listing, list) else []
    siblings = description.get("siblings")
    siblings = [entry for entry in siblings if isinstance(entry, dict)] if isinstance(siblings, list) else []
    large = [entry["lfs"] for entry in entries if isinstance(entry.get("lfs"), dict)]
    hashes = [description.get("sha"), *(entry.get(key) for entry in entries for key in ("oid", "xetHash"))]
    for value in (*hashes, *(entry.get("oid") for entry in large)):
        if value is not None:
            check_hash(value)
    for value in (*(entry.get("path") for entry in entries), *(entry.get("rfilename") for entry in siblings)):
        if value is not None:
            check_file_name(value)


def check_hash(value: Any) -> None:
    """Raise CheckpointError unless `value` is a SHA-1 or SHA-256 in hexadecimal digits, alone or as an ETag."""
    if not isinstance(value, str) or _ETAG.fullmatch(value) is None:
        raise CheckpointError(f"it sends {show(value)} for a hash, which could lead out of the cache; use another hub")


def check_file_name(value: Any) -> None:
    """Raise CheckpointError unless `value` is a relative path that stays in its folder on every system."""
    parts = value.split("/") if isinstance(value, str) else []
    if not parts or not {"", ".", ".."}.isdisjoint(parts) or re.search(r"[\\\0]|^[A-Za-z]:", value):
        raise CheckpointError(f"it lists a file {show(value)}, which could lead out of the cache; use another hub")
