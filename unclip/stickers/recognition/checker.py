"""Checks whether an image shows a scene of the training domain, without any network.

The image is judged at 64 px. Its background is the named colour nearest to its border. The foreground, all that differs
from the background, is split into objects (``segmentation.py``), each matched with the sprites of a style
(``matching.py``). The check shares nothing with the bundled model: CLIP, which the model builds on, takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unclip.stickers.recognition.matching import (
    MIN_CONTRAST,
    Match,
    bounding_box,
    foreground_mask,
    load_templates,
    soften,
)
from unclip.stickers.recognition.segmentation import MIN_AREA, Segmenter, box_slices
from unclip.stickers.scene import BACKGROUNDS, Scene
from unclip.stickers.sprites import DEFAULT_STYLE

SIDE = 64  # px; images are judged at this size, the decoder's
MIN_SCORE = 0.55  # lowest score of a recognised object
TIE_MARGIN = 0.03  # sprites whose scores differ by less count as tied
MAX_BACKGROUND_DISTANCE = 40.0  # RGB distance (0..255) beyond which a border has none of the named colours
MAX_OBJECTS = 6  # objects detected before a judgement; a scene has at most four
_MAX_CONTRAST = 0.12  # upper bound of the foreground threshold on uneven backgrounds
_SMALL_BELOW, _LARGE_ABOVE = 0.45, 0.7  # longer side of an object, as a fraction of the image


@dataclass(frozen=True)
class Background:
    """The border of an image.

    Attributes:
        name: The nearest of BACKGROUNDS.
        distance: Euclidean RGB distance (0..255) from it.
        colour: Median colour of the border.
    """

    name: str
    distance: float
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class DetectedObject:
    """An object of an image.

    Attributes:
        name: The most similar sprite.
        x, y: Its centre, as fractions of the image.
        size: Its longer side, as a fraction of the image.
        score: Similarity to the sprite, at most 1.
        candidates: All sprites within TIE_MARGIN of that score, best first.
    """

    name: str
    x: float
    y: float
    size: float
    score: float
    candidates: tuple[str, ...]

    def is_a(self, name: str) -> bool:
        """Return whether the object is recognised as ``name``."""
        return self.score >= MIN_SCORE and name in self.candidates


@dataclass(frozen=True)
class Detection:
    """The background and the objects of an image, independent of any scene."""

    background: Background
    objects: tuple[DetectedObject, ...]


@dataclass(frozen=True)
class Verdict:
    """The comparison of an image with a scene; None for a property the scene does not have.

    Attributes:
        background: The background has the scene's colour.
        objects: The scene's objects are there, and no others.
        count: For a count: their number is right.
        relation: For a pair: their positions are right.
        size: For a single object with a size word: its size is right.
        detected: The objects of the image.
    """

    background: bool
    objects: bool
    count: bool | None
    relation: bool | None
    size: bool | None
    detected: tuple[DetectedObject, ...]

    @property
    def all(self) -> bool:
        """Whether every property is right."""
        return all(part is not False for part in (self.background, self.objects, self.count, self.relation, self.size))


def find_background(image: Image.Image | np.ndarray) -> Background:
    """Return the named colour nearest to the median of an image's border; objects may cover less than half of it.

    Args:
        image: A square image of at least 64 px, or RGB, h w 3, uint8.
    """
    return _find_background(_to_pixels(image))


def find_objects(
    image: Image.Image | np.ndarray, max_objects: int = 4, style: str = DEFAULT_STYLE
) -> list[DetectedObject]:
    """Return the objects of an image, the largest first, at most ``max_objects``.

    Every object is named after its most similar sprite, however low the score: see ``DetectedObject.is_a``.

    Args:
        image: A square image of at least 64 px, or RGB, h w 3, uint8.
        max_objects: Smaller objects beyond this number are dropped.
        style: One of sprites.STYLES, with whose sprites the objects are compared.
    """
    pixels = _to_pixels(image)
    return _find_objects(pixels, _find_background(pixels), max_objects, style)


def check(image: Image.Image | np.ndarray, scene: Scene) -> Verdict:
    """Compare an image with a scene.

    Args:
        image: A square image of at least 64 px, or RGB, h w 3, uint8.
        scene: The requested scene. Of its objects only the names and the relation count, not the exact positions.
            They are compared with the sprites of its style.
    """
    return judge(detect(image, scene.style), scene)


def detect(image: Image.Image | np.ndarray, style: str = DEFAULT_STYLE) -> Detection:
    """Return the background and the objects of an image: the slow part of ``check``."""
    pixels = _to_pixels(image)
    background = _find_background(pixels)
    return Detection(background, tuple(_find_objects(pixels, background, MAX_OBJECTS, style)))


def judge(detection: Detection, scene: Scene) -> Verdict:
    """Compare a detection with a scene: the fast part of ``check``."""
    detected = detection.objects
    name = scene.objects[0].name
    count = relation = size = None
    if scene.relation is not None:
        pair = _match_pair(detected, name, scene.objects[1].name)
        objects = pair is not None
        relation = pair is not None and _has_relation(pair[0], scene.relation, pair[1])
    elif scene.count is not None:
        objects = len(detected) > 0 and all(each.is_a(name) for each in detected)
        count = sum(each.is_a(name) for each in detected) == scene.count
    else:
        objects = len(detected) == 1 and detected[0].is_a(name)
        if scene.size_word is not None:
            small = scene.size_word == "small"
            size = objects and (detected[0].size < _SMALL_BELOW if small else detected[0].size > _LARGE_ABOVE)
    background = detection.background
    background_is_right = background.name == scene.background and background.distance <= MAX_BACKGROUND_DISTANCE
    return Verdict(background_is_right, objects, count, relation, size, detected)


def _match_pair(
    detected: Sequence[DetectedObject], first: str, second: str
) -> tuple[DetectedObject, DetectedObject] | None:
    if len(detected) != 2:
        return None
    for a, b in (detected, detected[::-1]):
        if a.is_a(first) and b.is_a(second):
            return a, b
    return None


def _has_relation(first: DetectedObject, relation: str, second: DetectedObject) -> bool:
    right, down = first.x - second.x, first.y - second.y
    beside, stacked = abs(right) > abs(down), abs(down) > abs(right)
    return {
        "left of": beside and right < 0,
        "right of": beside and right > 0,
        "above": stacked and down < 0,
        "below": stacked and down > 0,
        "next to": beside,
    }[relation]


def _to_pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return the image at SIDE px: h w 3, float32, 0 to 255."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)  # the mean of each area
    return np.asarray(image, np.float32)


def _find_background(pixels: np.ndarray) -> Background:
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    border = np.concatenate([border, pixels[2:-2, :2].reshape(-1, 3), pixels[2:-2, -2:].reshape(-1, 3)])
    red, green, blue = np.median(border, axis=0).tolist()
    colour = (red, green, blue)
    distances = {name: float(np.linalg.norm(np.array(colour) - np.array(rgb))) for name, rgb in BACKGROUNDS.items()}
    name = min(distances, key=distances.__getitem__)
    return Background(name, distances[name], colour)


def _find_objects(pixels: np.ndarray, background: Background, max_objects: int, style: str) -> list[DetectedObject]:
    difference = soften((pixels - np.array(background.colour, np.float32)) / 255)
    mask = foreground_mask(difference, _foreground_threshold(difference))
    difference *= mask[..., None]
    box = bounding_box(mask)
    if box is None or mask.sum() < MIN_AREA:
        return []
    segmenter = Segmenter(difference, mask, load_templates(background.name, style))
    pieces = sorted(segmenter.split(box), key=lambda piece: -mask[box_slices(piece)].sum())
    return [_to_object(segmenter.match(piece)) for piece in pieces[:max_objects]]


def _foreground_threshold(difference: np.ndarray) -> float:
    """Return the contrast of the foreground; higher where the background is uneven, as generated ones can be."""
    border = np.concatenate([difference[[0, -1]], difference[:, [0, -1]].transpose(1, 0, 2)])  # 4 n 3
    unevenness = float(np.median(np.linalg.norm(border, axis=-1)))
    return min(max(MIN_CONTRAST, 4 * unevenness), _MAX_CONTRAST)


def _to_object(matches: Sequence[Match]) -> DetectedObject:
    best = matches[0]
    candidates = tuple(match.name for match in matches if match.score >= best.score - TIE_MARGIN)
    size = max(best.width, best.height) / SIDE
    return DetectedObject(best.name, best.x / SIDE, best.y / SIDE, size, best.score, candidates)
