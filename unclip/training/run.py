"""From a recipe to a trained checkpoint folder: stage by stage, each from what the ones before it left."""

from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unclip.checkpoints.index import INDEX, prediction_target
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.networks import class_name, load_network, save_network
from unclip.checkpoints.tensors import read_tensors
from unclip.errors import CheckpointError, DataError, InputError, RecipeError
from unclip.stickers.captions import vocabulary
from unclip.stickers.sprites import load_nouns
from unclip.system.device import pick_device
from unclip.system.files import read_json, write_json
from unclip.training.budget import Budget
from unclip.training.compatibility import check_meaning, meaning
from unclip.training.data.decode import Sample
from unclip.training.data.open import open_dataset
from unclip.training.loop import fit
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.state import PORTABLE, has_state
from unclip.training.tasks.base import Task
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.options import PREDICTIONS, check_sizes, prediction
from unclip.training.tasks.prior import PriorTask
from unclip.training.tasks.upsampler import UpsamplerTask
from unclip.version import __version__

MEASURED = ("clip_mean", "clip_std")
"""What a prior takes from its CLIP: anew, where that is not the CLIP of the weights that it starts from."""
Pictures = Callable[[int], Dataset[Sample]]
"""size -> the recipe's pictures as squares of that many pixels."""


def train(
    stage: str,
    recipe: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    device: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    quiet: bool = False,
) -> Path:
    """Train one stage, or "all" that the recipe has, in order; returns the checkpoint folder `out/model`.

    recipe: a preset's name or a TOML file. init: a model whose weights the stages start from, and whose CLIP is used
    where none is trained here. minutes or steps: the budget of each stage, resumed parts included; else the recipe's.
    `out/STAGE` holds the run of a stage: its state, loss curve and samples. Raises InputError for what a user
    can mend; a run that is there already is one such thing, unless `resume` says to go on with it.
    """
    loaded, out, where = load_recipe(recipe), Path(out), pick_device(device)
    check_sizes(loaded)
    names = list(loaded.stages) or ["clip"] if stage == "all" else [stage]
    resumed = stages_to_resume(names, out) if resume else []
    if not resume and (there := [out / name for name in names if has_state(out / name)]):
        raise InputError(f"{there[0]} holds a run already: add --resume to go on, or choose another --out")
    opened = cache(partial(dataset, loaded))  # to list a folder or walk through shards may take minutes
    start = None if init is None else find_checkpoint(init)
    if start is not None:
        check_predictions([name for name in names if name not in resumed], loaded, start)
    if start is not None and "clip" not in names and not (out / "model" / "clip").exists():
        save_network(load_network(start / "clip"), out / "model" / "clip")
    with torch.random.fork_rng():  # the seeds below are not the caller's
        for name in names:
            table = loaded.stage(name)
            pictures = partial(opened, stage=name if table.data else None)
            torch.manual_seed(loaded.seed)  # the initial weights
            task = new_task(name, loaded, out / "model", where, pictures)
            if start is not None and name not in resumed:
                other_clip = name == "prior" and not same_weights(start / "clip", out / "model" / "clip")
                start_from(task, start, MEASURED if other_clip else ())
            fit(
                task,
                pictures(task.size),
                table.fit,
                out / name,
                seed=loaded.seed,
                budget=Budget(table.fit.steps if steps is None else steps, minutes),
                device=where,
                resume=name in resumed,
                quiet=quiet,
                meaning=meaning(task.networks(), task.predicts),
            )
            export(name, task, loaded, out / "model")
    return out / "model"


def same_weights(one: Path, other: Path) -> bool:
    """Whether two components' folders hold the same weights but for rounding to half precision."""
    first, second = read_tensors(one, "cpu", torch.float32), read_tensors(other, "cpu", torch.float32)
    return first.keys() == second.keys() and all(
        value.shape == second[name].shape and torch.allclose(value, second[name], rtol=2e-3, atol=1e-6)
        for name, value in first.items()
    )


def start_from(task: Task, model: Path, but: Collection[str] = ()) -> None:
    """Give a task's networks the weights of a checkpoint, `but` some. Raises CheckpointError when sizes differ."""
    for component, network in task.networks().items():
        weights = read_tensors(model / component, "cpu", torch.float32)
        weights |= {name: value for name, value in network.state_dict().items() if name in but}
        try:
            network.load_state_dict(weights)
        except RuntimeError:
            raise CheckpointError(
                f"the {component} of {model} is not of the recipe's sizes: start from the model of this recipe"
            ) from None
        theirs = {f"{component} {key}": value for key, value in read_json(model / component / "config.json").items()}
        check_meaning(model, meaning({component: network}, task.predicts), theirs)


