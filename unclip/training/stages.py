"""Make the tasks of a recipe's stages, and check all of them before the first one trains."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from unclip.checkpoints.decoder_copy import NAME as INPAINTING
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.layouts.native import read_stage
from unclip.checkpoints.networks import build_empty_network
from unclip.checkpoints.settings import UpsamplerSettings
from unclip.checkpoints.trainable import open_decoder
from unclip.errors import RecipeError
from unclip.inference.stage import Stage
from unclip.models.clip import Clip, ClipConfig
from unclip.system.files import read_json
from unclip.training.initial_weights import check_initial_weights
from unclip.training.recipe import Recipe, StageRecipe
from unclip.training.tasks.autoregressive_prior import AutoregressivePriorTask, with_components_of
from unclip.training.tasks.base import Examples, Task
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.inpainting_decoder import InpaintingDecoderTask
from unclip.training.tasks.options import SecondUpsamplerOptions, UpsamplerOptions
from unclip.training.tasks.prior import PriorTask
from unclip.training.tasks.second_upsampler import SecondUpsamplerTask
from unclip.training.tasks.upsampler import UpsamplerTask

NEED_CLIP = ("prior", "autoregressive_prior", "decoder", INPAINTING)
META = torch.device("meta")


def new_task(
    name: str, table: StageRecipe, clip: FrozenClip | None, examples: Examples, decoder: Stage | None = None
) -> Task:
    """The task of a stage, with new random weights. clip: for the stages that need it (`NEED_CLIP`).

    decoder: the trained one, of which the inpainting decoder is a copy. Raises RecipeError for settings of the network
    that do not fit.
    """
    if name == "clip":
        return ClipTask(table)
    if name == "upsampler":
        return UpsamplerTask(table, examples)
    if name == "second_upsampler":
        return SecondUpsamplerTask(table, examples)
    assert clip is not None
    if name == INPAINTING:
        assert decoder is not None
        return InpaintingDecoderTask(table, clip, examples, decoder)
    tasks = {"prior": PriorTask, "autoregressive_prior": AutoregressivePriorTask, "decoder": DecoderTask}
    return tasks[name](table, clip, examples)


def check_stages(recipe: Recipe, stages: Collection[str], model: Path | None, init: Mapping[str, Path]) -> None:
    """Build the networks of stages without memory for their weights, so that mistakes show before any training.

    model: the checkpoint folder of the run, whose CLIP and decoder are used if the stages do not include them. init:
    the models from which stages start. Raises RecipeError for settings that do not fit, CheckpointError for initial
    weights of other sizes or settings.
    """
    decoder = None
    if INPAINTING in stages and "decoder" not in stages:
        decoder = open_decoder(require_decoder(model), torch.device("cpu"), weights=False)
    with init_empty_weights():
        clip = FrozenClip(_empty_clip(recipe, stages, model).to(META), META)
        for name in stages:
            table = recipe.stage(name)
            if name in init and name == "autoregressive_prior":
                table = with_components_of(table, init[name])
            task = new_task(name, table, clip, _no_examples, decoder)
            if isinstance(task, DecoderTask):
                decoder = task.stage()
            if name in init:
                check_initial_weights(task, init[name])


def _empty_clip(recipe: Recipe, stages: Collection[str], model: Path | None) -> nn.Module:
    """The CLIP that the stages will use, without weights."""
    if "clip" not in stages and model is not None and (model / "clip" / "config.json").exists():
        return build_empty_network(model / "clip")
    return ClipTask(recipe.stage("clip")).network if "clip" in recipe.stages else Clip(ClipConfig())


def _no_examples(size: int, count: int = 16) -> tuple[Tensor, list[str]]:
    raise AssertionError("a check uses no images")


def check_clip(name: str, model: Path) -> None:
    """Raise RecipeError if a stage needs a CLIP and the checkpoint folder has none."""
    if name in NEED_CLIP and not (model / "clip" / "config.json").exists():
        raise RecipeError(
            f"the {name.replace('_', ' ')} needs a trained CLIP in {model / 'clip'}: run `unclip train clip` first"
        )


def require_decoder(model: Path | None) -> Path:
    """The checkpoint folder of a run. Raises RecipeError if it has no trained decoder to make a copy of."""
    if model is None:
        raise RecipeError("the inpainting decoder is a copy of a trained decoder: give the folder of its run by --out")
    if not (model / "decoder" / "config.json").exists():
        raise RecipeError(
            f"the inpainting decoder needs a trained decoder in {model / 'decoder'}: run `unclip train decoder` first"
        )
    return model


def check_redrawing(recipe: Recipe, stages: Collection[str], model: Path) -> None:
    """Raise RecipeError if an upsampler needs the run's decoder, and it is neither trained nor will be before it."""
    if "upsampler" not in stages or "decoder" in stages:
        return
    options = recipe.stage("upsampler").task
    assert isinstance(options, UpsamplerOptions)
    if options.redrawn and not (model / "decoder" / "config.json").exists():
        raise RecipeError(
            f"redrawn = {options.redrawn} in [upsampler.task] needs a trained decoder in {model}: run `unclip train "
            "decoder` first, or set redrawn = 0"
        )


def check_upsampled(recipe: Recipe, stages: Collection[str], model: Path) -> None:
    """Raise RecipeError if a second upsampler needs the run's first, and it is neither trained nor will be before it.

    Raises it too if that one's images have another size.
    """
    if "second_upsampler" not in stages or "upsampler" in stages:
        return
    options = recipe.stage("second_upsampler").task
    assert isinstance(options, SecondUpsamplerOptions)
    if not options.upsampled:
        return
    where = f"upsampled = {options.upsampled} in [second_upsampler.task]"
    if not (model / "upsampler" / "config.json").exists():
        raise RecipeError(
            f"{where} needs a trained upsampler in {model}: run `unclip train upsampler` first, or set upsampled = 0"
        )
    settings = read_stage(read_json(model / INDEX), "upsampler", model / INDEX)
    assert isinstance(settings, UpsamplerSettings)
    if settings.size != (options.small, options.small):
        raise RecipeError(
            f"{where}: the upsampler in {model} makes images of {settings.size[0]} px, not small = {options.small}"
        )
