"""The entry of model_index.json that says which stages of a checkpoint, of any layout, are distilled.

Its name begins with an underscore, so that diffusers takes it for no component.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt, StrictStr

from unclip.checkpoints.index import INDEX
from unclip.checkpoints.settings import FIX, Settings, validate
from unclip.diffusion.sampler_names import check_sampler
from unclip.errors import CheckpointError
from unclip.inference.distillation import GUIDANCE_CHANNELS, Distillation
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.stage import Stage
from unclip.models.config import diffusers_config
from unclip.requests.fields import MAX_GUIDANCE, MAX_STEPS
from unclip.requests.values import integer, number, show

KEY = "_distilled"


def _range(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"guidance is {show(value)}, and should be the lowest and the highest scale")
    low, high = (number("guidance", each, MAX_GUIDANCE) for each in value)
    if low > high:
        raise ValueError(f"guidance is {show(value)}, and should begin with the lowest scale")
    return low, high


class DistilledStage(Settings):
    """A distilled stage.

    teacher   name of the model it was distilled from
    guidance  the lowest and the highest guidance scale that the network has learned; equal if the scale is fixed
    scale     default guidance scale, within that range
    segments  see `Distillation`
    sampler   default sampler
    steps     default denoising steps
    """

    teacher: StrictStr
    guidance: Annotated[tuple[float, float], BeforeValidator(_range)]
    scale: Annotated[float, BeforeValidator(lambda value: number("scale", value, MAX_GUIDANCE))]
    segments: StrictInt = Field(ge=0, le=MAX_STEPS)
    sampler: Annotated[str, BeforeValidator(check_sampler)]
    steps: Annotated[int, BeforeValidator(lambda value: integer("steps", value, 1, MAX_STEPS))]

    @property
    def distillation(self) -> Distillation:
        """The distillation, as a stage needs it for sampling."""
        return Distillation(self.teacher, self.guidance, self.segments)


def read_distilled(index: Mapping[str, Any], folder: Path) -> dict[str, DistilledStage]:
    """The distilled stages of a model_index.json by name. folder: of it, for messages. Raises CheckpointError."""
    entry = index.get(KEY, {})
    if not isinstance(entry, dict) or not all(isinstance(stage, dict) for stage in entry.values()):
        raise CheckpointError(f"{folder / INDEX}: {KEY} is {show(entry)}, and should be a table of stages; {FIX}")
    found = {name: validate(DistilledStage, stage, f"{folder / INDEX}, {KEY} {name}") for name, stage in entry.items()}
    for name, stage in found.items():
        if not stage.guidance[0] <= stage.scale <= stage.guidance[1]:
            raise CheckpointError(f"{folder / INDEX}, {KEY} {name}: scale {stage.scale} is out of its range; {FIX}")
    return found


def with_distilled(model: UnclipModel, distilled: Mapping[str, DistilledStage]) -> UnclipModel:
    """The model whose stages know that they are distilled, with their defaults. Raises CheckpointError for misfits."""
    where = f"{model.name}, {KEY}"
    for name, settings in distilled.items():
        if name == "decoder":
            # The teacher's bundles of settings for a speed do not suit the student.
            model = replace(model, decoder=distill_stage(model.decoder, settings, where), speeds={})
        elif name == "prior" and isinstance(model.prior, DiffusionPrior):
            model = replace(model, prior=replace(model.prior, stage=distill_stage(model.prior.stage, settings, where)))
            model = without_speeds(model, "prior_") if settings.segments else model
        elif name == "upsampler" and model.upsamplers:
            first, *others = model.upsamplers
            model = replace(model, upsamplers=(distill_stage(first, settings, where), *others))
            model = without_speeds(model, "upsampler_") if settings.segments else model
        else:
            raise CheckpointError(f"{where}: the model has no {name[:80]}; {FIX}")
    return model


def without_speeds(model: UnclipModel, prefix: str) -> UnclipModel:
    """The model with bundles for a speed that leave the fields with a prefix as they are.

    A stage that was distilled for few steps needs the sampler and the steps that it was distilled for.
    """
    speeds = {
        speed: {name: value for name, value in bundle.items() if not name.startswith(prefix)}
        for speed, bundle in model.speeds.items()
    }
    return replace(model, speeds=speeds)


def distill_stage(stage: Stage, settings: DistilledStage, where: str = KEY) -> Stage:
    """A stage with a distilled network. where: for messages. Raises CheckpointError for a network without the scale."""
    distillation = settings.distillation
    if distillation.embeds_guidance:
        unet = getattr(stage.network, "unet", None)
        channels = None if unet is None else diffusers_config(unet).get("time_cond_proj_dim")
        if channels != GUIDANCE_CHANNELS:
            raise CheckpointError(
                f"{where}: the {stage.name} has no input of {GUIDANCE_CHANNELS} values for the guidance scale; {FIX}"
            )
    return replace(
        stage,
        distillation=distillation,
        schedule=distillation.adapt(stage.schedule),
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=settings.scale,
    )
