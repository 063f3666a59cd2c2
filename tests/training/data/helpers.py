"""Images, files and comparisons of the data tests."""

import io
import tarfile
from pathlib import Path

import torch
from PIL import Image

from unclip.training.data.folder import list_folder
from unclip.training.data.stored import CaptionedImages
from unclip.training.data.webdataset import list_shards

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def flat(shade: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """An image of one grey."""
    return Image.new("RGB", size, (shade, shade, shade))


def halves(width: int = 16, height: int = 8) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def pixel(image: torch.Tensor, x: int, y: int) -> tuple[int, ...]:
    """The colour of a pixel of `3 h w`."""
    return tuple(image[:, y, x].tolist())


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """Write a tar file of the given members."""
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def same(a, b) -> bool:
    """Whether two samples or batches are equal."""
    return torch.equal(a[0], b[0]) and a[1] == b[1]


def folder_dataset(path: str | Path, size: int, seed: int) -> CaptionedImages:
    """The images of a folder as a dataset."""
    return CaptionedImages(list_folder(path), size, seed)


def shard_dataset(paths, size: int, seed: int) -> CaptionedImages:
    """The images of tar shards as a dataset."""
    return CaptionedImages(list_shards(paths), size, seed)
