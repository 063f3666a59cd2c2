"""Evaluation prompts: scenes of the training domain and their plainest captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unclip.errors import DataError, did_you_mean
from unclip.stickers.captions import canonical_caption
from unclip.stickers.compose import SceneOptions, compose_scene
from unclip.stickers.scene import Scene
from unclip.stickers.sprites import DEFAULT_STYLE

KINDS = ("single", "pair", "count")


def sample_prompts(
    n: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
    split: str = "held_out",
    nouns: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> list[tuple[str, Scene]]:
    """Return ``n`` (prompt, scene), the kinds in turn; the same on every machine.

    ``recognition.checker.check`` compares a generated image with the scene.

    Args:
        n: The number of prompts.
        seed: Seed of the scenes.
        kinds: Any of "single", "pair" and "count".
        split: "held_out" for combinations that training never used, "train" for those it did.
        nouns: The nouns that prompts may name, such as ``captions.nouns_in`` a model's vocabulary; empty for all.
        styles: The styles of the scenes' sprites, such as a model's `styles`; with several, prompts mention them. Empty
            for the default style.

    Raises:
        DataError: an unknown kind or split, or an empty ``kinds``.
    """
    if not kinds:
        raise DataError(f"kinds is empty; known: {', '.join(KINDS)}")
    for kind in kinds:
        if kind not in KINDS:
            raise DataError(f"scenes have no kind {kind!r}; {did_you_mean(kind, KINDS)}")
    options = SceneOptions(split=split, nouns=tuple(nouns), styles=tuple(styles) or (DEFAULT_STYLE,))
    found: list[tuple[str, Scene]] = []
    index = 0
    while len(found) < n:
        scene = compose_scene(np.random.Generator(np.random.Philox(key=[seed, index])), options)
        index += 1
        if scene.kind == kinds[len(found) % len(kinds)]:
            found.append((canonical_caption(scene, options.names_styles), scene))
    return found
