"""The record of an image: written into its file, and read back.

The record is one JSON object with the keys version, model, revision, dtype, seed, request, score, notes and pixels; for
an image chosen among candidates also ranked, the scores of all candidates; for a model with the image encoder of
another one also image_encoder, its name; for a request with input files also inputs, their hashes; for an image that
was resized after it was generated also resized, its size. The record contains nothing that differs between two runs of
one request in one precision, such as times. "pixels" is a hash of the image, before a lossy format changes it.

A canvas, several images put together, has a record of the keys version and canvas: a list of its parts, the lowest
first, with left, top, width, height and the record of each, or null.

A PNG has the record in the text chunk "unclip"; JPEG and WebP have it in the EXIF tag ImageDescription. Beside it, for
other programs: the lines that web interfaces read ("parameters" in PNG, UserComment in EXIF), and XMP in JPEG and WebP.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from unclip.errors import DataError, RequestError, UnclipError
from unclip.images import png
from unclip.requests.fields import edits_canvas
from unclip.requests.values import parse_size
from unclip.system.json_values import parse_json

if TYPE_CHECKING:
    from PIL import Image


KEY = "unclip"

MAX_BYTES = 1 << 20  # of the record

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
"""Suffixes of image files that are written, and Pillow's names for their formats."""

_EXIF_IFD, _IMAGE_DESCRIPTION, _USER_COMMENT = 0x8769, 0x010E, 0x9286

_MAX_EXIF = 65_000  # a JPEG segment holds 65,533 bytes

_MAX_SHOWN = 8_000  # characters of a prompt in XMP; the record has all of it

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2

_SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"

_QUALITY = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95, "method": 4}}


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of an image's mode, size and pixels, in hexadecimal digits."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def image_bytes(image: Image.Image, record: dict[str, Any], format: str = "png", quality: int | None = None) -> bytes:
    """The bytes of an image file in a format of FORMATS, with a record and the image's colour profile, if it has one.

    In JPEG, transparent pixels are white.

    quality: of JPEG and WebP, 0 .. 100; by default 95.
    Raises UnclipError for a record that is too long for the format.
    """
    buffer, kind, profile = io.BytesIO(), FORMATS[format], image.info.get("icc_profile")
    text = json.dumps(record, allow_nan=False)  # ASCII: every reader understands it
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text(KEY, text)
        info.add_text("parameters", parameters(record))  # Pillow writes an iTXt chunk if it is not Latin-1
        image.save(buffer, format=kind, pnginfo=info, icc_profile=profile)
    else:
        if kind == "JPEG" and image.mode == "RGBA":
            from PIL import Image

            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        exif, xmp = _exif(record, text), _xmp(record)
        options = _QUALITY[kind] if quality is None else {**_QUALITY[kind], "quality": quality}
        image.save(buffer, format=kind, exif=exif, xmp=xmp, icc_profile=profile, **options)
    return buffer.getvalue()


def canvas_bytes(image: Image.Image, record: dict[str, Any]) -> bytes:
    """A PNG of images that were put together, with a record of its parts, which have requests of their own."""
    from PIL.PngImagePlugin import PngInfo

    buffer, info = io.BytesIO(), PngInfo()
    info.add_text(KEY, json.dumps(record, allow_nan=False))
    image.save(buffer, format="PNG", pnginfo=info, icc_profile=image.info.get("icc_profile"))
    return buffer.getvalue()


