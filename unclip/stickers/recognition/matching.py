"""Which sprite is it? Template matching of a piece of a picture with every sprite of the atlas.

Two steps. First the piece, stretched to a small grid, is compared with all sprites as they show on that background,
stretched alike: one matrix product. Then the likeliest are drawn at the piece's size and slid over it, a little larger
and smaller too. Everything is compared as a difference from the background, so what is empty in both costs nothing,
and a sprite's part that the background swallows (a white cloud on white) is not asked for.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from unclip.stickers.scene import BACKGROUNDS
from unclip.stickers.sprites import load_sprites

VISIBLE = 0.05  # a pixel this far from the background (RGB in 0..1, Euclidean) is of an object
_SHORTLIST = 12  # sprites that are drawn and slid
_FINALISTS = 4  # of these, those tried at other scales
_BEHIND = 0.2  # a sprite this far behind the best does not catch up at another scale
_HOPELESS = 0.5  # nor does one of so low a score become an object
_GRID = 20  # the small grid of the first step
_DRAWN = 48  # px at which sprites are drawn for the first step
_SHIFT = 2  # px to each side
_SCALES = (0.925, 0.96, 1.04, 1.08)
_STRETCH = 1.08  # a generated object may be this much too wide or too tall
_DETAIL = 0.5  # weight of what is inside the outline, against the outline and its colour
_FLAT = 0.03  # contrast below which the inside of an outline is flat: noise then is not compared with noise

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are past the end


@dataclass(frozen=True)
class Match:
    """A sprite laid over a piece of a picture.

    Attributes:
        name: Which sprite.
        score: 1 for a perfect likeness, about 0 for none.
        x, y, width, height: Its centre and its size, in pixels.
    """

    name: str
    score: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Templates:
    """All sprites as they show on one background.

    Attributes:
        background: One of BACKGROUNDS.
        names: The sprites that show at all.
        features: n f, float32: the visible part stretched to the small grid, as a difference from the background.
        energy: n, float32: squared length of each.
        shapes: n 2: width and height of the visible part, for a sprite whose longer side is 1.
        offsets: n 2: from the centre of the visible part to the centre of the sprite, in the same unit.
    """

    background: str
    names: tuple[str, ...]
    features: np.ndarray
    energy: np.ndarray
    shapes: np.ndarray
    offsets: np.ndarray


def soften(picture: np.ndarray) -> np.ndarray:
    """Blur h w c with the binomial [1 2 1] / 4, as if the picture's edges went on outside it.

    Half a pixel's shift, a little blur and noise then count for less.
    """
    return _blurred(np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge"))


def visible(difference: np.ndarray, threshold: float = VISIBLE) -> np.ndarray:
    """Where a picture, given as its difference from the background, h w 3, shows an object: h w, bool."""
    return np.einsum("hwc,hwc->hw", difference, difference) > threshold**2


def bounds(mask: np.ndarray) -> Box | None:
    """The smallest box that holds all of a mask, h w; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def likeness(difference: np.ndarray, box: Box, templates: Templates) -> np.ndarray:
    """First step: how like each template what a box holds is: n, at most 1. No shift, nothing drawn.

    Args:
        difference: h w 3 float32, the softened picture less its background; zero where it belongs to other objects.
    """
    left, top, right, bottom = box
    feature = _stretched(difference[top:bottom, left:right])
    alike = 2 * (templates.features @ feature) / (templates.energy + feature @ feature + 1e-9)
    width, height = _unsoftened(right - left), _unsoftened(bottom - top)
    off = np.abs(np.log(templates.shapes[:, 0] / templates.shapes[:, 1] * height / width))
    return alike - 0.5 * np.maximum(0, off - 0.1)  # of a small object, one pixel is 0.05


def matches(difference: np.ndarray, box: Box, templates: Templates) -> list[Match]:
    """Second step: the likeliest sprites for what a box holds, best first; arguments as for ``likeness``."""
    likely = np.argsort(-likeness(difference, box, templates), kind="stable")[:_SHORTLIST]
    energy = float(np.vdot(difference, difference))
    first = [(i, _slid(difference, energy, box, templates, i, 1.0)) for i in likely]
    first.sort(key=lambda pair: -pair[1].score)
    least = max(_HOPELESS, first[0][1].score - _BEHIND)
    finalists = [pair for pair in first[:_FINALISTS] if pair[1].score >= least]
    found = [match for _, match in first[len(finalists) :]]
    for i, match in finalists:
        tried = [match, *(_slid(difference, energy, box, templates, i, scale) for scale in _SCALES)]
        found.append(max(tried, key=lambda match: match.score))
    return sorted(found, key=lambda match: -match.score)


@functools.lru_cache(maxsize=len(BACKGROUNDS))
def templates_on(background: str) -> Templates:
    """The first step's templates for one of BACKGROUNDS: made once a process, in about 0.1 s."""
    rows = []
    for name in load_sprites().names:
        width, height = _proportions(name)
        drawn, _ = _drawn(name, background, max(1, round(width * _DRAWN)), max(1, round(height * _DRAWN)))
        box = bounds(visible(drawn))
        if box is None:
            continue
        left, top, right, bottom = box
        shape = _unsoftened(right - left), _unsoftened(bottom - top)
        offset = (drawn.shape[1] - left - right) / 2, (drawn.shape[0] - top - bottom) / 2
        rows.append((name, _stretched(drawn[top:bottom, left:right]), shape, offset))
    names, features, shapes, offsets = zip(*rows, strict=True)
    features = np.stack(features)
    energy = np.einsum("nf,nf->n", features, features)
    return Templates(background, names, features, energy, np.array(shapes) / _DRAWN, np.array(offsets) / _DRAWN)


