"""Images from clients: recognised by content, checked before they are decoded."""

import base64
import binascii
import io
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unclip.errors import DataError
from unclip.images.metadata import read_open
from unclip.images.pixels import read_pixels
from unclip.images.reading import check_header, opened
from unclip.server.body import MAX_FILES, Body
from unclip.server.errors import ApiError
from unclip.server.store import PREFIX, Store

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
SUFFIXES = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp", "GIF": "gif"}
"""Pillow calls the JPEGs of phones that hold several pictures MPO."""
_OWN_URL = re.compile(rf"(?:https?://[^/?#]+)?/files/({PREFIX}[\w-]+)\.\w+")


@dataclass(frozen=True)
class Upload:
    """The bytes of an image file of a call. field: its name, for error messages."""

    field: str
    data: bytes

    def decode(self, max_pixels: int) -> Image.Image:
        """The upright image, RGB, or RGBA if some pixels are not opaque.

        Raises ApiError, before its pixels are decoded, if it is none or too large.
        """
        try:
            with opened(io.BytesIO(self.data), f"the {self.field}", FORMATS) as image:
                (width, height), _ = check_header(image, self.field)
                if width * height > max_pixels:
                    raise DataError(
                        f"the {self.field} has {width * height:,} pixels; this server takes at most {max_pixels:,}"
                    )
                pixels = read_pixels(image, self.field)
        except DataError as error:
            raise ApiError(str(error), param=self.field, code="invalid_image") from None
        found = Image.fromarray(pixels.colours)
        if pixels.alpha is not None:
            found.putalpha(Image.fromarray(pixels.alpha))
        if pixels.profile is not None:
            found.info["icc_profile"] = pixels.profile.data
        return found

    def describe(self, max_pixels: int) -> tuple[str, tuple[int, int]]:
        """(format, (width, height)) of the file: a format of `store.MEDIA_TYPES`. Raises ApiError as `decode`."""
        size = self.decode(max_pixels).size
        with opened(io.BytesIO(self.data), f"the {self.field}", FORMATS) as image:
            return SUFFIXES[image.format or ""], size

    def record(self) -> dict[str, Any] | None:
        """The record of how the image was made, if it has a readable one."""
        try:
            return read_open(io.BytesIO(self.data), f"the {self.field}")
        except (OSError, ValueError, DataError):
            return None


def find_uploads(body: Body, name: str, store: Store) -> list[Upload]:
    """The images that a call gives in a field: files of a form, ids of stored files, or data urls.

    In JSON, an image is an object with `file_id` or `image_url`, or one of these as text; the field may also have the
    plural's name, as OpenAI's `images`. Raises ApiError for anything else. No url is ever fetched.
    """
    found = [Upload(name, data) for data in body.files.get(name, ())]
    for key in (name, f"{name}s"):
        given = body.fields.get(key)
        if given is not None:
            several = given if isinstance(given, list) else [given]
            if len(several) > MAX_FILES:
                raise ApiError(f"'{key}' has {len(several)} images; at most {MAX_FILES} are read.", param=key)
            found += [_from_value(name, one, store) for one in several]
    return found


def _from_value(name: str, value: Any, store: Store) -> Upload:
    if isinstance(value, dict):
        known = [value[key] for key in ("file_id", "image_url") if isinstance(value.get(key), str)]
        if len(known) != 1 or len(value.keys() - {"type", "detail"}) != 1:
            raise ApiError(f"'{name}' must have either file_id or image_url.", param=name)
        value = known[0]
    if not isinstance(value, str):
        raise ApiError(
            f"Invalid type for '{name}': expected a file, but got {_kind(value)} instead.",
            param=name,
            code="invalid_type",
        )
    if value.startswith("data:"):
        return Upload(name, _data_url(name, value))
    own = _OWN_URL.fullmatch(value)
    id = own[1] if own else value
    if id.startswith(PREFIX):
        stored = store.get(id)
        if stored is None:
            raise ApiError(f"No such file: {id[:80]!r}. It may have expired.", 404, param=name, code="file_not_found")
        return Upload(name, stored.data)
    if value.startswith(("http:", "https:")):
        raise ApiError(f"'{name}': this server fetches no urls. Send the image itself.", param=name, code="invalid_url")
    raise ApiError(
        f"Invalid type for '{name}': expected a file, but got a string instead.", param=name, code="invalid_type"
    )


def _data_url(name: str, url: str) -> bytes:
    head, _, data = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise ApiError(f"'{name}' is a damaged data url; write data:image/png;base64,...", param=name) from None


def _kind(value: Any) -> str:
    names = {list: "an array", dict: "an object", bool: "a boolean", int: "an integer", float: "a number"}
    return names.get(type(value), "something else")