def parameters(record: dict[str, Any]) -> str:
    """The record as the lines that web interfaces for diffusion models write and read."""
    request = record["request"]
    settings = {
        "Steps": request.get("steps"),
        "Sampler": request.get("sampler"),
        "CFG scale": request.get("guidance"),
        "Seed": record["seed"],
        "Size": request.get("size"),
        "Model": record["model"],
        "Version": f"unclip {record['version']}",
    }
    lines = [request["prompt"]]
    if request.get("negative_prompt"):
        lines.append(f"Negative prompt: {request['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)


def resized_size(record: dict[str, Any]) -> tuple[int, int] | None:
    """(width, height) to which an image was resized after it was generated, or None. Raises DataError."""
    found = record.get("resized")
    try:
        return None if found is None else parse_size(found)
    except RequestError as error:
        raise DataError(f"the image has a damaged record: resized: {error}") from None


def read(path: str | Path) -> dict[str, Any]:
    """The record in an image file. No pixels are decoded, and the file is not trusted.

    Raises DataError if the file cannot be read, is of another format, or holds no record.
    """
    try:
        with open(path, "rb") as file:
            return read_open(file, str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {str(path)!r} ({reason})") from error


def read_open(file: BinaryIO, name: str) -> dict[str, Any]:
    """The record in an open image file, which errors call `name`. Raises as `read`, or OSError or ValueError."""
    start = file.read(12)
    file.seek(0)
    has_exif = start.startswith(b"\xff\xd8\xff") or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
    text = _exif_text(file, name) if has_exif else _text_chunk(file, name)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise DataError(f"{name!r} holds a damaged record: it is not JSON") from error
    if not isinstance(found, dict):
        raise DataError(f"{name!r} holds a damaged record: it is not a JSON object")
    return found


def _text_chunk(file: BinaryIO, name: str) -> str:
    """The text of the first tEXt chunk with our key (PNG specification, 5.3 and 11.3.3).

    Pillow's own reader is not used: it decompresses every text chunk into memory, up to 64 MB, and refuses a whole file
    for one large chunk of another program. This one reads the chunk headers, and the one chunk that is wanted.
    """
    if file.read(8) != png.SIGNATURE:
        raise DataError(f"{name!r} is not a PNG, JPEG or WebP file; give an image that unclip made")
    prefix = KEY.encode() + b"\0"
    for chunk in png.chunks(file):
        if chunk.kind != b"tEXt" or file.read(min(chunk.length, len(prefix))) != prefix:
            continue
        if chunk.length > MAX_BYTES:
            raise DataError(f"{name!r} holds a record of {chunk.length} bytes; at most {MAX_BYTES} are read")
        if (body := png.read_chunk(file, chunk)) is None:
            raise DataError(f"{name!r} is damaged: the checksum of its record does not match")
        return body[len(prefix) :].decode("latin-1")
    raise _no_record(name)


def _exif(record: dict[str, Any], text: str) -> bytes:
    from PIL import Image

    if len(text) > _MAX_EXIF:
        raise UnclipError(f"the record of the image has {len(text)} bytes, too long for this format; write PNG")
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = f"{KEY} {text}"
    lines = parameters(record).encode("utf-16-be", "replace")
    if len(text) + len(lines) + 100 < _MAX_EXIF:  # a very long prompt leaves room for the record only
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + lines
    return exif.tobytes()


def _xmp(record: dict[str, Any]) -> bytes:
    """XMP (ISO 16684) for photo programs: the prompt, the program, and that a model made the image (IPTC)."""
    from xml.sax.saxutils import escape, quoteattr

    def clean(text: str) -> str:
        return _NOT_XML.sub(" ", text[:_MAX_SHOWN])

    request = record["request"]
    prompt = clean(request["prompt"])
    tool = quoteattr(clean(f"unclip {record['version']}, {record['model']}"))
    source = "compositeWithTrainedAlgorithmicMedia" if edits_canvas(request["mode"]) else "trainedAlgorithmicMedia"
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' Iptc4xmpExt:DigitalSourceType="{_SOURCES}{source}" xmp:CreatorTool={tool}>'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(prompt)}</rdf:li></rdf:Alt></dc:description>'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
    return packet.encode()


def _exif_text(file: BinaryIO, name: str) -> str:
    """The record in the EXIF of a JPEG or WebP file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes and unusual EXIF: no pixels are decoded here
            with Image.open(file, formats=("JPEG", "WEBP")) as image:
                text = image.getexif().get(_IMAGE_DESCRIPTION)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise DataError(f"{name!r} is damaged: its header cannot be read") from error
    if not isinstance(text, str) or not text.startswith(f"{KEY} "):
        raise _no_record(name)
    if len(text) > MAX_BYTES:
        raise DataError(f"{name!r} holds a record of {len(text)} bytes; at most {MAX_BYTES} are read")
    return text.removeprefix(f"{KEY} ")


def _no_record(name: str) -> DataError:
    return DataError(f"{name!r} holds no record; it was not made by unclip, or another program saved it since")
