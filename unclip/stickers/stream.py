"""An endless, reproducible stream of captioned scenes.

``scene_at(seed, index)`` is a pure function, so a training run that stops at image n resumes at image n + 1, and any
number of workers share one stream by taking every k-th index.
"""

from __future__ import annotations

import numpy as np

from unclip.stickers.captions import random_caption
from unclip.stickers.compose import COLOURS, SceneOptions, choose, compose_scene, swap_objects
from unclip.stickers.scene import Scene

DEFAULTS = SceneOptions()


def scene_at(seed: int, index: int, options: SceneOptions = DEFAULTS) -> tuple[Scene, str]:
    """Return scene and caption number ``index`` of the stream ``seed``: the same on every machine, in any order."""
    rng = _generator(seed, index)
    like = None
    if options.hard_pairs and index % 2:
        like = _compose_at(_generator(seed, index - 1), seed, index - 1, options)
        if like.kind == "pair" and like.relation != "next to":
            scene = swap_objects(like)
            return scene, random_caption(scene, rng, options.names_styles)
    scene = _compose_at(rng, seed, index, options, like)
    return scene, random_caption(scene, rng, options.names_styles)


def _compose_at(
    rng: np.random.Generator, seed: int, index: int, options: SceneOptions, like: Scene | None = None
) -> Scene:
    background = None
    if options.alike > 1:
        # Seeds stay below 2**32, so no seed has this stream.
        background = choose(_generator(seed + 2**32, index // options.alike), COLOURS)
    return compose_scene(rng, options, background, like)


def _generator(seed: int, index: int) -> np.random.Generator:
    # Philox is counter based: every (seed, index) is reached at once, and streams do not overlap.
    return np.random.Generator(np.random.Philox(key=[seed, index]))
