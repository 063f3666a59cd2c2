"""Training data: images with captions, addressed by an index that never ends.

Every dataset here answers `dataset[i] -> (image, caption)` for any i >= 0, a pure function of (seed, i);
the image is a uint8 tensor `3 size size`, RGB. A run that was stopped therefore resumes to the same data by
starting at the index where it stopped: no sampler state has to be saved.

Scenes draws its images (`unclip.training.scenes`), Folder reads a folder, Shards reads webdataset tar files;
`open_dataset` picks one from a recipe's table and `batches` feeds a training loop.
"""

import difflib
import glob
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset

from unclip.errors import DataError
from unclip.training import scenes

Sample = tuple[torch.Tensor, str]  # uint8 3 h w, caption

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
UNPACKERS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


# ---- images and captions


def decode_image(data: bytes, name: str, size: int) -> torch.Tensor:
    """The bytes of a PNG, JPEG or WebP file as an upright, square uint8 tensor `3 size size`, RGB, on white.

    The shorter side is resized to `size` (bicubic, antialiased) and the centre kept. Raises DataError, naming
    `name`, for anything that is not a whole image of these formats or that is above Pillow's pixel limit.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns between one and two times its limit: the limit is meant here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                image.draft(None, (3 * size, 3 * size))  # a large JPEG decodes at 1/2, 1/4 or 1/8 of its size
                square = _centre_square(_on_white(ImageOps.exif_transpose(image)), size)
    except UnidentifiedImageError:
        raise DataError(f"{name}: not a readable PNG, JPEG or WebP image; convert or remove it") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
        raise DataError(f"{name}: larger than Pillow's limit of {limit}; scale it down") from None
    except Exception as error:  # damage makes Pillow raise nearly anything: SyntaxError, struct.error, ...
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: damaged image ({why}); replace or remove it") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # 3 h w


def _on_white(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB, transparency composited on white."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255 instead of scaling
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    # Resizing just the box is resize and crop in one: the rest of a long strip is never computed.
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _lines(data: bytes, name: str) -> list[str]:
    """The non-empty lines of a UTF-8 text. Raises DataError naming the text."""
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{name}: not UTF-8 text; save it as UTF-8") from None
    return [line for line in lines if line]


def _json_object(data: str | bytes, name: str) -> dict[str, Any]:
    try:
        row = json.loads(data)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise DataError(f'{name}: not a JSON object; write {{"caption": "..."}} on it')
    return row


def _row_captions(row: Mapping[str, Any], name: str) -> list[str]:
    """The captions in a JSON object: its "text" or else "caption", a string or a list of strings."""
    value = next((row[key] for key in ("text", "caption") if row.get(key) is not None), None)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise DataError(f'{name}: needs "text" or "caption", a string or a list of strings')
    return [text.strip() for text in values if text.strip()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore or remove it") from error


def _check_pairs(where: str, uncaptioned: list[str], imageless: list[str]) -> None:
    """One DataError for all images without a caption and all captions without an image."""
    faults = [
        f"{len(names)} {what} (first: {names[0]})"
        for names, what in ((uncaptioned, "without a caption"), (imageless, "without an image"))
        if names
    ]
    if faults:
        raise DataError(f"{where}: samples {' and '.join(faults)}; complete or remove them")


def _number(seed: int, purpose: str, counter: int) -> int:
    """63 random bits, a pure function of the arguments on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(known)}"


# ---- datasets


class Scenes(Dataset[Sample]):
    """Scenes composed without end: no epochs, as no index repeats. Raises DataError for an unknown split."""

    def __init__(self, size: int, seed: int, split: str = "train"):
        if split not in scenes.SPLITS:
            raise DataError(f"scenes have no split {split!r}; {_nearest(split, scenes.SPLITS)}")
        self.size, self.seed, self.split = size, seed, split

    def __getitem__(self, index: int) -> Sample:
        scene, caption = scenes.scene_at(self.seed, index, self.split)
        pixels = torch.from_numpy(scenes.render(scene, self.size))  # h w 3
        return pixels.permute(2, 0, 1).contiguous(), caption  # 3 h w


