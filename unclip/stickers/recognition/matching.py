"""Matches a piece of an image with the sprites of a style.

First, the piece is resized to a coarse grid and compared with all sprites on that background by one matrix
product. Then the best are rendered at the piece's size and slid over it, at several scales. All comparisons use
the difference from the background: areas empty in both cost nothing, and parts of a sprite that the background hides
(a white cloud on white) are not expected.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from unclip.stickers.scene import BACKGROUNDS
from unclip.stickers.sprites import DEFAULT_STYLE, STYLES, VECTOR_STYLES, load_sprites

MIN_CONTRAST = 0.05  # distance of a foreground pixel from the background (RGB in 0..1, Euclidean)
_SHORTLIST = 12  # sprites compared in the second step; twice as many with mirror images
_FINALISTS = 4  # of these, sprites compared at other scales too
_MAX_BEHIND = 0.2  # a sprite further behind the best is not compared at other scales
_MIN_SCORE = 0.5  # nor is one with a lower score
_GRID = 20  # cells to a side of the coarse grid
_COARSE_SIDE = 48  # px; longer side of the sprites rendered for the first step
_MAX_SHIFT = 2  # px to each side
_SCALES = (0.925, 0.96, 1.04, 1.08)
_MAX_STRETCH = 1.08  # a generated object may be too wide or too tall by this factor
_DETAIL_WEIGHT = 0.5  # weight of the detail inside the outline; the rest is for the outline and its colour
_FLAT_CONTRAST = 0.03  # an interior with less contrast counts as flat, so that noise is not compared with noise

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are exclusive


@dataclass(frozen=True)
class Match:
    """A sprite placed over a piece of an image.

    Attributes:
        name: The sprite.
        score: 1 for identical, about 0 for unrelated content.
        x, y: Centre of the sprite, in pixels.
        width, height: Size of the sprite, in pixels.
    """

    name: str
    score: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Templates:
    """All sprites of a style on one background; of a style that scenes mirror, their mirror images too.

    Attributes:
        background: One of BACKGROUNDS.
        style: One of sprites.STYLES.
        names: The sprites that are visible on it.
        mirrored: Of each, whether it is the mirror image.
        features: n f, float32: difference of the visible part from the background, resized to the coarse grid.
        energy: n, float32: squared norms of the features.
        shapes: n 2: width and height of the visible part, relative to the sprite's longer side.
        offsets: n 2: vector from the centre of the visible part to the sprite's centre, in the same unit.
    """

    background: str
    style: str
    names: tuple[str, ...]
    mirrored: tuple[bool, ...]
    features: np.ndarray
    energy: np.ndarray
    shapes: np.ndarray
    offsets: np.ndarray


def soften(image: np.ndarray) -> np.ndarray:
    """Return h w c blurred with the binomial filter [1 2 1] / 4, with replicated edges.

    It makes the comparison less sensitive to shifts of half a pixel, slight blur and noise.
    """
    return _blur(np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge"))


def foreground_mask(difference: np.ndarray, threshold: float = MIN_CONTRAST) -> np.ndarray:
    """Return the foreground, h w, bool, of an image given as its difference from the background, h w 3."""
    return np.einsum("hwc,hwc->hw", difference, difference) > threshold**2


def bounding_box(mask: np.ndarray) -> Box | None:
    """Return the bounding box of a mask, h w; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def coarse_scores(difference: np.ndarray, box: Box, templates: Templates) -> np.ndarray:
    """First step: return the similarity of the content of a box to every template: n, at most 1.

    Args:
        difference: h w 3, float32: the softened image minus its background; zero where other objects are.
        box: The piece to compare.
        templates: The sprites on that background.
    """
    left, top, right, bottom = box
    feature = _to_grid(difference[top:bottom, left:right])
    similarity = 2 * (templates.features @ feature) / (templates.energy + feature @ feature + 1e-9)
    width, height = _unsoftened_length(right - left), _unsoftened_length(bottom - top)
    distortion = np.abs(np.log(templates.shapes[:, 0] / templates.shapes[:, 1] * height / width))
    return similarity - 0.5 * np.maximum(0, distortion - 0.1)  # one pixel of a small object distorts it by 0.05


