"""Train the stages of a recipe, and export them into one checkpoint folder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.networks import class_name, load_network, save_network
from unclip.errors import CheckpointError, DataError, InputError, TrainingError, is_out_of_memory
from unclip.stickers.captions import vocabulary
from unclip.stickers.sprites import load_nouns
from unclip.system.device import pick_device
from unclip.system.files import read_json, remove_temporaries, write_json
from unclip.training.budget import Budget
from unclip.training.compatibility import check_predictions, same_weights
from unclip.training.data.check import check_listing
from unclip.training.data.datasets import Source, make_dataset, open_source, read_sample
from unclip.training.data.decode import Sample
from unclip.training.data.stored import Listing, untracked
from unclip.training.loop import Session, fit
from unclip.training.monitor import FaultList, print_note, track
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.stages import NEED_CLIP, check_clip, check_stages, load_initial_weights, new_task
from unclip.training.state import PORTABLE, has_state
from unclip.training.tasks.base import Task
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.version import __version__

CLIP_STATISTICS = ("clip_mean", "clip_std")
"""Tensors of a prior that are measured on its CLIP. They are measured again if the initial weights had another CLIP."""
EXAMPLES_START = 2**40
"""Index of the first example for statistics and sample grids: no run comes this far in an endless dataset."""
STALE_MINUTES = 60
"""Age of a temporary file in the checkpoint folder, which several runs may share, at which it is a leftover."""

OpenImages = Callable[[int], Dataset[Sample]]
"""Side in pixels -> the training images as squares of that size."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of a training run.

    steps, minutes: length of each stage's run, resumed parts included; by default, the recipe's steps.
    resume: continue the runs in the output folder.
    init: a model whose weights the stages start from, and whose CLIP is used if none has been trained here.
    skip_bad: train without the images that cannot be read; otherwise, they are an error.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    quiet: show no progress bar and no notes.
    """

    steps: int | None = None
    minutes: float | None = None
    resume: bool = False
    init: str | Path | None = None
    skip_bad: bool = False
    device: str = "auto"
    quiet: bool = False


def train(
    stage: str,
    recipe: str | Path,
    out: str | Path,
    options: TrainingOptions = TrainingOptions(),  # noqa: B008 (frozen)
) -> Path:
    """Train one stage, or "all" stages of the recipe in order, and return the checkpoint folder `out/model`.

    recipe: a preset's name or a TOML file. `out/STAGE` receives a stage's state, loss curve and samples. The recipe of
    every stage, and the header and the caption of every image, are checked before the first stage trains. Raises
    InputError for mistakes in the recipe, the data or the options, and if `out` holds a run that `resume` does not
    continue; `loop.fit` lists the errors that end a run later.
    """
    out, device = Path(out), pick_device(options.device)
    loaded, stages, resumed, init = check_run(stage, recipe, out, options)
    sources = open_sources(loaded, stages, options)
    model = out / "model"

    remove_temporaries(model, STALE_MINUTES)
    if init is not None and "clip" not in stages and not (model / "clip").exists():
        save_network(load_network(init / "clip"), model / "clip")
    with torch.random.fork_rng():  # the caller's random state stays as it is
        for number, name in enumerate(stages, start=1):
            with explained_memory_errors(name):
                table = loaded.stage(name)
                images = partial(make_dataset, sources[loaded.data_source(name)], seed=loaded.seed)
                examples = partial(read_examples, images, device, skip_bad=options.skip_bad)
                torch.manual_seed(loaded.seed)  # for the initial weights
                clip = FrozenClip.load(model / "clip", device) if name in NEED_CLIP else None
                task = new_task(name, table, clip, examples)
                task.fit_to_data()
                if init is not None and name not in resumed:
                    new_clip = name == "prior" and not same_weights(init / "clip", model / "clip")
                    load_initial_weights(task, init, CLIP_STATISTICS if new_clip else ())
                session = Session(
                    title=f"{name} ({number} of {len(stages)})" if len(stages) > 1 else name,
                    folder=out / name,
                    seed=loaded.seed,
                    budget=Budget(table.fit.steps if options.steps is None else options.steps, options.minutes),
                    device=device,
                    resume=name in resumed,
                    skip_bad=options.skip_bad,
                    quiet=options.quiet,
                )
                fit(task, images(task.size), table.fit, session)
                export(name, task, loaded, model)
    return model


@contextmanager
def explained_memory_errors(stage: str) -> Iterator[None]:
    """Raise TrainingError in the place of an error that says that the memory is used up."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fix = "lower batch_size, or use a smaller network, in the recipe"
        raise TrainingError(f"the {stage} ran out of memory: {fix}") from error


