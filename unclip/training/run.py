"""Train the stages of a recipe, and export them into one checkpoint folder."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.networks import class_name, load_network, save_network
from unclip.checkpoints.tensors import read_tensors
from unclip.errors import CheckpointError, DataError, InputError, RecipeError
from unclip.stickers.captions import vocabulary
from unclip.stickers.sprites import load_nouns
from unclip.system.device import pick_device
from unclip.system.files import read_json, write_json
from unclip.training.budget import Budget
from unclip.training.compatibility import (
    check_predictions,
    check_weight_settings,
    same_weights,
    weight_settings,
)
from unclip.training.data.datasets import open_dataset
from unclip.training.data.decode import Sample
from unclip.training.loop import Session, fit
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.state import PORTABLE, has_state
from unclip.training.tasks.base import Task
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.prior import PriorTask
from unclip.training.tasks.upsampler import UpsamplerTask
from unclip.version import __version__

CLIP_STATISTICS = ("clip_mean", "clip_std")
"""Tensors of a prior that are measured on its CLIP. They are measured again if the initial weights had another CLIP."""
EXAMPLES_START = 2**40
"""Index of the first example for statistics and sample grids: no run comes this far in an endless dataset."""

OpenImages = Callable[[int], Dataset[Sample]]
"""Side in pixels -> the training images as squares of that size."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of a training run.

    steps, minutes: length of each stage's run, resumed parts included; by default, the recipe's steps.
    resume: continue the runs in the output folder.
    init: a model whose weights the stages start from, and whose CLIP is used if none has been trained here.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    quiet: show no progress bar.
    """

    steps: int | None = None
    minutes: float | None = None
    resume: bool = False
    init: str | Path | None = None
    device: str = "auto"
    quiet: bool = False


def train(
    stage: str,
    recipe: str | Path,
    out: str | Path,
    options: TrainingOptions = TrainingOptions(),  # noqa: B008 (frozen)
) -> Path:
    """Train one stage, or "all" stages of the recipe in order, and return the checkpoint folder `out/model`.

    recipe: a preset's name or a TOML file. `out/STAGE` receives a stage's state, loss curve and samples. Raises
    InputError for mistakes in the recipe, the data or the options, and if `out` holds a run that `resume` does not
    continue.
    """
    loaded, out, device = load_recipe(recipe), Path(out), pick_device(options.device)
    model = out / "model"
    stages = list(loaded.stages) or ["clip"] if stage == "all" else [stage]
    resumed = stages_to_resume(stages, out) if options.resume else []
    if not options.resume and (existing := [out / name for name in stages if has_state(out / name)]):
        raise InputError(f"{existing[0]} holds a run already: add --resume to continue, or choose another --out")
    open_images = cache(partial(dataset, loaded))  # listing a folder or scanning shards may take minutes
    init = None if options.init is None else find_checkpoint(options.init)
    if init is not None:
        check_predictions([name for name in stages if name not in resumed], loaded, init)  # before hours of training
        if "clip" not in stages and not (model / "clip").exists():
            save_network(load_network(init / "clip"), model / "clip")
    with torch.random.fork_rng():  # the caller's random state stays as it is
        for name in stages:
            table = loaded.stage(name)
            images = partial(open_images, stage=name if table.data else None)
            torch.manual_seed(loaded.seed)  # for the initial weights
            task = new_task(name, loaded, model, device, images)
            if init is not None and name not in resumed:
                new_clip = name == "prior" and not same_weights(init / "clip", model / "clip")
                load_initial_weights(task, init, CLIP_STATISTICS if new_clip else ())
            session = Session(
                folder=out / name,
                seed=loaded.seed,
                budget=Budget(table.fit.steps if options.steps is None else options.steps, options.minutes),
                device=device,
                resume=name in resumed,
                quiet=options.quiet,
            )
            fit(task, images(task.size), table.fit, session)
            export(name, task, loaded, model)
    return model


def stages_to_resume(stages: list[str], out: Path) -> list[str]:
    """The stages that have a state; an interrupted run of all stages may not have reached the later ones.

    Raises CheckpointError if none has.
    """
    found = [name for name in stages if has_state(out / name)]
    if not found:
        folders = " or ".join(str(out / name) for name in stages)
        raise CheckpointError(f"nothing to resume in {folders}: leave out --resume, or copy a {PORTABLE} there")
    return found


def load_initial_weights(task: Task, model: Path, exclude: Collection[str] = ()) -> None:
    """Load the weights of a checkpoint into a task's networks, except those named in `exclude`.

    Raises CheckpointError if sizes or settings differ.
    """
    for component, network in task.networks().items():
        weights = read_tensors(model / component, "cpu", torch.float32)
        weights |= {name: value for name, value in network.state_dict().items() if name in exclude}
        try:
            network.load_state_dict(weights)
        except RuntimeError:
            raise CheckpointError(
                f"the {component} of {model} does not have the recipe's sizes: use a model of this recipe"
            ) from None
        found = {f"{component} {key}": value for key, value in read_json(model / component / "config.json").items()}
        check_weight_settings(model, weight_settings({component: network}, task.predicts), found)


def dataset(recipe: Recipe, size: int, stage: str | None = None) -> Dataset[Sample]:
    """The training images of a recipe as squares of `size` pixels; with a stage, including its own data table.

    Raises DataError for a mistake in the tables, or for data that cannot be read.
    """
    try:
        return open_dataset(recipe.data_table(stage), size, recipe.seed)
    except DataError as error:
        raise DataError(f"{recipe.data_source(stage)}: {error}") from None


def new_task(name: str, recipe: Recipe, model: Path, device: torch.device, images: OpenImages) -> Task:
    """The task of a stage, with new random weights.

    model: the checkpoint folder with the trained CLIP, which the prior and the decoder need. Raises RecipeError if it
    is missing.
    """
    table = recipe.stage(name)
    examples = partial(read_examples, images, device)
    if name == "clip":
        return ClipTask(table)
    if name == "upsampler":
        return UpsamplerTask(table, examples)
    if not (model / "clip" / "config.json").exists():
        raise RecipeError(f"the {name} needs a trained CLIP in {model / 'clip'}: run `unclip train clip` first")
    kind = PriorTask if name == "prior" else DecoderTask
    return kind(table, FrozenClip(model / "clip", device), examples)


def read_examples(images: OpenImages, device: torch.device, size: int, count: int = 16) -> tuple[Tensor, list[str]]:
    """Images `count 3 size size` in [-1, 1] and their captions, for statistics and sample grids."""
    source = images(size)
    pixels, captions = zip(*(source[EXAMPLES_START + i] for i in range(count)), strict=True)
    return torch.stack(pixels).to(device).float() / 127.5 - 1, list(captions)


def export(name: str, task: Task, recipe: Recipe, model: Path) -> None:
    """Write a trained stage's networks and schedule into the checkpoint folder, and add them to its index."""
    index: dict[str, Any] = read_json(model / INDEX) if (model / INDEX).exists() else {"stages": {}}
    index |= {"_class_name": "Unclip", "_unclip_version": __version__, "name": recipe.name}
    if (model / "clip").exists():  # `init` may have copied it
        index["clip"] = ["unclip", "Clip"]
    for component, network in task.networks().items():
        save_network(network, model / component)
        library = type(network).__module__.partition(".")[0]
        index[component] = [library, class_name(network)]
    if task.schedule is not None:
        config = task.schedule.to_config()
        write_json(model / f"{name}_scheduler" / "scheduler_config.json", config)
        index[f"{name}_scheduler"] = ["diffusers", config["_class_name"]]
        index["stages"] = {**index["stages"], name: task.stage_config()}
    if recipe.data.get("kind") == "scenes":
        # The words of the training captions: the finished model reports prompts with other words.
        write_json(model / "vocabulary.json", {"words": sorted(vocabulary(common_nouns(recipe)).words)})
    write_json(model / INDEX, index)


def common_nouns(recipe: Recipe) -> tuple[str, ...]:
    """The nouns that occur in the scenes of all stages: the finished model can generate these."""
    nouns = tuple(load_nouns())
    for stage in recipe.stages.values():
        used = {**recipe.data, **stage.data}.get("nouns", nouns)
        nouns = tuple(noun for noun in nouns if noun in used)
    return nouns