def _slid(difference: np.ndarray, energy: float, box: Box, templates: Templates, index: int, scale: float) -> Match:
    """The best place of one sprite, drawn to fit a box and then scaled."""
    left, top, right, bottom = box
    name = templates.names[index]
    across = _unsoftened(right - left) / templates.shapes[index, 0]  # the longer side, as the width has it
    down = _unsoftened(bottom - top) / templates.shapes[index, 1]
    longer = math.sqrt(across * down) * scale
    stretch = min(max(across / down, 1 / _STRETCH), _STRETCH) ** 0.5
    limit = 1.25 * max(difference.shape[:2])
    wide, tall = _proportions(name)
    width = max(2, round(min(limit, longer * stretch * wide)))
    height = max(2, round(min(limit, longer / stretch * tall)))
    template, mask = _drawn(name, templates.background, width, height)
    h, w = mask.shape
    x = (left + right) / 2 + templates.offsets[index, 0] * longer
    y = (top + bottom) / 2 + templates.offsets[index, 1] * longer
    column, row = round(x - w / 2) - _SHIFT, round(y - h / 2) - _SHIFT
    around = _window(difference, row, column, h + 2 * _SHIFT, w + 2 * _SHIFT)
    windows = sliding_window_view(around, (h, w), axis=(0, 1))  # 5 5 c h w
    dots = np.einsum("ijchw,hwc->ij", windows, template, optimize=["einsum_path", (0, 1)])
    i, j = np.unravel_index(int(dots.argmax()), dots.shape)
    outline = 2 * float(dots[i, j]) / (energy + float(np.vdot(template, template)) + 1e-9)
    here = around[i : i + h, j : j + w][mask]
    detail = _detail(here, template[mask]) if mask.any() else outline
    score = (1 - _DETAIL) * outline + _DETAIL * detail
    return Match(name, score, column + int(j) + w / 2, row + int(i) + h / 2, width, height)


def _detail(seen: np.ndarray, expected: np.ndarray) -> float:
    """Likeness of two sets of pixels, n 3, each less its mean colour; two flat ones are alike."""
    seen, expected = seen - seen.mean(axis=0), expected - expected.mean(axis=0)
    flat = len(seen) * _FLAT**2
    return float((2 * np.vdot(seen, expected) + flat) / (np.vdot(seen, seen) + np.vdot(expected, expected) + flat))


@functools.lru_cache(maxsize=4096)  # about 40 MB
def _drawn(name: str, background: str, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A sprite less its background, softened, with one pixel around it (h w 3), and where it shows (h w)."""
    levels = load_sprites().levels[name]
    source = next((level for level in reversed(levels) if max(level.size) >= 1.5 * max(width, height)), levels[0])
    rgba = np.asarray(source.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    colour = np.array(BACKGROUNDS[background], np.float32) / 255
    padded = np.zeros((height + 4, width + 4, 3), np.float32)
    padded[2:-2, 2:-2] = rgba[..., :3] - rgba[..., 3:] * colour
    drawn = _blurred(padded)
    return drawn, visible(drawn)


def _blurred(picture: np.ndarray) -> np.ndarray:
    """h w c blurred, without its outermost pixels."""
    rows = picture[:-2] + 2 * picture[1:-1] + picture[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def _proportions(name: str) -> tuple[float, float]:
    """Width and height of a sprite whose longer side is 1."""
    width, height = load_sprites().levels[name][0].size
    longer = max(width, height)
    return width / longer, height / longer


def _unsoftened(pixels: int) -> int:
    """A length on a softened picture, without the pixel that softening adds at each end."""
    return max(1, pixels - 2)


def _window(picture: np.ndarray, row: int, column: int, height: int, width: int) -> np.ndarray:
    """A piece of h w c that may reach outside it, where it is zero."""
    piece = np.zeros((height, width, picture.shape[2]), np.float32)
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, picture.shape[0]), min(column + width, picture.shape[1])
    if top < bottom and left < right:
        piece[top - row : bottom - row, left - column : right - column] = picture[top:bottom, left:right]
    return piece


def _stretched(piece: np.ndarray) -> np.ndarray:
    """h w 3 -> f, float32: the means of the cells of a grid over it; a cell may be part of a pixel."""
    down, across = _cells(piece.shape[0]), _cells(piece.shape[1])
    rows = np.tensordot(down, piece, axes=(1, 0))  # g w c
    return np.tensordot(rows, across, axes=(1, 1)).ravel()  # g c g


@functools.lru_cache(maxsize=128)
def _cells(n: int) -> np.ndarray:
    """The weights, _GRID n, of n pixels in the cells of the grid."""
    edges = np.linspace(0, n, _GRID + 1)[:, None]
    pixels = np.arange(n)[None]
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.maximum(0, overlap) * (_GRID / n)).astype(np.float32)
