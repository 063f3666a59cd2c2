"""The trade-off of each speed and each shortcut: quality against the model's defaults, prompt by prompt, and time."""

from collections.abc import Mapping, Sequence
from typing import Any

from unclip.evaluation.intervals import estimate_difference, estimate_mean, estimate_rate
from unclip.evaluation.suite import Suite
from unclip.evaluation.sweeps import check_results
from unclip.requests.fields import SPEEDS

TOLERANCE = 0.01  # the loss that "balanced" may have

DECODER_SHORTCUTS: Mapping[str, Mapping[str, Any]] = {
    "guidance at every 2nd step": {"guidance_every": 2},
    "guidance at every 3rd step": {"guidance_every": 3},
    "guidance at noise levels 0.3 to 5": {"guidance_interval": (0.3, 5)},
    "guidance at noise levels 0.5 to 20": {"guidance_interval": (0.5, 20)},
    "deep features of every 2nd step": {"cache_every": 2},
    "deep features of every 3rd step": {"cache_every": 3},
    "noise levels by karras": {"spacing": "karras"},
    "noise levels by log-snr": {"spacing": "log-snr"},
    "noise levels by ays": {"spacing": "ays"},
}
"""Measured at the decoder's size, with the model's own sampler and steps."""


def measure_speeds(suite: Suite) -> dict[str, Any]:
    """Return the rate of correct images, CLIP score and seconds of each speed and shortcut, and what they lose.

    The differences are paired: the same prompts and seeds as with the defaults of the same size.
    """
    model = suite.pipe.model
    sizes = {"full": model.default_size, "decoder": model.sizes[0]}
    settings: list[tuple[str, str, dict[str, Any]]] = [
        (f"speed {speed}", "full", {"speed": speed}) for speed in SPEEDS if speed == "best" or model.speeds
    ]
    if model.upsamplers and (steps := model.upsamplers[0].steps) > 1:
        settings.append(("half the upsampler steps", "full", {"upsampler_steps": steps // 2}))
        if steps > 2:  # the last step runs the whole network if it has one of its own
            settings.append(("deep upsampler features of every 2nd step", "full", {"upsampler_cache_every": 2}))
    settings.append(("defaults, at the decoder's size", "decoder", {}))
    settings += [(name, "decoder", dict(fields)) for name, fields in DECODER_SHORTCUTS.items()]

    rows: list[dict[str, Any]] = []
    reference: dict[str, dict[str, Any]] = {}
    for name, place, fields in settings:
        cell = _measure(suite, name, {**fields, "size": sizes[place]})
        reference.setdefault(place, cell)  # the first of each size: the defaults
        rows.append(_row(name, cell, reference[place]))
    return {"rows": rows, "notes": _notes(suite, rows)}


def _measure(suite: Suite, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcomes, CLIP scores and mean seconds of an image, from the report if it has them."""

    def measure() -> dict[str, Any]:
        results = suite.generate(name, suite.make_requests(suite.subset, **fields))
        return {
            "outcomes": check_results(suite, results, [scene for _, scene in suite.subset]),
            "scores": [result.score for result in results],
            "seconds": sum(sum(result.timings.values()) for result in results) / len(results),
        }

    return suite.report.measure_once(f"speed/{name}", measure)


def _row(name: str, cell: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    row = {"": name, "right": estimate_rate(cell["outcomes"])}
    scored = None not in cell["scores"]
    if cell is reference:
        difference = score_difference = None
    else:
        difference = estimate_difference(cell["outcomes"], reference["outcomes"])
        pairs = zip(cell["scores"], reference["scores"], strict=True)
        score_difference = estimate_mean([own - other for own, other in pairs]) if scored else None
    row |= {"right, difference": difference}
    row |= {"CLIP score": estimate_mean(cell["scores"]) if scored else None, "CLIP, difference": score_difference}
    return row | {"seconds an image": cell["seconds"]}


def _notes(suite: Suite, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = ["differences are to the defaults at the same size, prompt by prompt; seconds are of this run"]
    differences = [row["right, difference"] for row in rows if row["right, difference"] is not None]
    widest = max((high - low) / 2 for low, high in (each["interval"] for each in differences))
    if widest > TOLERANCE:
        notes.append(f"n = {len(suite.subset)} leaves differences uncertain by {widest:.1%}: use a larger --n")
    return notes
