"""What a request's fields may be, by themselves and together: checked once, when it is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.diffusion.sampler_names import check_sampler
from unclip.errors import RequestError
from unclip.requests.fields import (
    ANCHORS,
    CANVAS_MODES,
    FIELDS_OF,
    FILE_FIELDS,
    FITS,
    MASK_MODES,
    MAX_CANDIDATES,
    MAX_FRAMES,
    MAX_GUIDANCE,
    MAX_IMAGES,
    MAX_SEED,
    MAX_SIDE,
    MAX_STEPS,
    MODES,
    SIDE_PROMPTS,
    SIDES,
    foreign_fields,
)
from unclip.requests.values import check_choice, check_text, integer, number, numbers, parse_size, show

if TYPE_CHECKING:
    from unclip.requests.request import Request


def check(request: Request) -> None:
    """Check every field of a new request, and bring its values into their one form. Raises RequestError."""
    check_text("prompt", request.prompt)
    check_text("negative_prompt", request.negative_prompt)
    if request.id is not None:
        check_text("id", request.id)
    check_choice("mode", request.mode, MODES)
    _check_fields_of_modes(request)
    if request.mode in CANVAS_MODES:
        _check_canvas(request)
    if request.mode in ("generate", "edit") and request.embedding is None and not request.prompt.strip():
        raise RequestError("prompt is empty; say what the image should show, or give an embedding")
    told = (request.prompt + (request.from_prompt or "")).strip()
    if request.mode == "edit" and request.embedding is not None and told:
        raise RequestError("embedding is what the picture is turned towards, from its own: leave out the prompts")
    _put(request, "n", integer("n", request.n, 1, MAX_IMAGES))
    _check_ranking(request)
    if request.seed is not None:
        _put(request, "seed", integer("seed", request.seed, 0, MAX_SEED))
        seeds = max(request.n, request.best_of or 1)
        if request.seed + seeds - 1 > MAX_SEED:
            raise RequestError(
                f"seed {request.seed} is too large for n = {seeds}: image i has seed + i, "
                f"at most {MAX_SEED}; use a seed up to {MAX_SEED - seeds + 1}"
            )
    for name in ("steps", "prior_steps", "upsampler_steps"):
        if getattr(request, name) is not None:
            _put(request, name, integer(name, getattr(request, name), 1, MAX_STEPS))
    if request.prior_best_of is not None:
        _put(request, "prior_best_of", integer("prior_best_of", request.prior_best_of, 1, 1024))
    for name in ("guidance", "prior_guidance"):
        if getattr(request, name) is not None:
            _put(request, name, number(name, getattr(request, name), MAX_GUIDANCE))
    for name in ("sampler", "prior_sampler"):
        if getattr(request, name) is not None:
            check_sampler(getattr(request, name), name)
    if request.size is not None:
        _put(request, "size", parse_size(request.size))
    if request.inverts and request.sampler not in (None, "ddim"):
        raise RequestError(
            f"sampler {request.sampler} cannot start from a picture's own noise; use ddim, or leave it out"
        )
    if request.inverts and request.steps == 1:
        raise RequestError("steps must be at least 2 for a picture's own noise; the noisiest is left out")


def _check_fields_of_modes(request: Request) -> None:
    """The fields that only some modes have, each by itself; and what no mode can do without."""
    for name in foreign_fields(request.mode):
        if getattr(request, name) is not None:
            *some, last = (mode for mode, names in FIELDS_OF.items() if name in names)
            modes = f"{', '.join(some)} and {last}" if some else last
            raise RequestError(f"{name} is a field of {modes}, and this request's mode is {request.mode}: leave it out")
    for name in FILE_FIELDS:
        if getattr(request, name) is not None:
            _put(request, name, _source(name, getattr(request, name)))
    whole = [("feather", 0, 1024), ("resample", 1, 100), ("frames", 2, MAX_FRAMES), ("best_of", 1, MAX_CANDIDATES)]
    for name, low, high in [*whole, *((side, 0, MAX_SIDE) for side in SIDES)]:
        if getattr(request, name) is not None:
            _put(request, name, integer(name, getattr(request, name), low, high))
    for name in (*SIDE_PROMPTS, "from_prompt"):
        if getattr(request, name) is not None:
            check_text(name, getattr(request, name))
    for name, choices in (("mask_mode", MASK_MODES), ("anchor", ANCHORS), ("fit", FITS)):
        if getattr(request, name) is not None:
            check_choice(name, getattr(request, name), choices)
    for name in ("keep_style", "strength", "fraction", "theta"):
        if getattr(request, name) is not None:
            _put(request, name, number(name, getattr(request, name), 1))
    if request.components is not None:
        _put(request, "components", numbers("components", request.components, lambda n, v: integer(n, v, 1, 65536)))
    if "image" in FIELDS_OF[request.mode] and request.image is None:
        raise RequestError(f"image is missing; name the picture to {request.mode}")
    if request.mode == "interpolate":
        _check_interpolation(request)
    if request.frames is not None and request.fraction is not None:
        raise RequestError("fraction is of one image; frames go from one end to the other: give one of them")


def _check_interpolation(request: Request) -> None:
    given = request.sources.split("|") if isinstance(request.sources, str) else request.sources
    if not isinstance(given, (list, tuple)) or len(given) < 2:
        raise RequestError("sources must be two or more pictures or prompts to go between; name them")
    _put(request, "sources", tuple(_source("sources", one) for one in given))
    if request.same_noise is not None and not isinstance(request.same_noise, bool):
        raise RequestError(f"same_noise must be true or false, not {show(request.same_noise)}")
    if request.weights is None:
        if len(request.sources) > 2:
            raise RequestError("weights are missing; say how much of each, for more than two sources")
        return
    _put(request, "weights", numbers("weights", request.weights, lambda n, v: number(n, v, 1e6)))
    if len(request.weights) != len(request.sources) or not any(request.weights):
        raise RequestError(f"weights must be one for each of {len(request.sources)} sources, and not all 0")
    if request.frames is not None or request.fraction is not None:
        raise RequestError("weights are those of one image; leave out frames and fraction")


def _check_ranking(request: Request) -> None:
    if request.best_of is None:
        return
    if request.n > request.best_of:
        raise RequestError(f"best_of must be at least n, the images kept of so many, not {request.best_of}")
    if request.frames is not None or len(request.components or ()) > 1:
        raise RequestError("best_of picks single images, and would tear a sequence apart; leave one out")
    if request.mode in CANVAS_MODES and not request.prompt.strip():
        raise RequestError("best_of ranks by how well an image shows the prompt; give one")


def _check_canvas(request: Request) -> None:
    """What an edit's fields may be together, and the size of an outpainting."""
    said = request.prompts or request.embedding is not None
    if request.keep_style is not None and request.keep_style < 1 and not said:
        raise RequestError("keep_style below 1 mixes the image's style with a prompt's: give a prompt, or leave it out")
    if request.mode == "inpaint" and request.size is not None:
        raise RequestError("size is not for inpainting, whose result is as large as the image: leave it out")
    if request.mode == "outpaint":
        margins = any(getattr(request, side) for side in SIDES)
        if margins == (request.size is not None):
            raise RequestError("say how far to outpaint: by left, right, top or bottom, or else by a size")
        if request.anchor is not None and request.size is None:
            raise RequestError("anchor goes with a size; left, right, top and bottom say themselves where to add")


def _put(request: Request, name: str, value: Any) -> None:
    """Set a field of a request that is being made; afterwards it is frozen."""
    object.__setattr__(request, name, value)


def _source(name: str, value: Any) -> Any:
    """A file's path as text, a prompt, or a PIL image."""
    if isinstance(value, (str, Path)):
        check_text(name, str(value))
        text = str(value) if isinstance(value, Path) else value.strip() if name == "sources" else value
        if not text.strip():
            raise RequestError(f"{name} holds nothing where a picture or a prompt should be; name it")
        return text
    if name == "embedding" or not hasattr(value, "getexif"):
        what = "a file of `unclip embed`" if name == "embedding" else "a picture, or a PIL image"
        raise RequestError(f"{name} must be the path of {what}, not {show(value)}")
    return value
