"""An endless, reproducible stream of scenes: the scene of an index and a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unclip.stickers.captions import caption
from unclip.stickers.compose import COLOURS, COUNTED, SINGLES, SPREAD, draw_scene, exchanged, pick
from unclip.stickers.scene import Scene
from unclip.stickers.sprites import load_nouns


def scene_at(
    seed: int,
    index: int,
    split: str = "train",
    singles: float = SINGLES,
    alike: int = 1,
    nouns: Sequence[str] = (),
    spread: int = SPREAD,
    hard_pairs: bool = False,
    counts: float = COUNTED,
) -> tuple[Scene, str]:
    """Scene and caption number ``index`` of the stream ``seed``: the same on every machine, in any order.

    Args:
        alike: So many scenes in a row share their background, and have to be told apart by what else they show.
        nouns: What is drawn; all that there are, if none are named.
        spread: How many steps of the grid an object may stand off the middle of its place; 0 also puts the first of two
            objects "next to" each other on the left, as nothing but chance would say.
        hard_pairs: After a pair at an even index comes the same with its two objects exchanged, which nothing but
            the places of the objects tells from it; where the caption would be true of both ("next to"), and after
            other scenes, another of their kind.
        counts: The share of counts in what is not a single object.

    Raises:
        DataError: an unknown split.
    """
    # Philox is counter based: any (seed, index) is reached at once, and streams do not overlap.
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    of_the_row = np.random.Generator(np.random.Philox(key=[seed + 2**32, index // alike]))  # no stream has such a seed
    background = pick(of_the_row, COLOURS) if alike > 1 else None
    nouns, like = nouns or tuple(load_nouns()), None
    if hard_pairs and index % 2:
        like, _ = scene_at(seed, index - 1, split, singles, alike, nouns, spread, counts=counts)
        if like.kind == "pair" and like.relation != "next to":
            scene = exchanged(like)
            return scene, caption(scene, rng)
    scene = draw_scene(rng, nouns, split, singles, background, spread, like, counts)
    return scene, caption(scene, rng)
