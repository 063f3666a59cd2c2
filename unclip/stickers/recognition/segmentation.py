"""Where one object of a picture ends and the next begins.

Objects of the training domain can be told apart by straight cuts from edge to edge of what is cut, and so can their
parts: rows first, then what is in each row. A cut is kept where its halves are more like sprites than the whole was;
connected components would do worse, for a sprite may be of several parts, and two generated objects may touch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unclip.stickers.recognition.matching import Box, Match, Templates, bounds, likeness, matches

SPECK = 24  # px of foreground (of 64 by 64); less is no object
_SURE = 0.85  # a piece this like a sprite is not cut
_ENOUGH = 0.75  # pieces this like sprites need no other cut
_GAIN = 0.08  # what a cut must gain
_PRICE = 0.2  # what it costs to cut through foreground all along
_CUTS = 4  # cuts tried of each piece
_DEEPEST = 3  # cuts within cuts
_PATIENCE = 32  # pieces looked at closely; a good picture needs a dozen, and one of noise would take seconds


def inside(box: Box) -> tuple[slice, slice]:
    """The rows and columns of a box."""
    left, top, right, bottom = box
    return slice(top, bottom), slice(left, right)


class Cutter:
    """Cuts the foreground of one picture into pieces that are like sprites."""

    def __init__(self, difference: np.ndarray, mask: np.ndarray, templates: Templates):
        self._difference, self._mask, self._templates = difference, mask, templates
        self._likenesses: dict[Box, float] = {}
        self._matches: dict[Box, list[Match]] = {}

    def pieces(self, box: Box) -> list[Box]:
        """The pieces into which what a box holds is best cut."""
        return self._best(box, _DEEPEST)[1]

    def matches(self, box: Box) -> list[Match]:
        """What a piece may be, the best first."""
        if box not in self._matches:
            alone = np.zeros_like(self._difference)
            alone[inside(box)] = self._difference[inside(box)]
            self._matches[box] = matches(alone, box, self._templates)
        return self._matches[box]

    def _best(self, box: Box, depth: int) -> tuple[float, list[Box]]:
        """The likeness of the pieces, each weighing as it is large, and the pieces."""
        whole = self._likeness(box)
        if whole < _SURE:
            if len(self._matches) >= _PATIENCE:
                return 0.0, [box]
            whole = self.matches(box)[0].score
        best = whole, [box]
        if whole >= _SURE or depth == 0:
            return best
        # A cut neither in a gap nor where little is cut through is a last resort, and of the whole picture only.
        for anywhere in (False, True) if depth == _DEEPEST else (False,):
            for halves, price in self._cuts(box, anywhere):
                parts = [self._best(half, depth - 1) for half in halves]
                score = self._mean([(part[0], half) for part, half in zip(parts, halves, strict=True)]) - price
                if score > max(best[0], whole + _GAIN):
                    best = score, [piece for _, pieces in parts for piece in pieces]
                if score >= _ENOUGH:
                    return best
            if best[0] >= _ENOUGH:
                return best
        return best

    def _likeness(self, box: Box) -> float:
        if box not in self._likenesses:
            self._likenesses[box] = float(likeness(self._difference, box, self._templates).max())
        return self._likenesses[box]

    def _mean(self, scored: Sequence[tuple[float, Box]]) -> float:
        areas = [int(self._mask[inside(box)].sum()) for _, box in scored]
        return sum(score * area for (score, _), area in zip(scored, areas, strict=True)) / max(1, sum(areas))

    def _cuts(self, box: Box, anywhere: bool) -> list[tuple[tuple[Box, ...], float]]:
        """The cuts worth trying, the likeliest first: the halves, and the price of what is cut through.

        They are in the middle of each gap, and where less is cut through than on both sides; or anywhere.
        """
        left, top, right, bottom = box
        cuts = []
        for axis, start in ((0, top), (1, left)):
            ink = self._mask[inside(box)].sum(axis=1 - axis)
            places = [(i, i) for i in range(6, len(ink) - 6, 2)] if anywhere else _valleys(ink)
            for first, last in places:
                place = start + (first + last + 1) // 2
                halves = self._halves(box, axis, place)
                if not halves or (len(halves) == 1 and ink[first] > 0):  # a speck is left out, an edge is not cut off
                    continue
                alike = self._mean([(self._likeness(half), half) for half in halves])
                price = _PRICE * float(ink[first]) / self._mask[inside(box)].shape[1 - axis]
                cuts.append((ink[first] > 0, price - alike, halves, price))
        cuts.sort(key=lambda cut: cut[:2])
        return [(halves, price) for _, _, halves, price in cuts[:_CUTS]]

    def _halves(self, box: Box, axis: int, place: int) -> tuple[Box, ...]:
        """What is on both sides of a cut, each side's box trimmed; without a side that holds but a speck."""
        left, top, right, bottom = box
        first = (left, top, place, bottom) if axis == 1 else (left, top, right, place)
        second = (place, top, right, bottom) if axis == 1 else (left, place, right, bottom)
        halves = []
        for half in (first, second):
            mask = self._mask[inside(half)]
            inner = bounds(mask)
            if inner is not None and mask.sum() >= SPECK:
                x, y = half[:2]
                halves.append((x + inner[0], y + inner[1], x + inner[2], y + inner[3]))
        return tuple(halves)


def _valleys(ink: np.ndarray) -> list[tuple[int, int]]:
    """The stretches, first and last place, where a profile is level and higher on both sides."""
    steps = np.flatnonzero(np.diff(ink))  # a stretch ends at each
    starts, stops = [0, *(steps + 1)], [*steps, len(ink) - 1]
    inner = range(1, len(starts) - 1)
    low = [i for i in inner if ink[starts[i]] < ink[starts[i] - 1] and ink[starts[i]] < ink[stops[i] + 1]]
    return [(int(starts[i]), int(stops[i])) for i in low]
