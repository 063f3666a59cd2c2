"""A scene: its background and its objects, before rendering."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from unclip.models.layout import layout_vector
from unclip.stickers.sprites import DEFAULT_STYLE

# Name -> RGB, 0 to 255.
BACKGROUNDS = MappingProxyType(
    {
        "white": (250, 250, 248),
        "black": (24, 24, 28),
        "grey": (148, 152, 158),
        "red": (214, 64, 62),
        "orange": (245, 152, 66),
        "yellow": (250, 220, 96),
        "green": (92, 172, 96),
        "blue": (74, 122, 208),
        "purple": (142, 92, 186),
        "pink": (246, 164, 196),
        "brown": (132, 90, 62),
        "turquoise": (72, 198, 196),
    }
)

RELATIONS = ("left of", "right of", "above", "below", "next to")

SIZE_WORDS = ("small", "large")

COUNTS = (2, 3, 4)


@dataclass(frozen=True)
class PlacedObject:
    """An object on the canvas. All lengths are fractions of the canvas.

    Attributes:
        name: A noun of the sprites.
        x, y: Its centre.
        size: The longer side of its sprite.
        mirrored: Whether its mirror image is shown.
    """

    name: str
    x: float
    y: float
    size: float
    mirrored: bool = False


@dataclass(frozen=True)
class Layout:
    """What a caption leaves open about a scene's objects; it is the same for all of them.

    Attributes:
        mirrored: Whether objects are shown as their mirror images, where these are right too.
        dx, dy: Grid steps from the middles of their cells, as far as the cells have room.
        resize: -1, 0 or 1: grid steps by which objects are larger than usual; small ones are never larger.
        arrangement: 0, 1 or 2: which of the arrangements of a count, where there are so many.
    """

    mirrored: bool = False
    dx: int = 0
    dy: int = 0
    resize: int = 0
    arrangement: int = 0

    def vector(self) -> tuple[float, ...]:
        """The layout as a decoder's conditioning (`models.layout`)."""
        return layout_vector(self.mirrored, self.dx, self.dy, self.resize, self.arrangement)


@dataclass(frozen=True)
class Scene:
    """The content of one image.

    Attributes:
        objects: The objects; they never overlap.
        background: One of BACKGROUNDS.
        kind: "single", "pair" or "count".
        relation: For a pair, one of RELATIONS: the first object is ``relation`` the second. Otherwise None.
        count: For a count, one of COUNTS. Otherwise None.
        size_word: For a single object, one of SIZE_WORDS, or None if captions do not mention its size.
        style: One of sprites.STYLES, of all objects.
        layout: Of a scene whose objects follow one; None if each was placed on its own.
    """

    objects: tuple[PlacedObject, ...]
    background: str
    kind: str
    relation: str | None = None
    count: int | None = None
    size_word: str | None = None
    style: str = DEFAULT_STYLE
    layout: Layout | None = None
