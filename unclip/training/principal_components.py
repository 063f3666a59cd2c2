"""The principal components of a model's image embeddings, computed from images like its training data."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from PIL import Image
from torch import Tensor

from unclip.embeddings.files import write_components
from unclip.embeddings.principal_components import principal_components
from unclip.errors import DataError
from unclip.images.processing import open_square
from unclip.images.reading import check_header
from unclip.stickers.captions import nouns_in
from unclip.stickers.compose import SceneOptions
from unclip.stickers.render import render
from unclip.stickers.sprites import DEFAULT_STYLE
from unclip.stickers.stream import scene_at
from unclip.training.data.decode import IMAGE_EXTENSIONS, extension_of
from unclip.training.data.folder import list_files

BATCH = 64
SEED = 1 << 20  # of scenes that no recipe uses

Embed = Callable[[Sequence[Image.Image]], Tensor]
"""Images -> embeddings `b d`."""


def make_components(embed: Embed, images: Iterable[Image.Image], folder: Path) -> Path:
    """Compute the principal components of the embeddings of images, and write them into a checkpoint folder.

    Returns the file. Raises DataError for fewer than two images.
    """
    source = iter(images)
    batches = iter(lambda: list(islice(source, BATCH)), [])
    first = next(batches, [])
    if len(first) < 2:
        raise DataError(f"principal components need at least two images, not {len(first)}; give more")
    return write_components(folder, principal_components(map(embed, chain([first], batches))))


def scene_images(
    count: int, side: int, vocabulary: Collection[str], styles: Sequence[str] = ()
) -> Iterator[Image.Image]:
    """Rendered scenes of the nouns in a model's vocabulary, as squares of `side` pixels.

    styles: of the sprites; none are the default.
    """
    options = SceneOptions(nouns=nouns_in(vocabulary), styles=tuple(styles) or (DEFAULT_STYLE,))
    return (Image.fromarray(render(scene_at(SEED, i, options)[0], side)) for i in range(count))


def images_in(folder: Path, count: int) -> Iterator[Image.Image]:
    """At most `count` images of a folder and its subfolders, sorted by name and cropped to squares.

    Raises DataError for a folder without images, or for an image whose header cannot be read.
    """
    files, faults, _ = list_files(folder)
    if faults:
        raise DataError(faults[0])
    names = [name for name in files if extension_of(name) in IMAGE_EXTENSIONS][:count]
    if not names:
        raise DataError(f"{folder} has no images (.{', .'.join(IMAGE_EXTENSIONS)}); give a folder that has some")
    for name in names:
        check_header(str(folder / name), "image", max_side=None)
    return (open_square(str(folder / name), "crop")[0] for name in names)
