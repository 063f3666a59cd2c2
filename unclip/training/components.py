"""The principal components of a checkpoint's embeddings, from pictures like those it was trained on."""

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from unclip.embeddings.components import principal_components
from unclip.embeddings.files import write_components
from unclip.errors import DataError
from unclip.images.processing import squared
from unclip.requests.sources import PICTURE_SUFFIXES
from unclip.stickers.captions import nouns_in
from unclip.stickers.compose import SceneOptions
from unclip.stickers.render import render
from unclip.stickers.stream import scene_at

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

BATCH = 64
SEED = 1 << 20  # of scenes that no recipe draws


def make_components(pipe: "Unclip", pictures: Iterable[Image.Image]) -> Path:
    """Embed pictures, and store the principal components with the checkpoint of `pipe`; returns their file.

    Raises RequestError for a model without an image tower, DataError for fewer than two pictures.
    """
    pipe.check_image_tower()
    waiting = iter(pictures)
    first = list(islice(waiting, BATCH))
    if len(first) < 2:
        raise DataError(f"{len(first)} pictures have no principal components; give more")
    batches = iter(lambda: list(islice(waiting, BATCH)), [])
    embeds = (pipe.embed_image(batch) for part in ([first], batches) for batch in part)
    return write_components(pipe.folder, principal_components(embeds))


def drawn_pictures(count: int, side: int, vocabulary: Collection[str]) -> Iterator[Image.Image]:
    """Scenes of the bundled model's domain, `side` pixels wide, of the nouns that a model was trained on."""
    options = SceneOptions(nouns=nouns_in(vocabulary))
    return (Image.fromarray(render(scene_at(SEED, i, options)[0], side)) for i in range(count))


def pictures_below(folder: Path, count: int) -> Iterator[Image.Image]:
    """At most `count` pictures of a folder and those below it, in the order of their names, as squares.

    Raises DataError for a folder without pictures, or one of them that cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    if not paths:
        raise DataError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)}); give a folder that does")
    return (squared(str(path), "crop")[0] for path in paths[:count])