def match_sprites(difference: np.ndarray, box: Box, templates: Templates) -> list[Match]:
    """Second step: return the sprites most similar to the content of a box, best first.

    The arguments are as in ``coarse_scores``.
    """
    length = _SHORTLIST * (2 if any(templates.mirrored) else 1)
    shortlist = np.argsort(-coarse_scores(difference, box, templates), kind="stable")[:length].tolist()
    piece = _Piece(difference, float(np.vdot(difference, difference)), box)
    matches = [(i, _align(piece, templates, i, 1.0)) for i in shortlist]
    matches.sort(key=lambda pair: -pair[1].score)
    least = max(_MIN_SCORE, matches[0][1].score - _MAX_BEHIND)
    finalists = [pair for pair in matches[:_FINALISTS] if pair[1].score >= least]
    found = [match for _, match in matches[len(finalists) :]]
    for i, match in finalists:
        rescaled = [_align(piece, templates, i, scale) for scale in _SCALES]
        found.append(max([match, *rescaled], key=lambda match: match.score))
    return sorted(found, key=lambda match: -match.score)


@functools.lru_cache(maxsize=len(BACKGROUNDS) * len(STYLES))
def load_templates(background: str, style: str = DEFAULT_STYLE) -> Templates:
    """Return the templates of a style for one of BACKGROUNDS. They are made once per process, in about 0.1 s."""
    sprites = load_sprites()
    sides = (False, True) if style in VECTOR_STYLES else (False,)  # only these have been mirrored in scenes
    rows = []
    for name, mirrored in itertools.product(sprites.names, sides):
        if not sprites.has(name, style) or (mirrored and not sprites.nouns[name].mirror):
            continue
        width, height = sprites.drawing(name, style).proportions
        width, height = max(1, round(width * _COARSE_SIDE)), max(1, round(height * _COARSE_SIDE))
        template, _ = _render_template(name, background, width, height, style, mirrored)
        box = bounding_box(foreground_mask(template))
        if box is None:
            continue
        left, top, right, bottom = box
        shape = _unsoftened_length(right - left), _unsoftened_length(bottom - top)
        offset = (template.shape[1] - left - right) / 2, (template.shape[0] - top - bottom) / 2
        rows.append((name, mirrored, _to_grid(template[top:bottom, left:right]), shape, offset))
    names, mirrored, features, shapes, offsets = zip(*rows, strict=True)
    features = np.stack(features)
    energy = np.einsum("nf,nf->n", features, features)
    shapes, offsets = np.array(shapes) / _COARSE_SIDE, np.array(offsets) / _COARSE_SIDE
    return Templates(background, style, names, mirrored, features, energy, shapes, offsets)


@dataclass(frozen=True)
class _Piece:
    """A box of an image: the image's difference from its background, h w 3, and its squared norm."""

    difference: np.ndarray
    energy: float
    box: Box


