"""The sprite atlas: images of everyday objects, from which the training scenes are composed.

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

from unclip.errors import DataError, did_you_mean
from unclip.system.resources import bundled

CELL = 128
COLUMNS = 16


@dataclass(frozen=True)
class Noun:
    """The names of an object.

    Attributes:
        name: The canonical singular.
        plural: The canonical plural.
        codepoint: Hexadecimal code point of its emoji.
        synonyms: Other singulars.
        synonym_plurals: Their plurals, in the same order.
        bare: The names and synonyms that take no article ("grapes", "scissors").
    """

    name: str
    plural: str
    codepoint: str
    synonyms: tuple[str, ...] = ()
    synonym_plurals: tuple[str, ...] = ()
    bare: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sprites:
    """The nouns and their images.

    Attributes:
        nouns: Name -> Noun, in the order of the atlas.
        levels: Name -> the trimmed sprite at full size (longer side 120 px), at a half and at a quarter of it.
            Premultiplied ("RGBa"), so that resizing does not bleed the colour of hidden pixels into edges.
    """

    nouns: Mapping[str, Noun]
    levels: Mapping[str, tuple[Image.Image, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The nouns, in the order of the atlas."""
        return tuple(self.nouns)

    def image(self, name: str, longer_side: int) -> Image.Image:
        """Return a sprite as straight-alpha RGBA, its longer side ``longer_side`` px.

        Raises:
            DataError: there is no such noun.
        """
        if name not in self.levels:
            raise DataError(
                f"the sprite atlas has no noun {name!r}; {did_you_mean(name, self.levels)} "
                "(assets/sprites/sprites.json lists all)"
            )
        source = self.level(name, longer_side)
        full = self.levels[name][0].size
        scale = longer_side / max(full)
        size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
        return source.resize(size, Image.Resampling.BICUBIC).convert("RGBA")

    def level(self, name: str, longer_side: int) -> Image.Image:
        """Return the smallest level of a sprite with at least 1.5 times ``longer_side`` px, else the full size.

        It is small enough to resize quickly, and large enough that the box filter it was reduced with does not show.
        """
        levels = self.levels[name]
        return next((level for level in reversed(levels) if max(level.size) >= 1.5 * longer_side), levels[0])


@functools.cache
def load_nouns(folder: Path | None = None) -> Mapping[str, Noun]:
    """Return the nouns without their images: name -> Noun, in the order of the atlas.

    Args:
        folder: The folder of sprites.json; the bundled one by default.

    Raises:
        DataError: the list is missing or invalid.
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
        raise DataError(f"{path} is not a valid list of sprites ({error!r}): restore it from the repository") from error
    return MappingProxyType({noun.name: noun for noun in nouns})


@functools.cache
def load_sprites(folder: Path | None = None) -> Sprites:
    """Return the atlas. It is read once per process and takes about 15 MB of memory.

    Args:
        folder: The folder of sprites.json and atlas.webp; the bundled one by default.

    Raises:
        DataError: a file is missing or invalid, or the two do not belong together.
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
    width, height = COLUMNS * CELL, -(-len(nouns) // COLUMNS) * CELL
    if atlas.size != (width, height):
        size = f"{atlas.width}x{atlas.height}"
        raise DataError(f"{path} is {size} px, not {width}x{height} px for {len(nouns)} sprites: {fix}")
    levels = {}
    for i, name in enumerate(nouns):
        x, y = i % COLUMNS * CELL, i // COLUMNS * CELL
        cell = atlas.crop((x, y, x + CELL, y + CELL))
        full = cell.crop(cell.getchannel("A").getbbox()).convert("RGBa")
        levels[name] = (full, full.reduce(2), full.reduce(4))
    return Sprites(nouns=nouns, levels=MappingProxyType(levels))