def check(
    stage: str,
    recipe: str | Path,
    out: str | Path | None = None,
    options: TrainingOptions = TrainingOptions(),  # noqa: B008 (frozen)
    on_fault: Callable[[str], None] = print,
) -> None:
    """Check the recipe and the data of one stage or "all" stages without training. All images are decoded.

    out: the folder of the run; None checks nothing about a folder. on_fault: receives a line for each file
    that cannot be used. Raises InputError as `train` does.
    """
    loaded, stages, *_ = check_run(stage, recipe, None if out is None else Path(out), options)
    for where, source in open_sources(loaded, stages, options, on_fault=on_fault).items():
        if not options.quiet:
            found = f"{len(source.samples):,} images" if isinstance(source, Listing) else "scenes, made on the fly"
            print_note(f"{where}: {found}")


def check_run(
    stage: str, recipe: str | Path, out: Path | None, options: TrainingOptions
) -> tuple[Recipe, list[str], list[str], Path | None]:
    """The recipe, the stages of a run in order, those of them that resume, and the model they start from.

    Raises InputError for mistakes in the recipe of any stage or in the options.
    """
    loaded = load_recipe(recipe)
    stages = list(loaded.stages) or ["clip"] if stage == "all" else [stage]
    for name in stages:
        loaded.stage(name)
    resumed: list[str] = []
    if out is not None and options.resume:
        resumed = stages_to_resume(stages, out)
    elif out is not None and (existing := [out / name for name in stages if has_state(out / name)]):
        raise InputError(f"{existing[0]} holds a run already: add --resume to continue, or choose another --out")
    model = None if out is None else out / "model"
    init = None if options.init is None else find_checkpoint(options.init)
    new = [name for name in stages if name not in resumed]
    if init is not None:
        check_predictions(new, loaded, init)
    elif model is not None and "clip" not in stages:
        for name in stages:
            check_clip(name, model)
    check_stages(loaded, stages, model, {} if init is None else dict.fromkeys(new, init))
    return loaded, stages, resumed, init


def stages_to_resume(stages: list[str], out: Path) -> list[str]:
    """The stages that have a state; an interrupted run of all stages may not have reached the later ones.

    Raises CheckpointError if none has.
    """
    found = [name for name in stages if has_state(out / name)]
    if not found:
        folders = " or ".join(str(out / name) for name in stages)
        raise CheckpointError(f"nothing to resume in {folders}: leave out --resume, or copy a {PORTABLE} there")
    return found


def open_sources(
    recipe: Recipe, stages: list[str], options: TrainingOptions, on_fault: Callable[[str], None] | None = None
) -> Mapping[str, Source]:
    """The data of stages by the recipe's tables that describe them (`Recipe.data_source`), listed and checked.

    on_fault: receives a line for each file that cannot be used, and has all images decoded; by default, headers are
    read and the first faults are printed. Raises DataError for a mistake in the tables, and for files that cannot be
    used, unless `options.skip_bad`.
    """
    tracker = untracked if options.quiet else track
    sources: dict[str, Source] = {}
    for name in stages:
        where = recipe.data_source(name)
        if where in sources:
            continue
        try:
            source = open_source(recipe.data_table(name), tracker)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if isinstance(source, Listing):
            for note in () if options.quiet else source.notes:
                print_note(note)
            faults = FaultList(options.quiet, options.skip_bad)
            try:
                source = check_listing(
                    source,
                    where,
                    faults.add if on_fault is None else on_fault,
                    skip_bad=options.skip_bad,
                    decode=on_fault is not None,
                    track=tracker,
                )
            finally:
                faults.report()
        sources[where] = source
    return sources


def read_examples(
    images: OpenImages, device: torch.device, size: int, count: int = 16, skip_bad: bool = False
) -> tuple[Tensor, list[str]]:
    """Images `count 3 size size` in [-1, 1] and their captions, for statistics and sample grids."""
    source = images(size)
    samples = [read_sample(source, EXAMPLES_START + i, skip_bad)[0] for i in range(count)]
    pixels, captions = zip(*samples, strict=True)
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
