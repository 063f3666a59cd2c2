"""Generated images that were named without their prompts, and how well the likeness to the rendering agrees.

`judged.webp` has 100 images of one object at 256 px: 50 of the bundled model (style noto) and 50 of an unfinished
second generation (style flat), of random held-out prompts, unpicked and in random order. `judged_held_out.webp` has 64
more, made the same way and named after the measure was selected. An AI model with vision, in the place of a person,
named each image without its prompt or a list of nouns; a heap in the right colours has no name. `judged.json` has these
names, the prompts, which were read afterwards, and whether the name means the noun that was asked for.

    python -m tests.stickers.recognition.judged

prints the agreement of each measure of a fit with these names.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.evaluation.intervals import format_row
from unclip.stickers.recognition.likeness import MIN_STRUCTURE, Fit, best_fit
from unclip.stickers.scene import BACKGROUNDS, PlacedObject

SIDE = 256
FOLDER = Path(__file__).parent


@cache
def read_judged(sheet: int) -> Sequence[tuple[Mapping[str, Any], Fit]]:
    """Return what is known of each image of a sheet, 0 or 1, and the fit of the noun that was asked for."""
    found = json.loads((FOLDER / "judged.json").read_text(encoding="utf-8"))["sheets"][sheet]
    with Image.open(FOLDER / found["file"]) as opened:
        images = opened.convert("RGB")
    return [(each, _fit(images, k, found["columns"], each)) for k, each in enumerate(found["images"])]


def _fit(images: Image.Image, k: int, columns: int, judged: Mapping[str, Any]) -> Fit:
    x, y = k % columns * SIDE, k // columns * SIDE
    image = images.crop((x, y, x + SIDE, y + SIDE))
    guess = PlacedObject(judged["noun"], *judged["place"])
    return best_fit(image, guess, BACKGROUNDS[judged["background"]], judged["style"])


def separation(values: Sequence[float], named: Sequence[bool]) -> float:
    """Return how often a named image has a higher value than one that is not: 1 always, 0.5 by chance."""
    v, is_named = np.array(values), np.array(named)
    higher = np.sign(v[is_named][:, None] - v[~is_named])
    return float(higher.mean() / 2 + 0.5)


def cross_validated(values: Sequence[float], named: Sequence[bool], folds: int = 10, rounds: int = 50) -> float:
    """Return the agreement on images that the threshold was not set on."""
    v, y, rng = np.array(values), np.array(named), np.random.default_rng(0)
    agreements = []
    for _ in range(rounds):
        fold = rng.permutation(len(v)) % folds
        agreed = np.zeros(len(v), bool)
        for k in range(folds):
            train = fold != k
            thresholds = np.quantile(v[train], np.linspace(0.02, 0.98, 49))
            rates = np.array([((v[train] >= each) == y[train]).mean() for each in thresholds])
            threshold = np.median(thresholds[rates >= rates.max() - 1e-9])
            agreed[~train] = (v[~train] >= threshold) == y[~train]
        agreements.append(agreed.mean())
    return float(np.mean(agreements))


def _rows(judged: Sequence[tuple[Mapping[str, Any], Fit]]) -> Iterator[str]:
    named = [each["is_asked_noun"] for each, _ in judged]
    found = [fit.is_recognisable for _, fit in judged]
    yield format_row("named as asked", named, 34)
    yield format_row("recognisable", found, 34)
    yield format_row("agreement", [a == b for a, b in zip(named, found, strict=True)], 34)
    yield format_row("precision", [a for a, b in zip(named, found, strict=True) if b], 34)
    yield format_row("recall", [b for a, b in zip(named, found, strict=True) if a], 34)
    yield format_row("agreement of the lenient checker", [a["correct"] == a["is_asked_noun"] for a, _ in judged], 34)
    measures: dict[str, Callable[[Mapping[str, Any], Fit], float]] = {
        "structure": lambda _, fit: fit.structure,
        "explained": lambda _, fit: fit.explained,
        "PSNR": lambda _, fit: fit.psnr,
        "CLIP score": lambda each, _: each["score"],
    }
    for name, measure in measures.items():
        values = [measure(*pair) for pair in judged]
        yield (
            f"{name:<12} separates {separation(values, named):.2f}, "
            f"agreement with the best threshold, cross-validated {cross_validated(values, named):.1%}"
        )


if __name__ == "__main__":
    first, second = read_judged(0), read_judged(1)
    print(f"thresholds: structure {MIN_STRUCTURE:g}")
    for title, judged in (("judged.webp", first), ("judged_held_out.webp", second), ("both", [*first, *second])):
        print(f"\n{title}", *_rows(judged), sep="\n  ")
