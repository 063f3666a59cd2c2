"""The parts of an evaluation, in the order in which they are measured and told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unclip.errors import InputError
from unclip.evaluation import clip_and_prior as clip_space
from unclip.evaluation import correctness
from unclip.evaluation import fid as distances
from unclip.evaluation import super_resolution as upsampling
from unclip.evaluation import sweeps as settings
from unclip.evaluation.choices import PARTS
from unclip.evaluation.html_report import write_page
from unclip.evaluation.suite import Suite

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


@dataclass(frozen=True)
class Part:
    """title: of its table. needs: "image tower", "upsampler", without which a model cannot be so measured."""

    title: str
    measure: Callable[[Suite], dict[str, Any]]
    needs: tuple[str, ...] = ()


MEASURES = {
    "checker": Part("The checker's own error, on real renderings", correctness.checker_error),
    "objects": Part("Pictures that show what was asked for, at the model's defaults", correctness.objects),
    "distance": Part("Distance of sets of pictures", distances.distance, ("image tower",)),
    "clip": Part("CLIP", clip_space.clip, ("image tower",)),
    "prior": Part("The prior", clip_space.prior, ("image tower",)),
    "best": Part("Choosing the best, at the decoder's size", settings.best, ("image tower",)),
    "upsampler": Part("Upsampling", upsampling.upsampler, ("upsampler",)),
    "prior-steps": Part("Steps of the prior", settings.prior_steps, ("image tower",)),
    "steps": Part("Steps of the decoder, at its own size", settings.steps),
}
assert tuple(MEASURES) == PARTS
_SUMMARIES = {"prior-steps", "steps"}  # of what is kept cell by cell, for the samplers that are asked for
_RATED = {"objects", "best", "steps"}  # by the checker, whose error is told before


def chosen(pipe: "Unclip", only: Sequence[str] | None) -> list[str]:
    """The parts to measure: those of `only`, or else all that the model has what it takes for.

    Raises InputError for one that this model, or this installation, cannot be measured in, unless nobody asked for it.
    """
    pipe.check_prior()
    has = {"image tower": pipe.clip.visual is not None, "upsampler": bool(pipe.upsamplers)}
    parts = []
    for name, part in MEASURES.items():
        lacking = [what for what in part.needs if not has[what]]
        wanted = only is None or name in only or (name == "checker" and _RATED & set(only))
        if not wanted or (lacking and only is None):
            continue
        if lacking:
            raise InputError(
                f"{pipe.name} has no {lacking[0]}, which the part {name!r} measures: leave it out of --only"
            )
        parts.append(name)
    if "distance" in parts:
        distances.check_installed()
    return parts


def run(suite: Suite, parts: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure parts, each of which is in the report and on the page before it is handed over: (title, result)."""
    for name in parts:
        part = MEASURES[name]
        if name in _SUMMARIES:
            result = suite.report.put(name, part.measure(suite))
        else:
            result = suite.report.once(name, lambda part=part: part.measure(suite))
        write_page(suite, {key: each.title for key, each in MEASURES.items()})
        yield part.title, result
