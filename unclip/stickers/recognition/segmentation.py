"""Splits the foreground of an image into objects.

Straight cuts from edge to edge separate the objects of the training domain, applied recursively: rows first, then the
content of each row. A cut is kept if its halves are more similar to sprites than the whole was. Connected components
would do worse: a sprite can have several parts, and two generated objects can touch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unclip.stickers.recognition.matching import Box, Match, Templates, bounding_box, coarse_scores, match_sprites

MIN_AREA = 24  # px of foreground (of 64 by 64); anything smaller is no object
_EDGE = 6  # px; a cut this close to the edge of a box is not tried
_CERTAIN = 0.85  # a piece with this score is not cut
_SUFFICIENT = 0.75  # pieces with this mean score end the search
_MIN_GAIN = 0.08  # smallest improvement of the score that justifies a cut
_CUT_PENALTY = 0.2  # deducted from the score for a cut through foreground along its whole length
_MAX_CUTS = 4  # cuts tried per piece
_MAX_DEPTH = 3  # depth of nested cuts
_MAX_MATCHES = 32  # pieces matched with sprites; a good image needs a dozen, and one of noise would take seconds


def box_slices(box: Box) -> tuple[slice, slice]:
    """Return the row and column slices of a box."""
    left, top, right, bottom = box
    return slice(top, bottom), slice(left, right)


class Segmenter:
    """Splits the foreground of one image into pieces that resemble sprites.

    Args:
        difference: The image minus its background, softened, zero outside the mask: h w 3, float32.
        mask: The foreground: h w, bool.
        templates: The sprites on that background.
    """

    def __init__(self, difference: np.ndarray, mask: np.ndarray, templates: Templates):
        self._difference, self._mask, self._templates = difference, mask, templates
        self._coarse_scores: dict[Box, float] = {}
        self._matches: dict[Box, list[Match]] = {}

    def split(self, box: Box) -> list[Box]:
        """Return the boxes of the pieces into which the content of a box is best cut."""
        return self._best_split(box, _MAX_DEPTH)[1]

    def match(self, box: Box) -> list[Match]:
        """Return the sprites most similar to the content of a box, best first."""
        if box not in self._matches:
            alone = np.zeros_like(self._difference)
            alone[box_slices(box)] = self._difference[box_slices(box)]
            self._matches[box] = match_sprites(alone, box, self._templates)
        return self._matches[box]

    def _best_split(self, box: Box, depth: int) -> tuple[float, list[Box]]:
        """Return the mean score of the pieces, weighted by area, and their boxes."""
        whole = self._coarse_score(box)
        if whole < _CERTAIN:
            if len(self._matches) >= _MAX_MATCHES:
                return 0.0, [box]
            whole = self.match(box)[0].score
        best = whole, [box]
        if whole >= _CERTAIN or depth == 0:
            return best
        # Cuts anywhere, rather than in gaps and narrow places, are a last resort, tried for the whole image only.
        for anywhere in (False, True) if depth == _MAX_DEPTH else (False,):
            for halves, penalty in self._candidate_cuts(box, anywhere):
                parts = [self._best_split(half, depth - 1) for half in halves]
                score = self._mean_score([part[0] for part in parts], halves) - penalty
                if score > max(best[0], whole + _MIN_GAIN):
                    best = score, [piece for _, pieces in parts for piece in pieces]
                if score >= _SUFFICIENT:
                    return best
            if best[0] >= _SUFFICIENT:
                return best
        return best

    def _coarse_score(self, box: Box) -> float:
        if box not in self._coarse_scores:
            self._coarse_scores[box] = float(coarse_scores(self._difference, box, self._templates).max())
        return self._coarse_scores[box]

    def _mean_score(self, scores: Sequence[float], boxes: Sequence[Box]) -> float:
        areas = [int(self._mask[box_slices(box)].sum()) for box in boxes]
        return sum(score * area for score, area in zip(scores, areas, strict=True)) / max(1, sum(areas))

    def _candidate_cuts(self, box: Box, anywhere: bool) -> list[tuple[tuple[Box, ...], float]]:
        """Return the most promising cuts, best first: the halves, and the penalty for the foreground cut through.

        Cuts lie in the middle of gaps and at local minima of the foreground; with `anywhere`, at every second pixel.
        """
        left, top, _, _ = box
        cuts = []
        for axis, start in ((0, top), (1, left)):
            profile = self._mask[box_slices(box)].sum(axis=1 - axis)  # foreground pixels in each row or column
            everywhere = range(_EDGE, len(profile) - _EDGE, 2)
            for first, last in [(i, i) for i in everywhere] if anywhere else _find_minima(profile):
                halves = self._cut(box, axis, start + (first + last + 1) // 2)
                crosses = profile[first] > 0
                if not halves or (len(halves) == 1 and crosses):  # a gap may drop a speck, a cut may not trim an object
                    continue
                score = self._mean_score([self._coarse_score(half) for half in halves], halves)
                penalty = _CUT_PENALTY * float(profile[first]) / self._mask[box_slices(box)].shape[1 - axis]
                cuts.append((crosses, penalty - score, halves, penalty))
        cuts.sort(key=lambda cut: cut[:2])
        return [(halves, penalty) for _, _, halves, penalty in cuts[:_MAX_CUTS]]

    def _cut(self, box: Box, axis: int, place: int) -> tuple[Box, ...]:
        """Return the trimmed boxes on both sides of a cut, without those smaller than MIN_AREA."""
        left, top, right, bottom = box
        first = (left, top, place, bottom) if axis == 1 else (left, top, right, place)
        second = (place, top, right, bottom) if axis == 1 else (left, place, right, bottom)
        halves = []
        for half in (first, second):
            mask = self._mask[box_slices(half)]
            inner = bounding_box(mask)
            if inner is not None and mask.sum() >= MIN_AREA:
                x, y = half[:2]
                halves.append((x + inner[0], y + inner[1], x + inner[2], y + inner[3]))
        return tuple(halves)


def _find_minima(profile: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last index of every level stretch of a profile that is lower than both its neighbours."""
    steps = np.flatnonzero(np.diff(profile))  # a level stretch ends at each
    starts, stops = [0, *(steps + 1)], [*steps, len(profile) - 1]
    inner = range(1, len(starts) - 1)
    low = [i for i in inner if profile[starts[i]] < min(profile[starts[i] - 1], profile[stops[i] + 1])]
    return [(int(starts[i]), int(stops[i])) for i in low]
