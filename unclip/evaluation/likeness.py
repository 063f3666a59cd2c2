"""How like the true renderings images are: objects recognisable without their prompts, sharpness, blocks, diversity.

The checker's verdict is lenient: it names the sprite that an object resembles most. Here every object that a prompt
asks for is compared with its own rendering, at full resolution, where it fits best.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
from PIL import Image

from unclip.evaluation.correctness import CATEGORIES
from unclip.evaluation.intervals import estimate_mean, estimate_rate
from unclip.evaluation.suite import Suite
from unclip.stickers.recognition.checker import Detection, detect
from unclip.stickers.recognition.likeness import MIN_EXPLAINED, MIN_PSNR, Fit, best_fit
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, PlacedObject, Scene

SEEDS = 8
"""Images per prompt whose differences are measured."""
DIVERSITY_PROMPTS = 12
"""Prompts whose images are compared, at most."""
_NOISE = (1 / 255) ** 2  # added to squared differences: rounding is no block


@dataclass(frozen=True)
class Likeness:
    """An image compared with the best-fitting rendering of its scene.

    Attributes:
        recognisable: Whether every object that the prompt asks for is.
        psnr: Mean PSNR in dB of the objects, within their outlines; None if one is missing.
        sharpness: Of the image's edges, relative to the rendering's; None as for psnr.
        blocks: Errors at the borders of blocks relative to those elsewhere, for each block size; 1 without blocks.
    """

    recognisable: bool
    psnr: float | None = None
    sharpness: float | None = None
    blocks: tuple[float, ...] = ()


def measure_likeness(suite: Suite) -> dict[str, Any]:
    """Return how like the true renderings the model's images at its defaults are."""
    sizes = block_sizes(suite)
    found: dict[str, list[Likeness]] = {kind: [] for kind in CATEGORIES}
    images = suite.generated
    compared = suite.share("likeness", range(len(images)), lambda i: compare(images[i], suite.prompts[i][1], sizes))
    for (_, scene), likeness in zip(suite.prompts, compared, strict=True):
        found[scene.kind].append(likeness)
    rows = []
    for kind, each in found.items():
        psnrs = [one.psnr for one in each if one.psnr is not None]
        row: dict[str, Any] = {
            "": CATEGORIES[kind][0].name if kind != "count" else "counting",
            "recognisable": estimate_rate([one.recognisable for one in each]),
            "median PSNR, dB": float(np.median(psnrs)) if psnrs else None,
            "sharpness, real = 1": estimate_mean([one.sharpness for one in each if one.sharpness is not None]),
        }
        for k, size in enumerate(sizes):
            row[f"blocks of {size} px, none = 1"] = estimate_mean([one.blocks[k] for one in each if one.blocks])
        rows.append(row)
    differences = measure_diversity(suite)
    rows.append({"": "one object, by seed", f"difference of {SEEDS} seeds": estimate_mean(differences)})
    return {
        "rows": rows,
        "notes": [
            f"recognisable: each object has at least {MIN_PSNR:g} dB and {MIN_EXPLAINED:.0%} explained within its "
            "outline (provisional: not yet compared with the judgements of a person)",
            "sharpness: slope of the image's differences between neighbouring pixels on those of the best-fitting "
            "rendering; grain adds nothing to it",
            "blocks: squared errors of differences across the borders of a network's patches, relative to others",
            f"difference: root mean square between the images of {SEEDS} seeds, relative to their contrast",
        ],
    }


def compare(image: Image.Image, scene: Scene, sizes: Sequence[int]) -> Likeness:
    """Return the likeness of an image to a scene whose objects are where they fit best. sizes: of blocks, in pixels."""
    fits = fit_objects(image, scene, detect(image, scene.style))
    if fits is None:
        return Likeness(recognisable=False)
    fitted = replace(scene, objects=tuple(fit.placed for fit in fits))
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    truth = render(fitted, image.width).astype(np.float32) / 255
    return Likeness(
        recognisable=all(fit.is_recognisable for fit in fits),
        psnr=float(np.mean([fit.psnr for fit in fits])),
        sharpness=edge_sharpness(pixels, truth),
        blocks=tuple(blockiness(pixels - truth, size) for size in sizes),
    )


