"""The sprite atlas: pictures of everyday objects, from which the training scenes are composed.

The sprites are a derived work of Noto Color Emoji (SIL OFL 1.1; see assets/sprites/README.md).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from unclip.errors import DataError
from unclip.system.resources import bundled

CELL = 128
COLUMNS = 16
PIXELS = 120  # longer side of every object in the atlas


@dataclass(frozen=True)
class Noun:
    """What an object may be called.

    Attributes:
        name: The canonical singular.
        plural: Its plural.
        synonyms: Other singulars, with their plurals in the same order in ``synonym_plurals``.
        bare: Those of the names that take no article ("grapes", "scissors").
    """

    name: str
    plural: str
    codepoint: str
    synonyms: tuple[str, ...] = ()
    synonym_plurals: tuple[str, ...] = ()
    bare: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sprites:
    """The nouns and their pictures.

    Attributes:
        nouns: Name -> Noun, in the order of the atlas.
        levels: Name -> the trimmed picture at full size (longer side 120 px), at half and at a quarter of it.
            Premultiplied ("RGBa"), so that resizing does not bleed the colour of hidden pixels into edges.
    """

    nouns: Mapping[str, Noun]
    levels: Mapping[str, tuple[Image.Image, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.nouns)

    def picture(self, name: str, longer_side: int) -> Image.Image:
        """The object as straight-alpha RGBA, its longer side ``longer_side`` px.

        Raises:
            DataError: no object of that name.
        """
        if name not in self.levels:
            raise DataError(f"no sprite is called {name!r}: see assets/sprites/sprites.json for those there are")
        levels = self.levels[name]
        # The smallest level that still has 1.5 times the pixels wanted: small enough to be quick,
        # large enough that the box filter it was reduced with is not seen.
        source = next((level for level in reversed(levels) if max(level.size) >= 1.5 * longer_side), levels[0])
        full = levels[0].size
        scale = longer_side / max(full)
        size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
        return source.resize(size, Image.Resampling.BICUBIC).convert("RGBA")


@functools.cache
def load_nouns(folder: Path | None = None) -> Mapping[str, Noun]:
    """The nouns alone, without the pictures: name -> Noun, in the order of the atlas.

    Raises:
        DataError: the list is missing, or is not what it should be.
    """
    path = (bundled("assets", "sprites") if folder is None else folder) / "sprites.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        nouns = [
            Noun(
                name=entry["name"],
                plural=entry["plural"],
                codepoint=entry["codepoint"],
                synonyms=tuple(entry["synonyms"]),
                synonym_plurals=tuple(entry.get("synonym_plurals", ())),
                bare=frozenset(entry.get("bare", ())),
            )
            for entry in entries
        ]
    except FileNotFoundError:
        raise DataError(f"{path} is missing: restore it from the repository") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a list of sprites ({error!r}): restore it from the repository") from error
    return MappingProxyType({noun.name: noun for noun in nouns})


@functools.cache
def load_sprites(folder: Path | None = None) -> Sprites:
    """Read the atlas once a process; about 15 MB of memory.

    Raises:
        DataError: a file is missing, or atlas and list do not belong together.
    """
    folder = bundled("assets", "sprites") if folder is None else folder
    nouns = load_nouns(folder)
    path = folder / "atlas.webp"
    fix = "rebuild it with assets/sprites/build_sprites.py"
    try:
        with Image.open(path, formats=("WEBP",)) as image:
            atlas = image.convert("RGBA")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): {fix}") from error
    rows = -(-len(nouns) // COLUMNS)
    if atlas.size != (COLUMNS * CELL, rows * CELL):
        raise DataError(f"{path} is {atlas.width}x{atlas.height} px, which {len(nouns)} sprites do not fill: {fix}")
    levels = {}
    for i, name in enumerate(nouns):
        x, y = i % COLUMNS * CELL, i // COLUMNS * CELL
        cell = atlas.crop((x, y, x + CELL, y + CELL))
        full = cell.crop(cell.getchannel("A").getbbox()).convert("RGBa")
        levels[name] = (full, full.reduce(2), full.reduce(4))
    return Sprites(nouns=nouns, levels=MappingProxyType(levels))