def check_predictions(names: Collection[str], recipe: Recipe, model: Path) -> None:
    """Raise RecipeError unless the stages of `model` predict what the recipe's do: before hours go into the first."""
    for name in names:
        if name == "clip":
            continue
        ours, theirs = prediction(recipe, name), prediction_target(model, name)
        if theirs != ours:
            allowed = (
                f'set prediction = "{theirs}" in [{name}.task]' if theirs in PREDICTIONS[name] else "train it anew"
            )
            raise RecipeError(f'the {name} of {model} predicts "{theirs}", and this recipe\'s "{ours}": {allowed}')


def stages_to_resume(names: list[str], out: Path) -> list[str]:
    """Those that have a state: an interrupted chain may not have come to its later stages. Raises CheckpointError."""
    found = [name for name in names if has_state(out / name)]
    if not found:
        folders = " or ".join(str(out / name) for name in names)
        raise CheckpointError(f"nothing to resume in {folders}: leave out --resume, or copy a {PORTABLE} there")
    return found


def dataset(recipe: Recipe, size: int, stage: str | None = None) -> Dataset[Sample]:
    """The pictures that the recipe names, as squares of `size` pixels; with a stage, as its own table has them."""
    try:
        return open_dataset({**recipe.data, **(recipe.stage(stage).data if stage else {})}, size, recipe.seed)
    except DataError as error:
        where = f"[data] and [{stage}.data]" if stage else "[data]"
        raise DataError(f"{recipe.source} {where}: {error}") from None


def new_task(name: str, recipe: Recipe, model: Path, device: torch.device, pictures: Pictures) -> Task:
    """The task of a stage with fresh weights. The prior and the decoder need the CLIP that lies in `model`."""
    table = recipe.stage(name)
    if name == "clip":
        return ClipTask(table)
    if name == "upsampler":
        return UpsamplerTask(table, partial(examples, pictures, device))
    if not (model / "clip" / "config.json").exists():
        raise RecipeError(f"the {name} needs a trained CLIP in {model / 'clip'}: run `unclip train clip` first")
    kind = PriorTask if name == "prior" else DecoderTask
    return kind(table, FrozenClip(model / "clip", device), partial(examples, pictures, device))


def examples(pictures: Pictures, device: torch.device, size: int, count: int = 16) -> tuple[Tensor, list[str]]:
    """A few pictures `b 3 h w` in [-1, 1] and their captions, from far beyond what a run reaches in an endless set."""
    source = pictures(size)
    images, captions = zip(*(source[2**40 + i] for i in range(count)), strict=True)
    return torch.stack(images).to(device).float() / 127.5 - 1, list(captions)


def export(name: str, task: Task, recipe: Recipe, model: Path) -> None:
    """Write a trained stage's networks and its schedule into the checkpoint folder, and enter them in its index."""
    index: dict[str, Any] = read_json(model / INDEX) if (model / INDEX).exists() else {"stages": {}}
    index |= {"_class_name": "Unclip", "_unclip_version": __version__, "name": recipe.name}
    if (model / "clip").exists():  # `init` may have brought it
        index["clip"] = ["unclip", "Clip"]
    for component, network in task.networks().items():
        save_network(network, model / component)
        library = type(network).__module__.partition(".")[0]
        index[component] = [library, class_name(network)]
    if name != "clip":
        config = task.schedule.to_config()
        write_json(model / f"{name}_scheduler" / "scheduler_config.json", config)
        index[f"{name}_scheduler"] = ["diffusers", config["_class_name"]]
        sampling = asdict(recipe.stage(name).sampling)
        if name != "prior":
            sampling |= {"size": [task.output_size] * 2, "codec": task.codec.to_config()}
        if name == "decoder":
            sampling["shown_above"] = task.options.shown_above
        if name == "upsampler":
            sampling["difference"] = task.network.difference
        index["stages"] = {**index["stages"], name: sampling}
    if recipe.data.get("kind") == "scenes":
        # The words that the training captions are made of: a prompt with others is told so.
        write_json(model / "vocabulary.json", {"words": sorted(vocabulary(shared_nouns(recipe)).words)})
    write_json(model / INDEX, index)


def shared_nouns(recipe: Recipe) -> tuple[str, ...]:
    """The nouns that all stages of a recipe of scenes are shown: what the finished model can be asked."""
    nouns = tuple(load_nouns())
    for stage in recipe.stages.values():
        shown = {**recipe.data, **stage.data}.get("nouns", nouns)
        nouns = tuple(noun for noun in nouns if noun in shown)
    return nouns