def fit_objects(image: Image.Image, scene: Scene, detection: Detection) -> list[Fit] | None:
    """Return the best fit of every object of a scene, each to another detected object; None if there are too few.

    An extra object does not matter here: the checker counts it.
    """
    names = [placed.name for placed in scene.objects]
    if len(detection.objects) < len(names):
        return None
    background = BACKGROUNDS[scene.background]
    table = {
        (name, j): best_fit(image, PlacedObject(name, each.x, each.y, each.size), background, scene.style)
        for name in set(names)
        for j, each in enumerate(detection.objects[: len(names) + 1])
    }
    places = sorted({j for _, j in table})
    choices = (
        [table[name, j] for name, j in zip(names, order, strict=True)] for order in permutations(places, len(names))
    )
    return max(choices, key=lambda fits: sum(fit.explained for fit in fits))


def edge_sharpness(pixels: np.ndarray, truth: np.ndarray) -> float:
    """Return the slope of an image's differences between neighbouring pixels on those of the truth, both h w 3.

    1 for the truth itself; a blur lowers it, grain and false edges do not raise it.
    """
    products = squares = 0.0
    for axis in (0, 1):
        ours, theirs = np.diff(pixels, axis=axis), np.diff(truth, axis=axis)
        products += float((ours * theirs).sum())
        squares += float((theirs**2).sum())
    return products / max(squares, 1e-9)


def blockiness(error: np.ndarray, size: int) -> float:
    """Return the mean squared jump of an error, h w 3, at the borders of blocks relative to that elsewhere."""
    at_borders, elsewhere = [], []
    for axis in (0, 1):
        jumps = (np.diff(error, axis=axis) ** 2).mean(axis=2)
        is_border = np.arange(1, error.shape[axis]) % size == 0
        at_borders.append(jumps.compress(is_border, axis=axis).mean())
        elsewhere.append(jumps.compress(~is_border, axis=axis).mean())
    return (sum(at_borders) + _NOISE) / (sum(elsewhere) + _NOISE)


def block_sizes(suite: Suite) -> list[int]:
    """Return the sizes in pixels, at full size, of the patches of the networks that generate images in patches."""
    model = suite.pipe.model
    sizes = {
        stage.codec.factor * suite.full_size // size[0]
        for stage, size in zip((model.decoder, *model.upsamplers), model.sizes, strict=True)
        if size[0] <= suite.full_size
    }
    return sorted((size for size in sizes if size > 1), reverse=True)


def measure_diversity(suite: Suite) -> list[float]:
    """Return, for each of a few prompts of one object, how much the images of different seeds differ."""
    prompts = [pair for pair in suite.prompts if pair[1].kind == "single"][:DIVERSITY_PROMPTS]
    requests = suite.make_requests(prompts, n=SEEDS, size=suite.decoder_size)
    results = suite.generate("diversity", requests)
    differences = []
    for k, (_, scene) in enumerate(prompts):
        images = [result.image for result in results[k * SEEDS : (k + 1) * SEEDS]]
        differences.append(seed_difference(images, BACKGROUNDS[scene.background]))
    return differences


def seed_difference(images: Sequence[Image.Image], background: Sequence[float]) -> float:
    """Return the mean root mean square difference of pairs of images, relative to their contrast to a background."""
    pixels = [np.asarray(image.convert("RGB"), np.float32) for image in images]
    contrast = np.mean([np.sqrt(((each - np.array(background)) ** 2).mean()) for each in pixels])
    pairs = [np.sqrt(((a - b) ** 2).mean()) for a, b in combinations(pixels, 2)]
    return float(np.mean(pairs) / max(contrast, 1e-6))
