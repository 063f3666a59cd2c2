"""The sprites: drawings of everyday objects in several styles, from which the training scenes are composed.

Their sources and licences are in assets/sprites/README.md.
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
from unclip.stickers.drawings import Bitmap, Drawing, VectorDrawing
from unclip.system.resources import bundled

CELL = 128
COLUMNS = 16

STYLES = ("noto", "flat", "cartoon")
"""Noto Color Emoji (a bitmap atlas), Fluent Emoji flat and Twemoji (vector drawings)."""
DEFAULT_STYLE = "noto"
VECTOR_STYLES = ("flat", "cartoon")


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
        mirror: Whether its mirror image is right too; not that of a globe, a clock or a dollar sign.
        not_in: Styles whose drawing shows something else.
    """

    name: str
    plural: str
    codepoint: str
    synonyms: tuple[str, ...] = ()
    synonym_plurals: tuple[str, ...] = ()
    bare: frozenset[str] = frozenset()
    mirror: bool = True
    not_in: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sprites:
    """The nouns and their drawings.

    Attributes:
        nouns: Name -> Noun, in the order of the list.
        drawings: (name, style) -> Drawing.
    """

    nouns: Mapping[str, Noun]
    drawings: Mapping[tuple[str, str], Drawing]

    @property
    def names(self) -> tuple[str, ...]:
        """The nouns, in the order of the list."""
        return tuple(self.nouns)

    def has(self, name: str, style: str) -> bool:
        """Return whether there is a drawing of a noun in a style."""
        return (name, style) in self.drawings

    def drawing(self, name: str, style: str = DEFAULT_STYLE) -> Drawing:
        """Return the drawing of a noun.

        Raises:
            DataError: there is no such noun, or none in that style.
        """
        found = self.drawings.get((name, style))
        if found is not None:
            return found
        if name not in self.nouns:
            raise DataError(
                f"the sprites have no noun {name!r}; {did_you_mean(name, self.nouns)} "
                "(assets/sprites/sprites.json lists all)"
            )
        styles = [each for each in STYLES if self.has(name, each)]
        raise DataError(f"the noun {name!r} has no drawing in the style {style!r}, only in {', '.join(styles)}")

    def image(self, name: str, longer_side: int, style: str = DEFAULT_STYLE, mirrored: bool = False) -> Image.Image:
        """Return a sprite as straight-alpha RGBA, its longer side ``longer_side`` px.

        Raises:
            DataError: there is no such noun, or none in that style.
        """
        drawing = self.drawing(name, style)
        image = drawing.render(*drawing.scaled_size(longer_side)).convert("RGBA")
        return _mirror(image) if mirrored else image

    def premultiplied(
        self, name: str, size: tuple[int, int], style: str = DEFAULT_STYLE, mirrored: bool = False
    ) -> Image.Image:
        """Return a sprite stretched to ``size``, with premultiplied alpha ("RGBa"). Raises DataError as ``image``."""
        image = self.drawing(name, style).render(*size)
        image = image if image.mode == "RGBa" else image.convert("RGBa")
        return _mirror(image) if mirrored else image

    def part(
        self,
        name: str,
        size: tuple[int, int],
        box: tuple[int, int, int, int],
        style: str = DEFAULT_STYLE,
        mirrored: bool = False,
    ) -> Image.Image:
        """Return the part ``box`` (left, top, right, bottom) of a sprite as it is at ``size``: straight-alpha RGBA.

        Raises:
            DataError: there is no such noun, or none in that style.
        """
        left, top, right, bottom = box
        if mirrored:
            left, right = size[0] - right, size[0] - left
        image = self.drawing(name, style).render_part(size, (left, top, right, bottom)).convert("RGBA")
        return _mirror(image) if mirrored else image


def _mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@functools.cache
def load_nouns(folder: Path | None = None) -> Mapping[str, Noun]:
    """Return the nouns without their images: name -> Noun, in the order of the list.

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
                mirror=entry.get("mirror", True),
                not_in=frozenset(entry.get("not_in", ())),
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
    """Return the sprites of all styles. They are read once per process and take about 16 MB of memory.

    Args:
        folder: The folder of sprites.json, atlas.webp and the vector drawings; the bundled one by default.

    Raises:
        DataError: a file is missing or invalid, or does not belong to the list of nouns.
    """
    folder = bundled("assets", "sprites") if folder is None else folder
    nouns = load_nouns(folder)
    drawings: dict[tuple[str, str], Drawing] = {}
    for name, bitmap in _read_atlas(folder / "atlas.webp", tuple(nouns)).items():
        drawings[name, DEFAULT_STYLE] = bitmap
    for style in VECTOR_STYLES:
        names = [noun.name for noun in nouns.values() if style not in noun.not_in]
        for name, drawing in _read_vectors(folder / f"{style}.json", names).items():
            drawings[name, style] = drawing
    return Sprites(nouns, MappingProxyType(drawings))


def _read_atlas(path: Path, names: tuple[str, ...]) -> dict[str, Bitmap]:
    fix = "rebuild it with assets/sprites/build_sprites.py"
    try:
        with Image.open(path, formats=("WEBP",)) as image:
            atlas = image.convert("RGBA")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): {fix}") from error
    width, height = COLUMNS * CELL, -(-len(names) // COLUMNS) * CELL
    if atlas.size != (width, height):
        size = f"{atlas.width}x{atlas.height}"
        raise DataError(f"{path} is {size} px, not {width}x{height} px for {len(names)} sprites: {fix}")
    found = {}
    for i, name in enumerate(names):
        x, y = i % COLUMNS * CELL, i // COLUMNS * CELL
        cell = atlas.crop((x, y, x + CELL, y + CELL))
        full = cell.crop(cell.getchannel("A").getbbox()).convert("RGBa")
        found[name] = Bitmap((full, full.reduce(2), full.reduce(4)))
    return found


def _read_vectors(path: Path, names: list[str]) -> dict[str, VectorDrawing]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = {}
        for name in names:
            left, top, width, height = entries[name]["box"]
            found[name] = VectorDrawing((left, top, width, height), entries[name]["body"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "rebuild it with assets/sprites/build_vector_sprites.py"
        raise DataError(f"{path} cannot be used ({error!r}): {fix}") from error
    return found
