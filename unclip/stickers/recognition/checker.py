"""What is on a picture of the training domain, found without any network: is it what was asked for?

A picture is judged at 64 px. Its background is the nearest of the twelve named colours to its border. What differs
from the background is cut into pieces (``cutting.py``), each like some sprite of the atlas (``matching.py``). It is the
measure of the bundled model that shares nothing with it: CLIP, which the model is built on, has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unclip.stickers.recognition.matching import VISIBLE, Match, bounds, soften, templates_on, visible
from unclip.stickers.recognition.segmentation import SPECK, Cutter, inside
from unclip.stickers.scene import BACKGROUNDS, Scene

SIDE = 64  # pictures are judged at this size, the decoder's
ACCEPTED = 0.55  # least score of an object that counts as recognised
TIE = 0.03  # sprites whose score is this close to the best cannot be told apart
FAR_BACKGROUND = 40.0  # RGB distance (0..255) beyond which a border has none of the named colours
_UNEVEN = 0.12  # the background's own unevenness is believed up to here


@dataclass(frozen=True)
class Background:
    """The border of a picture.

    Attributes:
        name: The nearest of BACKGROUNDS.
        distance: How far from it, RGB of 0 to 255, Euclidean.
        colour: The border's own median colour.
    """

    name: str
    distance: float
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Found:
    """An object of a picture.

    Attributes:
        name: The sprite most like it.
        x, y: Its centre, as fractions of the picture.
        size: Its longer side, as a fraction of the picture.
        score: How like the sprite it is, at most 1.
        alike: All sprites that are as like it, within TIE: the best first.
    """

    name: str
    x: float
    y: float
    size: float
    score: float
    alike: tuple[str, ...]

    def is_a(self, name: str) -> bool:
        """Whether it passes for the object called ``name``."""
        return self.score >= ACCEPTED and name in self.alike


@dataclass(frozen=True)
class Seen:
    """All that is told of a picture before anything is asked of it: its background, and its objects."""

    background: Background
    found: tuple[Found, ...]


@dataclass(frozen=True)
class Verdict:
    """What of a request a picture shows; None where nothing was asked.

    Attributes:
        background: It has the named colour.
        objects: The objects asked for are there, and no others.
        count: For a count: there are so many of them.
        relation: For a pair: they are so placed.
        size: For a single object said to be small or large: it is.
        found: What was seen.
    """

    background: bool
    objects: bool
    count: bool | None
    relation: bool | None
    size: bool | None
    found: tuple[Found, ...]

    @property
    def all(self) -> bool:
        """Everything asked for is as asked."""
        return all(part is not False for part in (self.background, self.objects, self.count, self.relation, self.size))


def background_colour(image: Image.Image | np.ndarray) -> Background:
    """The named colour nearest to the median of a picture's border; objects may cover less than half of it."""
    return _background(_pixels(image))


def find_objects(image: Image.Image | np.ndarray, k_max: int = 4) -> list[Found]:
    """The objects of a picture, the largest piece of foreground first, at most ``k_max`` of them.

    Every piece is given the name of the sprite most like it, however little that is: see ``Found.is_a``.

    Args:
        image: A square picture of at least 64 px, or h w 3 uint8, RGB.
    """
    pixels = _pixels(image)
    return _find(pixels, _background(pixels), k_max)


def check(image: Image.Image | np.ndarray, scene: Scene) -> Verdict:
    """Compare a picture with what was asked for.

    Args:
        image: As for ``find_objects``.
        scene: The request. Of its objects only the names count, and where one is said to be of the other.
    """
    return judge(see(image), scene)


def see(image: Image.Image | np.ndarray) -> Seen:
    """The background and the objects of a picture, which takes the time; argument as for ``find_objects``."""
    pixels = _pixels(image)
    background = _background(pixels)
    return Seen(background, tuple(_find(pixels, background, k_max=6)))


def judge(seen: Seen, scene: Scene) -> Verdict:
    """Compare what a picture shows with what was asked for; ``scene`` as for ``check``."""
    background, found = seen.background, seen.found
    named = background.name == scene.background and background.distance <= FAR_BACKGROUND
    name = scene.objects[0].name
    count = relation = size = None
    if scene.kind == "pair":
        pair = _assigned(found, name, scene.objects[1].name)
        objects = pair is not None
        relation = objects and _related(pair[0], scene.relation, pair[1])
    elif scene.kind == "count":
        objects = len(found) > 0 and all(one.is_a(name) for one in found)
        count = sum(one.is_a(name) for one in found) == scene.count
    else:
        objects = len(found) == 1 and found[0].is_a(name)
        if scene.size_word is not None:
            size = objects and (found[0].size < 0.45 if scene.size_word == "small" else found[0].size > 0.7)
    return Verdict(named, objects, count, relation, size, found)


def _assigned(found: Sequence[Found], first: str, second: str) -> tuple[Found, Found] | None:
    if len(found) != 2:
        return None
    for one, other in (found, found[::-1]):
        if one.is_a(first) and other.is_a(second):
            return one, other
    return None


def _related(one: Found, relation: str, other: Found) -> bool:
    right, down = one.x - other.x, one.y - other.y
    beside, stacked = abs(right) > abs(down), abs(down) > abs(right)
    return {
        "left of": beside and right < 0,
        "right of": beside and right > 0,
        "above": stacked and down < 0,
        "below": stacked and down > 0,
        "next to": beside,
    }[relation]


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """The picture at SIDE px: h w 3, float32, 0 to 255."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)  # the mean over each area
    return np.asarray(image, np.float32)


def _background(pixels: np.ndarray) -> Background:
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    border = np.concatenate([border, pixels[2:-2, :2].reshape(-1, 3), pixels[2:-2, -2:].reshape(-1, 3)])
    colour = np.median(border, axis=0)
    distances = {name: float(np.linalg.norm(colour - np.array(rgb))) for name, rgb in BACKGROUNDS.items()}
    name = min(distances, key=distances.__getitem__)
    return Background(name, distances[name], tuple(map(float, colour)))


def _find(pixels: np.ndarray, background: Background, k_max: int) -> list[Found]:
    difference = soften((pixels - np.array(background.colour, np.float32)) / 255)
    mask = visible(difference, _threshold(difference))
    difference *= mask[..., None]
    box = bounds(mask)
    if box is None or mask.sum() < SPECK:
        return []
    cutter = Cutter(difference, mask, templates_on(background.name))
    pieces = sorted(cutter.pieces(box), key=lambda piece: -mask[inside(piece)].sum())
    return [_found(cutter.matches(piece)) for piece in pieces[:k_max]]


def _threshold(difference: np.ndarray) -> float:
    """What is visible, on a background that a model may have left uneven."""
    border = np.concatenate([difference[[0, -1]], difference[:, [0, -1]].transpose(1, 0, 2)])  # 4 n 3
    return min(max(VISIBLE, 4 * float(np.median(np.linalg.norm(border, axis=-1)))), _UNEVEN)


def _found(ranked: Sequence[Match]) -> Found:
    best = ranked[0]
    alike = tuple(match.name for match in ranked if match.score >= best.score - TIE)
    size = max(best.width, best.height) / SIDE
    return Found(best.name, best.x / SIDE, best.y / SIDE, size, best.score, alike)
