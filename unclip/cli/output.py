"""Where images go: a file, or names in a folder."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from unclip.errors import InputError
from unclip.files import check_writable, write_atomic, write_new
from unclip.request import Request, Result

_OTHER_FORMATS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_SLUG_LENGTH = 60


@dataclass(frozen=True)
class Target:
    """A folder that images are added to, never overwriting, or one PNG file that is replaced."""

    path: Path
    is_file: bool

    def save(self, result: Result) -> Path:
        """Write a result, whole or not at all, and return its path."""
        data = result.to_png()
        if self.is_file:
            return write_atomic(self.path, data)
        return write_new(self.path / f"{slug(title(result.request))}-{result.seed}.png", data)


def target(out: str, images: int) -> Target:
    """The place that `-o` means, checked for `images` images and for being writable. Raises InputError."""
    path = Path(out)
    suffix = path.suffix.lower()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # unreadable, too long, a NUL: check_writable says which
        is_folder = exists = False
    if suffix == ".png" and not is_folder:
        if images > 1:
            raise InputError(f"-o {out!r} is one file, for {images} images; give a folder")
        check_writable(path.parent)
        return Target(path, is_file=True)
    if suffix in _OTHER_FORMATS and not is_folder:
        raise InputError(f"-o {out!r}: images are written as PNG; give a name that ends in .png, or a folder")
    if exists and not is_folder:
        raise InputError(f"-o {out!r} is a file; give a folder, or a name that ends in .png")
    check_writable(path)
    return Target(path, is_file=False)


def title(request: Request) -> str:
    """What to name a picture after: its prompt, or in an edit without one the image that was edited."""
    if request.prompt.strip() or not isinstance(request.image, str):
        return request.prompt
    return Path(request.image).stem


def slug(prompt: str) -> str:
    """A prompt as a file name: lower-case ASCII letters, digits and single hyphens, at most 60."""
    text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:_SLUG_LENGTH].rstrip("-") or "image"