class _Stored(Dataset[Sample]):
    """Stored images in a new order each epoch: index i is image `i % len` of epoch `i // len`.

    `len` is the number of images, hence of indices in one epoch; indices go on beyond it. When an image has
    several captions, (seed, i) draws one.
    """

    def __init__(self, count: int, size: int, seed: int):
        self.count, self.size, self.seed = count, size, seed
        self._order: tuple[int, torch.Tensor] | None = None  # the current epoch's permutation

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        """Name for messages, bytes of the image, captions."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(f"index {index}: data indices start at 0")
        epoch, place = divmod(index, self.count)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_number(self.seed, "epoch", epoch))
            self._order = (epoch, torch.randperm(self.count, generator=generator))
        name, data, captions = self._load(int(self._order[1][place]))
        if not captions:
            raise DataError(f"{name}: its caption is empty; write one or remove the image")
        caption = captions[_number(self.seed, "caption", index) % len(captions)]
        return decode_image(data, name, self.size), caption


class Folder(_Stored):
    """Images of a folder and its subfolders, with captions beside them.

    Captions come from `metadata.jsonl` at the top of the folder if there is one (a line an image, as
    Hugging Face's imagefolder: {"file_name": "a/b.png", "text" or "caption": a string or a list}), else
    from a .txt of the image's name, each non-empty line a caption. Hidden files are passed over. Raises
    DataError if an image has no caption or a caption no image.
    """

    def __init__(self, path: str | Path, size: int, seed: int):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{path}: not a folder; give a folder of images with captions")
        files = _files_below(self.path)
        images = [name for name in files if _extension(name) in IMAGE_EXTENSIONS]
        if not images:
            raise DataError(f"{path}: no images (.{', .'.join(IMAGE_EXTENSIONS)}) in this folder")
        if "metadata.jsonl" in files:
            captions = self._from_metadata()
            imageless = sorted(set(captions) - set(images))
        else:
            texts = {name[:-4] for name in files if name.endswith(".txt")}
            wanted = {name: name.rpartition(".")[0] for name in images}
            found = [name for name in images if wanted[name] in texts]
            captions = {name: self._from_text(wanted[name] + ".txt") for name in found}
            imageless = [f"{stem}.txt" for stem in sorted(texts - set(wanted.values()))]
        _check_pairs(str(path), [name for name in images if not captions.get(name)], imageless)
        self._items = [(name, captions[name]) for name in images]
        super().__init__(len(images), size, seed)

    def _from_text(self, name: str) -> list[str]:
        path = self.path / name
        return _lines(_read(path), str(path))

    def _from_metadata(self) -> dict[str, list[str]]:
        path = self.path / "metadata.jsonl"
        captions: dict[str, list[str]] = {}
        for number, line in enumerate(_read(path).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            row = _json_object(line, where)
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise DataError(f'{where}: needs "file_name", the path of an image in this folder')
            parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
            if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in parts:
                raise DataError(f"{where}: file_name {name!r} leaves the folder; give a path inside it")
            captions.setdefault(PurePosixPath(name).as_posix(), []).extend(_row_captions(row, where))
        return captions

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        name, captions = self._items[item]
        return str(self.path / name), _read(self.path / name), captions


def _files_below(root: Path) -> list[str]:
    """Relative posix paths of all files, sorted: item numbers must not hang on the file system's order."""
    names = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(folder).relative_to(root)
        names += [(here / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


class _Member(NamedTuple):
    extension: str
    offset: int  # of the data, in bytes from the start of the tar file
    size: int


class _TarSample(NamedTuple):
    shard: Path
    key: str
    image: _Member
    caption: _Member


class Shards(_Stored):
    """Samples of uncompressed webdataset tar files, in random order over all of them.

    `paths` is a path, a glob, a numeric brace range ("train-{000..012}.tar") or a list of these. A sample
    is the members that share a name up to the first dot: an image and a .txt (each non-empty line a
    caption) or a .json with "text" or "caption". The tars are walked once for the offsets of their members;
    each read then opens its shard anew, so there is no handle for worker processes to share, nor a limit on
    the number of shards. Raises DataError if a shard cannot be read, an image has no caption or a caption
    no image.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], size: int, seed: int):
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        shards = [shard for path in given for shard in _expand(str(path))]
        self._samples: list[_TarSample] = []
        uncaptioned, imageless = [], []
        for shard in shards:
            for key, members in _index(shard).items():
                image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
                caption = members.get("txt", members.get("json"))
                if image is not None and caption is not None:
                    self._samples.append(_TarSample(shard, key, image, caption))
                elif image is not None:
                    uncaptioned.append(f"{shard}, sample {key}")
                elif caption is not None:
                    imageless.append(f"{shard}, sample {key}")
        where = ", ".join(map(str, given))
        _check_pairs(where, uncaptioned, imageless)
        if not self._samples:
            raise DataError(f"{where}: no samples; a sample is an image and a .txt or .json of the same name")
        super().__init__(len(self._samples), size, seed)

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        shard, key, image, caption = self._samples[item]
        name = f"{shard}, sample {key}"
        parts = []
        try:
            with shard.open("rb") as file:
                for member in (image, caption):
                    file.seek(member.offset)
                    parts.append(file.read(member.size))
        except OSError as error:
            raise DataError(f"{shard}: cannot be read ({error.strerror}); restore the shard") from error
        if len(parts[0]) < image.size or len(parts[1]) < caption.size:
            raise DataError(f"{name}: cut off; the shard changed since it was opened, restore it")
        if caption.extension == "txt":
            return name, parts[0], _lines(parts[1], name)
        return name, parts[0], _row_captions(_json_object(parts[1], name), name)


def _expand(pattern: str) -> list[Path]:
    """The shards a path, a glob or a brace range stands for, in order."""
    if found := re.search(r"\{(\d+)\.\.(\d+)\}", pattern):
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        names = [f"{pattern[: found.start()]}{n:0{len(first)}d}{pattern[found.end() :]}" for n in numbers]
        if not names:
            raise DataError(f"{pattern}: the range {found.group()} is empty; write the smaller number first")
        return [shard for name in names for shard in _expand(name)]
    if os.path.isfile(pattern):
        return [Path(pattern)]
    if not (matches := sorted(glob.glob(pattern, recursive=True))):
        raise DataError(f"{pattern}: no such shard; give local .tar files (download remote ones first)")
    return [Path(match) for match in matches]


def _index(shard: Path) -> dict[str, dict[str, _Member]]:
    """Where the members of a shard lie: sample key -> extension -> member."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with shard.open("rb") as file:
            magic = file.read(8)
            for start, tool in UNPACKERS.items():
                if magic.startswith(start):
                    raise DataError(f"{shard}: compressed; unpack it to a plain .tar first ({tool} {shard.name})")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    folder, slash, base = member.name.rpartition("/")
                    stem, dot, extension = base.partition(".")
                    if not (member.isfile() and stem and dot):
                        continue
                    key, extension = folder + slash + stem, extension.lower()
                    if extension in samples.setdefault(key, {}):
                        raise DataError(f"{shard}: {member.name} is there twice; rename or remove one")
                    samples[key][extension] = _Member(extension, member.offset_data, member.size)
                # tarfile takes a damaged header for the end of the archive; the true end is zeros or nothing.
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise DataError(f"{shard}: damaged after {len(samples)} samples; restore the shard")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable tar file ({error}); restore or remove it") from error
    return samples


# ---- from a recipe to batches

# The keys of each kind of data: is the key required?
KINDS = {"scenes": {"split": False}, "folder": {"path": True}, "webdataset": {"shards": True}}


def open_dataset(config: Mapping[str, Any], size: int, seed: int) -> Dataset[Sample]:
    """The dataset a recipe's table asks for.

    One of {kind = "scenes", split = "train"}, {kind = "folder", path = "..."}, {kind = "webdataset", shards
    = "..." or a list}. Raises DataError, naming the nearest known name, for a kind or key that is not one
    of these.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"data kind {kind!r} is unknown; {_nearest(str(kind), KINDS)}")
    keys = KINDS[kind]
    for key in config:
        if key != "kind" and key not in keys:
            raise DataError(f"data of kind {kind!r} has no key {key!r}; {_nearest(key, keys)}")
    if missing := [key for key, required in keys.items() if required and key not in config]:
        raise DataError(f"data of kind {kind!r} needs the key {missing[0]!r}")
    for key in keys.keys() & config.keys():
        value = config[key]
        parts = value if key == "shards" and isinstance(value, list | tuple) and value else [value]
        if not all(isinstance(part, str | Path) and str(part) for part in parts):
            kinds = "a path or a list of paths" if key == "shards" else "a string"
            raise DataError(f"data key {key!r} is {value!r}; it must be {kinds}")
    if kind == "scenes":
        return Scenes(size, seed, config.get("split", "train"))
    if kind == "folder":
        return Folder(config["path"], size, seed)
    return Shards(config["shards"], size, seed)


class _Guarded(Dataset):
    """Hands DataErrors on as values: raised inside a worker they would come out wrapped in a traceback."""

    def __init__(self, dataset: Dataset[Sample]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return self.dataset[index]
        except DataError as error:
            return DataError(str(error))


class _Consecutive:
    """Batch sampler: batch k is indices [k b, (k + 1) b), from k = start on, without end."""

    def __init__(self, batch_size: int, start: int):
        self.batch_size, self.start = batch_size, start

    def __iter__(self) -> Iterator[list[int]]:
        for k in itertools.count(self.start):
            yield list(range(k * self.batch_size, (k + 1) * self.batch_size))


def _collate(samples: list[Sample | DataError]) -> tuple[torch.Tensor, list[str]] | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    images, captions = zip(*samples, strict=True)
    return torch.stack(images), list(captions)  # b 3 h w


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def batches(
    dataset: Dataset[Sample], batch_size: int, start_step: int = 0, workers: int = 0
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Endless batches (images uint8 `b 3 h w`, captions), the first of them number `start_step`.

    Batch k holds indices [k b, (k + 1) b) of the dataset whatever the number of worker processes, which
    prefetch two batches each (0: batches are made as they are asked for). Raises DataError when a sample
    cannot be read.
    """
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=_Consecutive(batch_size, start_step),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_one_thread,
        generator=torch.Generator().manual_seed(0),  # else the loader draws from torch's global generator
    )
    for batch in loader:
        if isinstance(batch, DataError):
            break  # and raise out here, once the workers are gone: a traceback would keep them waiting
        yield batch
    raise batch
