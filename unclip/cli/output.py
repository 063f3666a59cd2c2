"""The output of a command: one image file, or files in a folder."""

from dataclasses import dataclass
from pathlib import Path

from unclip.batch.file_names import slug, title
from unclip.batch.storage import disk_full
from unclip.errors import InputError
from unclip.images.metadata import FORMATS
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.system.files import check_writable, write_atomic, write_new

_OTHER_FORMATS = {".gif", ".bmp", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True)
class Target:
    """A folder that images are added to without overwriting, or one file that is replaced.

    format: one of FORMATS.
    """

    path: Path
    is_file: bool
    format: str = "png"

    @property
    def previews(self) -> Path:
        """The folder for the images of single steps."""
        return self.path.with_name(f"{self.path.stem}-previews") if self.is_file else self.path / "previews"

    def save(self, result: Result) -> Path:
        """Write a result atomically and return its path. Raises WriteError if it cannot be written."""
        data = result.to_bytes(self.format)
        name = f"{slug(title(result.request))}-{result.seed}{sequence_suffix(result.request)}.{self.format}"
        try:
            return write_atomic(self.path, data) if self.is_file else write_new(self.path / name, data)
        except OSError as error:
            raise disk_full(error, self.path.parent if self.is_file else self.path) from error


def find_target(out: str, images: int, format: str | None = None) -> Target:
    """The target for `-o`, checked to have room for `images` images and to be writable.

    format: of the files in a folder, PNG if None; a single file has the format of its suffix. Raises InputError.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"--format {format!r} is unknown; choose from {', '.join(FORMATS)}")
    path = Path(out)
    suffix = path.suffix.lower()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # unreadable, too long, a NUL: check_writable reports which
        is_folder = exists = False
    file_format = suffix.removeprefix(".")
    if file_format in FORMATS and not is_folder:
        if images > 1:
            raise InputError(f"-o {out!r} is one file, for {images} images; give a folder")
        if format is not None and FORMATS[format] != FORMATS[file_format]:
            raise InputError(f"-o {out!r} and --format {format} disagree; leave one out")
        check_writable(path.parent)
        return Target(path, is_file=True, format=file_format)
    if suffix in _OTHER_FORMATS and not is_folder:
        raise InputError(f"-o {out!r}: images are PNG, JPEG or WebP; give a name that ends in .png, or a folder")
    if exists and not is_folder:
        raise InputError(f"-o {out!r} is a file; give a folder, or a name that ends in .png")
    check_writable(path)
    return Target(path, is_file=False, format="png" if format is None else format)


def sequence_suffix(request: Request) -> str:
    """The end of a file name that tells apart the images of a sequence, which share a seed; "" outside a sequence.

    Components as they are, theta and fraction in thousandths: "-020", "-0350".
    """
    if request.components:
        return f"-{request.components[0]:03d}"
    position = request.fraction if request.theta is None else request.theta
    return "" if position is None else f"-{round(1000 * position):04d}"