def _align(piece: _Piece, templates: Templates, index: int, scale: float) -> Match:
    """Return the best position of one sprite, rendered at `scale` times the size that fits the piece."""
    left, top, right, bottom = piece.box
    name, style, mirrored = templates.names[index], templates.style, templates.mirrored[index]
    horizontal = _unsoftened_length(right - left) / templates.shapes[index, 0]  # longer side, judged by the width
    vertical = _unsoftened_length(bottom - top) / templates.shapes[index, 1]  # and by the height
    longer = math.sqrt(horizontal * vertical) * scale
    stretch = min(max(horizontal / vertical, 1 / _MAX_STRETCH), _MAX_STRETCH) ** 0.5
    limit = 1.25 * max(piece.difference.shape[:2])
    relative_width, relative_height = load_sprites().drawing(name, style).proportions
    width = max(2, round(min(limit, longer * stretch * relative_width)))
    height = max(2, round(min(limit, longer / stretch * relative_height)))
    template, mask = _render_template(name, templates.background, width, height, style, mirrored)
    h, w = mask.shape
    x = (left + right) / 2 + templates.offsets[index, 0] * longer
    y = (top + bottom) / 2 + templates.offsets[index, 1] * longer
    column, row = round(x - w / 2) - _MAX_SHIFT, round(y - h / 2) - _MAX_SHIFT
    around = _crop(piece.difference, row, column, h + 2 * _MAX_SHIFT, w + 2 * _MAX_SHIFT)
    windows = sliding_window_view(around, (h, w), axis=(0, 1))  # 5 5 c h w
    products = np.einsum("ijchw,hwc->ij", windows, template, optimize=["einsum_path", (0, 1)])
    i, j = map(int, np.unravel_index(int(products.argmax()), products.shape))
    outline = 2 * float(products[i, j]) / (piece.energy + float(np.vdot(template, template)) + 1e-9)
    interior = around[i : i + h, j : j + w][mask]
    detail = _compare_detail(interior, template[mask]) if mask.any() else outline
    score = (1 - _DETAIL_WEIGHT) * outline + _DETAIL_WEIGHT * detail
    return Match(name, score, column + j + w / 2, row + i + h / 2, width, height)


def _compare_detail(seen: np.ndarray, expected: np.ndarray) -> float:
    """Return the similarity of two sets of pixels, n 3, each minus its mean colour; two flat ones are similar."""
    seen, expected = seen - seen.mean(axis=0), expected - expected.mean(axis=0)
    flat = len(seen) * _FLAT_CONTRAST**2
    return float((2 * np.vdot(seen, expected) + flat) / (np.vdot(seen, seen) + np.vdot(expected, expected) + flat))


@functools.lru_cache(maxsize=4096)  # about 40 MB
def _render_template(
    name: str, background: str, width: int, height: int, style: str, mirrored: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a sprite minus its background, softened, with a border of 1 px (h w 3), and its visible part (h w)."""
    rgba = np.asarray(load_sprites().premultiplied(name, (width, height), style, mirrored), np.float32) / 255
    colour = np.array(BACKGROUNDS[background], np.float32) / 255
    padded = np.zeros((height + 4, width + 4, 3), np.float32)
    padded[2:-2, 2:-2] = rgba[..., :3] - rgba[..., 3:] * colour
    template = _blur(padded)
    return template, foreground_mask(template)


def _blur(image: np.ndarray) -> np.ndarray:
    """Return h w c blurred, without its outermost pixels."""
    rows = image[:-2] + 2 * image[1:-1] + image[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def _unsoftened_length(pixels: int) -> int:
    """Return a length in a softened image without the pixel that softening adds at each end."""
    return max(1, pixels - 2)


def _crop(image: np.ndarray, row: int, column: int, height: int, width: int) -> np.ndarray:
    """Return a crop of h w c, zero outside the image."""
    crop = np.zeros((height, width, image.shape[2]), np.float32)
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, image.shape[0]), min(column + width, image.shape[1])
    if top < bottom and left < right:
        crop[top - row : bottom - row, left - column : right - column] = image[top:bottom, left:right]
    return crop


def _to_grid(piece: np.ndarray) -> np.ndarray:
    """Return h w 3 resized to the coarse grid by area and flattened: f, float32."""
    vertical, horizontal = _grid_weights(piece.shape[0]), _grid_weights(piece.shape[1])
    rows = np.tensordot(vertical, piece, axes=(1, 0))  # g w c
    return np.tensordot(rows, horizontal, axes=(1, 1)).ravel()  # g c g


@functools.lru_cache(maxsize=128)
def _grid_weights(n: int) -> np.ndarray:
    """Return the weights, _GRID n, of n pixels in each cell of the coarse grid."""
    edges = np.linspace(0, n, _GRID + 1)[:, None]
    pixels = np.arange(n)[None]
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.maximum(0, overlap) * (_GRID / n)).astype(np.float32)
