"""Sweeps over sampling settings: samplers and steps of the decoder and the prior, and best-of-k selection."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from unclip.evaluation.clip_and_prior import cosines, sample_embeddings
from unclip.evaluation.intervals import Estimate, estimate_difference, estimate_mean, estimate_rate
from unclip.evaluation.suite import BEST_OF, Suite
from unclip.images.result import Result
from unclip.modes.resolve import model_defaults
from unclip.requests.request import Request
from unclip.stickers.recognition.checker import check
from unclip.stickers.scene import Scene

TOLERANCE = 0.99  # fraction of the quality of the most steps that a choice must reach

Grid = Mapping[str, Mapping[int, dict[str, Any]]]
"""Sampler -> steps -> the result of that cell."""


def sweep_steps(suite: Suite) -> dict[str, Any]:
    """Return the rate of correct images for each sampler and number of steps of the decoder, with the same seeds.

    The choice holds, for each sampler and for all, the fewest steps that come within 1% of the most.
    """
    grid = {sampler: {n: _measure_cell(suite, sampler, n) for n in suite.steps} for sampler in suite.samplers}
    rates = {sampler: {n: _rate(cell) for n, cell in cells.items()} for sampler, cells in grid.items()}
    chosen, defaults, most = choose_steps(rates), model_defaults(suite.pipe.model), suite.steps[-1]
    own = _measure_cell(suite, defaults["sampler"], defaults["steps"])
    rows = [_row(f"{sampler}, {n} steps", cell) for sampler, cells in grid.items() for n, cell in cells.items()]
    rows.append(_row(f"the defaults: {defaults['sampler']}, {defaults['steps']} steps", own))

    best = max(rates, key=lambda sampler: rates[sampler][most])
    compared = defaults["sampler"] if defaults["sampler"] in grid else best
    difference = estimate_difference(own["outcomes"], grid[compared][most]["outcomes"])
    low, high = difference["interval"]
    notes = [
        f"fewest within 1% of {most} steps: {_describe_choice(chosen)}",
        f"the defaults: {_rate(own):.1%}; the best sampler in {most} steps: {rates[best][most]:.1%}",
        f"the defaults minus {compared}, {most} steps, prompt by prompt: "
        f"{difference['mean']:+.1%} ({low:+.1%} to {high:+.1%})",
    ]
    widest = max((high - low) / 2 for low, high in (row["right"]["interval"] for row in rows))
    if widest > 1 - TOLERANCE:
        notes.append(f"n = {len(suite.subset)} leaves rates uncertain by {widest:.1%}: choose with a larger --n")
    return {"rows": rows, "choice": chosen, "notes": notes}


def sweep_prior_steps(suite: Suite) -> dict[str, Any]:
    """Return the cosine of the prior's single samples with the true embeddings, for each sampler and number of steps.

    The choice is made as in ``sweep_steps``.
    """
    true = suite.embed_images("features, real", suite.render(suite.subset, suite.decoder_size))

    def measure_cell(sampler: str, steps: int) -> Estimate:
        def measure() -> Estimate | None:
            fields = {"prior": "diffusion", "prior_sampler": sampler, "prior_steps": steps, "prior_best_of": 1}
            return estimate_mean(cosines(sample_embeddings(suite, suite.subset, **fields), true))

        return suite.report.measure_once(f"prior-steps/{sampler}/{steps}", measure)

    grid: Grid = {sampler: {n: measure_cell(sampler, n) for n in suite.steps} for sampler in suite.samplers}
    column = "cosine to the true embedding"
    rows = [{"": f"{sampler}, {n} steps", column: cell} for sampler, cells in grid.items() for n, cell in cells.items()]
    chosen = choose_steps({sampler: {n: cell["mean"] for n, cell in cells.items()} for sampler, cells in grid.items()})
    notes = [f"fewest within 1% of {suite.steps[-1]} steps: {_describe_choice(chosen)}"]
    return {"rows": rows, "choice": chosen, "notes": notes}


def sweep_best_of(suite: Suite) -> dict[str, Any]:
    """Return the gain of best-of-k: among the prior's samples by the text, and among images by the CLIP score."""
    scenes = [scene for _, scene in suite.subset]
    size, most = suite.pipe.model.sizes[0], max(BEST_OF)
    rows = []
    for k in BEST_OF:
        requests = suite.make_requests(suite.subset, size=size, prior_best_of=k)
        results = suite.generate(f"prior, best of {k}", requests)
        rows.append(_row(f"prior's samples, best of {k}", _evaluate_results(suite, results, scenes)))
    requests = [
        Request(prompt=prompt, seed=suite.seed + i * most, n=most, size=size)
        for i, (prompt, _) in enumerate(suite.subset)
    ]
    results = suite.generate(f"images, best of {most}", requests)
    for k in BEST_OF:
        groups = [results[start : start + k] for start in range(0, len(results), most)]
        best = [max(group, key=_score) for group in groups]
        rows.append(_row(f"images, best of {k}", _evaluate_results(suite, best, scenes)))
    return {"rows": rows}


