"""Resolve a request for a model: fill in its defaults, and check that the model can run it."""

import secrets
from typing import Any

from unclip.errors import RequestError
from unclip.inference.model import UnclipModel
from unclip.inference.speeds import speed_fields
from unclip.modes.base import decoder_of, resolved
from unclip.modes.distilled import check_distilled
from unclip.modes.inpainting.prepare import check_edit
from unclip.modes.registry import mode_of
from unclip.requests.fields import PRIOR_FIELDS, foreign_fields
from unclip.requests.request import Request


def resolve(model: UnclipModel, request: Request) -> Request:
    """The request with every open field filled in, and a random seed if it has none.

    Raises RequestError for a size that the model does not generate, and for combinations of input files that do not
    fit, or that a distilled stage cannot run; DataError for an input file whose header cannot be read.
    """
    mode = mode_of(request)
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    if request.needs_square and any(width != height for width, height in model.sizes):
        raise RequestError(f"{model.name} does not generate squares, which {request.mode} needs: use another model")
    if request.embedding is not None:
        model.encoder.read_embedding(request.embedding)  # fail before any work is done
    mode.check(model, request)
    foreign = foreign_fields(request.mode)
    defaults = {
        **model_defaults(model, request.prior, request.edits_canvas),
        **speed_defaults(model, request),
        **mode.defaults(model, request),
    }
    if request.edits_canvas:
        defaults.pop("size")  # the canvas has its own
    request = request.resolved(**{name: v for name, v in defaults.items() if name not in foreign}, seed=seed)
    if request.noise_level is not None:
        model.check_noise_level(request.noise_level)
    if request.size is not None and not request.edits_canvas:
        model.check_size(request.size)
    check_distilled(model, request)
    return request


def model_defaults(model: UnclipModel, prior: str | None = None, edits: bool = False) -> dict[str, Any]:
    """The model's defaults of the sampling fields of a request, for text to image.

    prior: a kind of prior; None is the model's default. edits: for edits of an image, whose decoder may be another.
    Raises RequestError for a kind that the model does not have.
    """
    decoder = model.edit_decoder if edits else model.decoder
    kind = next(iter(model.priors), None) if prior is None else prior
    return {
        "steps": decoder.steps,
        "guidance": decoder.guidance,
        "sampler": decoder.sampler,
        "upsampler_steps": model.upsamplers[0].steps if model.upsamplers else 1,
        "noise_level": 0 if model.noise_levels else None,
        "size": model.default_size,
        **(
            dict.fromkeys(PRIOR_FIELDS) | {"prior_best_of": 1}
            if kind is None
            else dict.fromkeys(PRIOR_FIELDS) | {"prior": kind} | model.require_prior(kind).defaults()
        ),
    }


def speed_defaults(model: UnclipModel, request: Request) -> dict[str, Any]:
    """The fields that the request's speed sets, over the model's own defaults.

    Raises RequestError for a speed that the model has no settings for.
    """
    if request.speed is None:
        return {}
    if request.speed != "best" and request.speed not in model.speeds:
        raise RequestError(f"{model.name} has no settings for speed {request.speed}: set steps, or leave speed out")
    defaults = model_defaults(model, request.prior, request.edits_canvas)
    return speed_fields(model.speeds, request.speed, defaults, request.inverts)


def output_size(model: UnclipModel, request: Request) -> tuple[int, int]:
    """(width, height) in pixels of the images of a request: of an edit, the size of its canvas."""
    return check_edit(request) if request.edits_canvas else resolved(resolve(model, request).size)


def check_requirements(model: UnclipModel, request: Request) -> None:
    """Raise RequestError if the model lacks a part that the resolved request needs: a prior, an encoder of CLIP, an
    upsampler, or deep layers to skip.
    """
    needed = mode_of(request).requirements(model, request)
    if "prior" in needed:
        model.require_prior(request.prior)
    if "text encoder" in needed:
        model.encoder.require_text_encoder()
    if "image encoder" in needed or request.best_of is not None:
        model.encoder.require_image_encoder("give a prompt, and keep_style 0, or " if request.keep_style else "")
    if request.cache_every not in (None, 1):
        decoder_of(model, request).require_reuse()
    if request.upsampler_cache_every not in (None, 1):
        if not model.upsamplers:
            raise RequestError(f"{model.name} has no upsampler: leave out upsampler_cache_every")
        for upsampler in model.upsamplers:
            if not upsampler.feed_forward:  # it has no steps between which anything could be reused
                upsampler.require_reuse()
