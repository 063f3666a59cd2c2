"""Prompts to judge a model by: scenes of the training domain, asked for in their plainest words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unclip.errors import DataError
from unclip.stickers.captions import canonical_caption
from unclip.stickers.compose import draw_scene
from unclip.stickers.scene import Scene
from unclip.stickers.sprites import load_nouns

KINDS = ("single", "pair", "count")


def prompts(
    n: int, seed: int, kinds: Sequence[str] = KINDS, split: str = "held_out", nouns: Sequence[str] = ()
) -> list[tuple[str, Scene]]:
    """``n`` requests, as many of each kind as of the others: the same on every machine.

    Args:
        kinds: Of "single", "pair" and "count".
        split: "held_out" for combinations that training never showed, "train" for those it did.
        nouns: What is asked for, such as ``captions.nouns_in`` a model's vocabulary; all, if none are named.

    Returns:
        (prompt, scene) each; ``checker.check`` compares a picture with the scene.

    Raises:
        DataError: an unknown kind or split, or no kind at all.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise DataError(f"there is no kind of scene {', '.join(unknown) or '(none given)'}: use {', '.join(KINDS)}")
    nouns = nouns or tuple(load_nouns())
    drawn = []
    index = 0
    while len(drawn) < n:
        scene = draw_scene(np.random.Generator(np.random.Philox(key=[seed, index])), nouns, split)
        index += 1
        if scene.kind == kinds[len(drawn) % len(kinds)]:
            drawn.append((canonical_caption(scene, load_nouns()), scene))
    return drawn
