"""Requests for models with distilled stages: what they cannot do is refused, what helps less is noted."""

from collections.abc import Iterator

from unclip.errors import RequestError
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.stage import Stage
from unclip.modes.base import decoder_of
from unclip.requests.fields import foreign_fields
from unclip.requests.request import Request


def check_distilled(model: UnclipModel, request: Request) -> None:
    """Raise RequestError for a resolved request that a distilled stage of the model cannot run."""
    prior = prior_stage(model, request)
    if (decoder := decoder_of(model, request).distillation) is not None:
        if request.inverts:
            decoder.check_inversion()
        if request.guidance is not None:
            decoder.check_guidance(request.guidance)
    guides_prior = uses_prior(request) and (prior is None or prior.distillation is None) and bool(model.priors)
    if prior is not None and prior.distillation is not None and request.prior_guidance is not None:
        prior.distillation.check_guidance(request.prior_guidance, "prior_guidance")
    if request.negative_prompt.strip() and decoder is not None and not guides_prior:
        raise RequestError(
            "negative_prompt has no effect, because guidance was distilled into this model with an empty one: leave "
            f"it out, or use its teacher {decoder.teacher}"
        )


def distillation_notes(model: UnclipModel, request: Request) -> Iterator[str]:
    """A note for each setting of a resolved request that does not suit the network of a stage."""
    prior = prior_stage(model, request)
    stages: list[tuple[str, str, Stage, int | None, str | None]] = [
        ("decoder", "", decoder_of(model, request), request.steps, request.sampler)
    ]
    if prior is not None and uses_prior(request):
        stages.append(("prior", "prior_", prior, request.prior_steps, request.prior_sampler))
    if model.upsamplers and (request.size is None or request.size != model.sizes[0]):
        upsampler = model.upsamplers[0]
        stages.append(("upsampler", "upsampler_", upsampler, request.upsampler_steps, upsampler.sampler))
    given = [name for name in ("guidance_interval", "guidance_every") if getattr(request, name) not in (None, 1)]
    if decoder_of(model, request).distillation is not None and given:
        yield f"{' and '.join(given)}: no effect, because guidance was distilled into the decoder"
    for name, prefix, stage, steps, sampler in stages:
        distillation = stage.distillation
        segments = 0 if distillation is None else distillation.segments
        if sampler == "consistency" and segments != 1:
            yield (
                f"{prefix}sampler consistency is for a {name} that was distilled for it; this one gives blurred images "
                f"with it: use {stage.sampler}"
            )
        elif segments == 1 and sampler not in (None, "consistency", "ddim"):
            yield f"the {name} was distilled for the sampler consistency; {sampler} gives worse images"
        elif segments > 1 and (sampler not in (None, "ddim") or steps not in (None, segments)):
            yield f"the {name} was distilled for {segments} steps of ddim; other steps and samplers give worse images"
        if distillation is not None and name == "decoder" and request.negative_prompt.strip():
            yield "the negative prompt reaches the prior only, because guidance was distilled into the decoder"
        if distillation is not None and name == "prior" and request.negative_prompt.strip():
            yield "the negative prompt reaches the decoder only, because guidance was distilled into the prior"


def prior_stage(model: UnclipModel, request: Request) -> Stage | None:
    """The stage of the diffusion prior that a resolved request uses; None for another kind of prior, or without one."""
    prior = None if request.prior is None else model.priors.get(request.prior)
    return prior.stage if isinstance(prior, DiffusionPrior) else None


def uses_prior(request: Request) -> bool:
    """Whether the mode of a request may sample from the prior."""
    return "prior_guidance" not in foreign_fields(request.mode) and request.embedding is None
