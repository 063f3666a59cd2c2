"""Which settings to draw with: how much is right for so many steps of each sampler, and for the best of so many."""

from collections.abc import Mapping, Sequence
from typing import Any

from unclip.evaluation.clip_and_prior import cosines, imagined
from unclip.evaluation.intervals import Estimate, difference, mean, rate
from unclip.evaluation.suite import BEST_OF, Suite
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.stickers.recognition.checker import check
from unclip.stickers.scene import Scene

WITHIN = 0.99  # of the quality of the most steps


def steps(suite: Suite) -> dict[str, Any]:
    """Pictures that are right in everything, for so many steps of each sampler of the decoder; the same seeds for all.

    The choice: of each sampler, and of all, the fewest steps that come within 1% of the most.
    """

    def cell(sampler: str, count: int) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            requests = suite.requests(suite.mixed, size=suite.pipe.sizes[0], sampler=sampler, steps=count)
            drawn = list(suite.draw(f"{sampler}, {count} steps", requests))
            return {"outcomes": _right(drawn, [scene for _, scene in suite.mixed]), "CLIP score": _score(drawn)}

        return suite.report.once(f"outcomes/{sampler}/{count}", measure)

    def row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
        return {"": name, "right": rate(found["outcomes"]), "CLIP score": found["CLIP score"]}

    cells = {sampler: {count: cell(sampler, count) for count in suite.steps} for sampler in suite.samplers}
    rows = [row(f"{sampler}, {n} steps", found) for sampler, of_it in cells.items() for n, found in of_it.items()]
    rates = {sampler: {n: _share(found) for n, found in of_it.items()} for sampler, of_it in cells.items()}
    chosen, own, most = choice(rates), suite.pipe.defaults(), suite.steps[-1]
    default = cell(own["sampler"], own["steps"])
    rows.append(row(f"the defaults: {own['sampler']}, {own['steps']} steps", default))
    best = max(rates, key=lambda sampler: rates[sampler][most])
    compared = own["sampler"] if own["sampler"] in cells else best
    gained = difference(default["outcomes"], cells[compared][most]["outcomes"])
    low, high = gained["interval"]
    told = f"{gained['mean']:+.1%} ({low:+.1%} to {high:+.1%})"
    notes = [
        f"fewest within 1% of {most} steps: {_told(chosen)}",
        f"the defaults: {_share(default):.1%}; the best sampler in {most} steps: {rates[best][most]:.1%}",
        f"the defaults less {compared}, {most} steps, prompt by prompt: {told}",
    ]
    widest = max((high - low) / 2 for low, high in (row["right"]["interval"] for row in rows))
    if widest > 1 - WITHIN:
        notes.append(
            f"with n = {len(suite.mixed)} a rate is known to {widest:.1%} only: a larger --n makes the choice firm"
        )
    return {"rows": rows, "choice": chosen, "notes": notes}


def prior_steps(suite: Suite) -> dict[str, Any]:
    """The same of the prior, by the cosine of its embeddings, a single one each, to those of the true pictures."""
    true = suite.embed("features, real", suite.real(suite.mixed, suite.small))

    def cell(sampler: str, count: int) -> Estimate:
        def measure() -> Estimate | None:
            found = imagined(suite, suite.mixed, prior_sampler=sampler, prior_steps=count, prior_best_of=1)
            return mean(cosines(found, true))

        return suite.report.once(f"prior-steps/{sampler}/{count}", measure)

    cells = {sampler: {count: cell(sampler, count) for count in suite.steps} for sampler in suite.samplers}
    column = "cosine to the true embedding"
    rows = [
        {"": f"{sampler}, {n} steps", column: found} for sampler, of_it in cells.items() for n, found in of_it.items()
    ]
    chosen = choice({sampler: {n: found["mean"] for n, found in of_it.items()} for sampler, of_it in cells.items()})
    notes = [f"fewest within 1% of {suite.steps[-1]} steps: {_told(chosen)}"]
    return {"rows": rows, "choice": chosen, "notes": notes}


def choice(rates: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """Sampler -> steps -> rate, or another quality: the fewest steps that come within 1% of that at the most.

    Of each sampler measured by its own ("steps", None where that is nothing), and of all by the best one's ("sampler",
    "of_all"): among equal steps the higher rate is taken, then the sampler named first.
    """
    most = max(count for cells in rates.values() for count in cells)
    fewest = {sampler: _fewest(cells, cells[most]) for sampler, cells in rates.items()}
    best = max(cells[most] for cells in rates.values())
    near = [(n, -cells[n], i) for i, cells in enumerate(rates.values()) if (n := _fewest(cells, best)) is not None]
    if not near:
        return {"steps": fewest, "sampler": None, "of_all": None}
    count, _, place = min(near)
    return {"steps": fewest, "sampler": list(rates)[place], "of_all": count}


def best(suite: Suite) -> dict[str, Any]:
    """What it gains to choose: among samples of the prior by the text, and among pictures by CLIP's score."""
    scenes = [scene for _, scene in suite.mixed]
    size, most = suite.pipe.sizes[0], max(BEST_OF)
    rows = []
    for k in BEST_OF:
        drawn = list(suite.draw(f"prior, best of {k}", suite.requests(suite.mixed, size=size, prior_best_of=k)))
        rows.append(
            {"": f"prior's samples, best of {k}", "right": rate(_right(drawn, scenes)), "CLIP score": _score(drawn)}
        )
    several = [
        Request(prompt=prompt, seed=suite.seed + i * most, n=most, size=size)
        for i, (prompt, _) in enumerate(suite.mixed)
    ]
    drawn = list(suite.draw(f"pictures, best of {most}", several))
    for k in BEST_OF:
        groups = [drawn[start : start + k] for start in range(0, len(drawn), most)]
        kept = [max(group, key=lambda result: result.score) for group in groups]
        rows.append({"": f"pictures, best of {k}", "right": rate(_right(kept, scenes)), "CLIP score": _score(kept)})
    return {"rows": rows}


def _share(found: Mapping[str, Any]) -> float:
    return sum(found["outcomes"]) / len(found["outcomes"])


def _fewest(cells: Mapping[int, float], most: float) -> int | None:
    return min((count for count, found in cells.items() if most > 0 and found >= WITHIN * most), default=None)


def _told(chosen: Mapping[str, Any]) -> str:
    each = ", ".join(f"{sampler} {'none' if n is None else n}" for sampler, n in chosen["steps"].items())
    if chosen["sampler"] is None:
        return f"{each}; no sampler comes to anything"
    return f"{each}; of all samplers: {chosen['sampler']}, {chosen['of_all']} steps"


def _right(results: Sequence[Result], scenes: Sequence[Scene]) -> list[bool]:
    """Whether each picture shows all that was asked for, and nothing else."""
    return [check(result.image, scene).all for result, scene in zip(results, scenes, strict=True)]


def _score(results: Sequence[Result]) -> Estimate | None:
    """CLIP's score; None from a model without an image tower."""
    scores = [result.score for result in results]
    return None if None in scores else mean(scores)