def choose_steps(qualities: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """Return the fewest steps that come within 1% of the quality at the most steps.

    Args:
        qualities: Sampler -> steps -> rate, or another quality.

    Returns:
        "steps": sampler -> fewest steps by the sampler's own quality, None if that is zero. "sampler" and "of_all":
        the sampler and its fewest steps by the best sampler's quality, None if that is zero. Among equal steps the
        higher quality wins, then the sampler named first.
    """
    most = max(steps for cells in qualities.values() for steps in cells)
    fewest = {sampler: _fewest_steps(cells, cells[most]) for sampler, cells in qualities.items()}
    best = max(cells[most] for cells in qualities.values())
    near = []
    for place, cells in enumerate(qualities.values()):
        steps = _fewest_steps(cells, best)
        if steps is not None:
            near.append((steps, -cells[steps], place))
    if not near:
        return {"steps": fewest, "sampler": None, "of_all": None}
    steps, _, place = min(near)
    return {"steps": fewest, "sampler": list(qualities)[place], "of_all": steps}


def check_results(suite: Suite, results: Sequence[Result], scenes: Sequence[Scene]) -> list[bool]:
    """Return for each result whether its image shows the whole scene, and nothing else."""
    return check_images(suite, [result.image for result in results], scenes)


def check_images(suite: Suite, images: Sequence[Image.Image], scenes: Sequence[Scene]) -> list[bool]:
    """Return for each image whether it shows the whole scene, and nothing else."""
    pairs = list(zip(images, scenes, strict=True))
    return suite.share("checker", pairs, lambda pair: check(*pair).all)


def _measure_cell(suite: Suite, sampler: str, steps: int) -> dict[str, Any]:
    """Return outcomes and CLIP score of a sampler and a number of steps, from the report if it has them."""

    def measure() -> dict[str, Any]:
        requests = suite.make_requests(suite.subset, size=suite.pipe.model.sizes[0], sampler=sampler, steps=steps)
        results = suite.generate(f"{sampler}, {steps} steps", requests)
        return _evaluate_results(suite, results, [scene for _, scene in suite.subset])

    return suite.report.measure_once(f"outcomes/{sampler}/{steps}", measure)


def _evaluate_results(suite: Suite, results: Sequence[Result], scenes: Sequence[Scene]) -> dict[str, Any]:
    return {"outcomes": check_results(suite, results, scenes), "CLIP score": _mean_score(results)}


def _row(name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    return {"": name, "right": estimate_rate(cell["outcomes"]), "CLIP score": cell["CLIP score"]}


def _rate(cell: Mapping[str, Any]) -> float:
    return sum(cell["outcomes"]) / len(cell["outcomes"])


def _mean_score(results: Sequence[Result]) -> Estimate | None:
    """Return the mean CLIP score; None for a model without an image encoder."""
    scores = [result.score for result in results if result.score is not None]
    return estimate_mean(scores) if len(scores) == len(results) else None


def _score(result: Result) -> float:
    return -math.inf if result.score is None else result.score


def _fewest_steps(cells: Mapping[int, float], reference: float) -> int | None:
    if reference <= 0:
        return None
    return min((steps for steps, quality in cells.items() if quality >= TOLERANCE * reference), default=None)


def _describe_choice(chosen: Mapping[str, Any]) -> str:
    each = ", ".join(f"{sampler} {'none' if n is None else n}" for sampler, n in chosen["steps"].items())
    if chosen["sampler"] is None:
        return f"{each}; no sampler reaches anything above zero"
    return f"{each}; of all samplers: {chosen['sampler']}, {chosen['of_all']} steps"
