"""Where images go: a file, or names in a folder."""

from dataclasses import dataclass
from pathlib import Path

from unclip.batch.file_names import slug, title
from unclip.batch.output_folder import disk_full
from unclip.errors import InputError
from unclip.images.metadata import FORMATS
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.system.files import check_writable, write_atomic, write_new

__all__ = ["Target", "slug", "target"]

_OTHER_FORMATS = {".gif", ".bmp", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True)
class Target:
    """A folder that images are added to, never overwriting, or one file that is replaced; in a format of FORMATS."""

    path: Path
    is_file: bool
    format: str = "png"

    @property
    def previews(self) -> Path:
        """The folder of the pictures on the way to the results."""
        return self.path.with_name(f"{self.path.stem}-previews") if self.is_file else self.path / "previews"

    def save(self, result: Result) -> Path:
        """Write a result, whole or not at all, and return its path. Raises WriteError where that cannot be."""
        data = result.to_bytes(self.format)
        name = f"{slug(title(result.request))}-{result.seed}{step(result.request)}.{self.format}"
        try:
            return write_atomic(self.path, data) if self.is_file else write_new(self.path / name, data)
        except OSError as error:
            raise disk_full(error, self.path.parent if self.is_file else self.path) from error


def target(out: str, images: int, format: str | None = None) -> Target:
    """The place that `-o` means, checked for `images` images and for being writable. Raises InputError.

    A file's suffix says its format; `format` is that of the files in a folder, PNG where it is None.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"--format {format!r} is unknown; choose from {', '.join(FORMATS)}")
    path = Path(out)
    suffix = path.suffix.lower()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # unreadable, too long, a NUL: check_writable says which
        is_folder = exists = False
    told = suffix.removeprefix(".")
    if told in FORMATS and not is_folder:
        if images > 1:
            raise InputError(f"-o {out!r} is one file, for {images} images; give a folder")
        if format is not None and FORMATS[format] != FORMATS[told]:
            raise InputError(f"-o {out!r} and --format {format} disagree; leave one out")
        check_writable(path.parent)
        return Target(path, is_file=True, format=told)
    if suffix in _OTHER_FORMATS and not is_folder:
        raise InputError(f"-o {out!r}: images are PNG, JPEG or WebP; give a name that ends in .png, or a folder")
    if exists and not is_folder:
        raise InputError(f"-o {out!r} is a file; give a folder, or a name that ends in .png")
    check_writable(path)
    return Target(path, is_file=False, format="png" if format is None else format)


def step(request: Request) -> str:
    """What tells the pictures of a sequence apart, whose seed is the same: how far along it they are."""
    if request.components:
        return f"-{request.components[0]:03d}"
    share = request.theta if request.mode == "edit" else request.fraction
    return "" if share is None else f"-{round(1000 * share):04d}"
