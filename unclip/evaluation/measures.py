"""The parts of an evaluation, in the order in which they are measured and reported."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unclip.errors import InputError
from unclip.evaluation.choices import PARTS
from unclip.evaluation.clip_and_prior import measure_clip, measure_prior
from unclip.evaluation.correctness import measure_checker, measure_objects
from unclip.evaluation.fid import check_installed, measure_distance
from unclip.evaluation.html_report import write_html
from unclip.evaluation.likeness import measure_likeness
from unclip.evaluation.priors import measure_priors
from unclip.evaluation.speeds import measure_speeds
from unclip.evaluation.suite import Suite
from unclip.evaluation.super_resolution import measure_upsampler
from unclip.evaluation.sweeps import sweep_best_of, sweep_prior_steps, sweep_steps

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


@dataclass(frozen=True)
class Part:
    """A part of an evaluation.

    Attributes:
        title: The title of its table.
        measure: Returns its result: "rows", and optionally "notes" and more.
        needs: "image encoder", "diffusion prior" or "upsampler", if only models that have one can be measured.
        is_summary: Whether it summarises cells that the report stores one by one, and is made again in each run.
        uses_checker: Whether the checker judges its images; the checker's own error is then reported first.
    """

    title: str
    measure: Callable[[Suite], dict[str, Any]]
    needs: str | None = None
    is_summary: bool = False
    uses_checker: bool = False


MEASURES = {
    "checker": Part("The checker's own error, on renderings", measure_checker),
    "objects": Part("Images that show their prompts, at the model's defaults", measure_objects, uses_checker=True),
    "likeness": Part("Likeness to the true renderings, at the model's defaults", measure_likeness, uses_checker=True),
    "distance": Part("Distance of sets of images", measure_distance, "image encoder"),
    "clip": Part("CLIP", measure_clip, "image encoder"),
    "prior": Part("The prior", measure_prior, "image encoder"),
    "priors": Part("The priors, and the text embedding in their place", measure_priors, "image encoder", True, True),
    "best": Part("Best of k, at the decoder's size", sweep_best_of, "image encoder", uses_checker=True),
    "upsampler": Part("Upsampling", measure_upsampler, "upsampler"),
    "prior-steps": Part("Steps of the diffusion prior", sweep_prior_steps, "diffusion prior", is_summary=True),
    "steps": Part("Steps of the decoder, at its own size", sweep_steps, is_summary=True, uses_checker=True),
    "speed": Part("Speeds and shortcuts", measure_speeds, is_summary=True, uses_checker=True),
}
assert tuple(MEASURES) == PARTS


def select_parts(pipe: "Unclip", only: Sequence[str] | None) -> list[str]:
    """Return the parts to measure, in order: those in `only`, or all that the model supports.

    Raises InputError if the model or the installation does not support a part in `only`.
    """
    pipe.model.require_prior()
    encodes_images = pipe.model.encoder.encodes_images
    available = {
        "image encoder": encodes_images,
        "diffusion prior": encodes_images and "diffusion" in pipe.model.priors,
        "upsampler": bool(pipe.model.upsamplers),
    }
    needs_checker = only is not None and any(MEASURES[name].uses_checker for name in only)
    parts = []
    for name, part in MEASURES.items():
        missing = part.needs is not None and not available[part.needs]
        if only is None and missing:
            continue
        if only is not None and name not in only and not (name == "checker" and needs_checker):
            continue
        if missing:
            need = f"{'a' if part.needs == 'diffusion prior' else 'an'} {part.needs}"
            raise InputError(
                f"the part {name!r} needs a model with {need}, which {pipe.model.name} lacks: leave it out"
            )
        parts.append(name)
    for name in ("distance", "priors"):
        if name in parts:
            check_installed(name)
    return parts


def measure_parts(suite: Suite, parts: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (title, result) of each part, after writing it to the report and its HTML page."""
    for name in parts:
        part = MEASURES[name]
        if part.is_summary:
            result = suite.report.replace(name, part.measure(suite))
        else:
            result = suite.report.measure_once(name, lambda part=part: part.measure(suite))
        if suite.processes.is_main:
            write_html(suite, {key: each.title for key, each in MEASURES.items()})
        yield part.title, result
