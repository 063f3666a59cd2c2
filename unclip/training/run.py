"""Train the stages of a recipe, and export them into one checkpoint folder."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unclip.checkpoints.decoder_copy import NAME as INPAINTING
from unclip.checkpoints.decoder_copy import PARTS, fingerprint, is_current, save_copy
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.networks import class_name, load_network, save_network
from unclip.checkpoints.token_embedding import fits_clip, hash_values
from unclip.checkpoints.trainable import open_decoder
from unclip.errors import InputError
from unclip.stickers.captions import vocabulary
from unclip.stickers.compose import SceneOptions
from unclip.stickers.sprites import STYLES, load_nouns
from unclip.system.files import read_json, remove_temporaries, write_json
from unclip.training.accelerator import check_division, connect
from unclip.training.budget import Budget
from unclip.training.compatibility import check_predictions, same_weights
from unclip.training.data.datasets import Source, make_dataset
from unclip.training.data.prompts import PromptList
from unclip.training.data.stored import Listing
from unclip.training.distillation import check_distillation, distill
from unclip.training.fine_tuning import check_fine_tuning, fine_tune, is_fine_tuning
from unclip.training.initial_weights import load_initial_weights
from unclip.training.loop import Session, fit
from unclip.training.monitor import print_note
from unclip.training.options import TrainingOptions, check_no_state, explained_memory_errors, stages_to_resume
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.sources import open_sources, read_examples
from unclip.training.stages import (
    NEED_CLIP,
    check_clip,
    check_redrawing,
    check_stages,
    check_upsampled,
    new_task,
)
from unclip.training.tasks.autoregressive_prior import with_components_of
from unclip.training.tasks.base import Task
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.inpainting_decoder import InpaintingDecoderTask
from unclip.training.tasks.redrawing import Redrawing
from unclip.training.tasks.second_upsampler import SecondUpsamplerTask, load_first_upsampler
from unclip.training.tasks.upsampler import UpsamplerTask
from unclip.version import __version__

CLIP_STATISTICS = {
    "prior": ("clip_mean", "clip_std"),
    "autoregressive_prior": ("components.weight", "components.bias", "edges", "dot_edges"),
}
"""Tensors of a prior that are measured on its CLIP. They are measured again if the initial weights had another CLIP."""
STALE_MINUTES = 60
"""Age of a temporary file in the checkpoint folder, which several runs may share, at which it is a leftover."""
DEFAULT_RECIPE = "stickers-cpu"


def train(
    stage: str,
    recipe: str | Path | None,
    out: str | Path,
    options: TrainingOptions = TrainingOptions(),  # noqa: B008 (frozen)
) -> Path:
    """Train one stage, or "all" stages of the recipe in order, and return the checkpoint folder `out/model`.

    With a published model as `options.init`, or with `options.lora`, fine-tune that model (`fine_tuning.fine_tune`);
    with `options.distill`, distil a stage of `options.teacher` (`distillation.distill`).

    In a process that torchrun or accelerate started, it trains together with the others (`Processes.current`): each
    computes an equal part of every batch, and the main one writes all files.

    recipe: a preset's name or a TOML file; None is the preset of the bundled model. `out/STAGE` receives a stage's
    state, loss curve and samples. The recipe of every stage, and the header and the caption of every image, are checked
    before the first stage trains. Raises InputError for mistakes in the recipe, the data or the options, and if `out`
    holds a run that `resume` does not continue; `loop.fit` lists the errors that end a run later.
    """
    if options.distill is not None:
        return distill(stage, recipe, Path(out), options)
    if is_fine_tuning(options):
        return fine_tune(stage, recipe, Path(out), options)
    out, device = Path(out), options.pick_device()
    dtype = options.precision(device)
    processes = connect(device)
    options = options.for_process(processes)
    model = out / "model"
    with processes.shared_errors():
        loaded, stages, resumed, init = check_run(stage, recipe, out, options)
        for name in stages:
            where = f"{loaded.source} [{name}.fit]"
            check_division(loaded.stage(name).fit.batch_size, processes, options.accumulation, where)
        sources = open_sources(loaded, stages, options)
    with processes.shared_errors():
        if processes.is_main:
            remove_temporaries(model, STALE_MINUTES)
            if init is not None and "clip" not in stages and not (model / "clip").exists():
                save_network(load_network(init / "clip"), model / "clip")
    with torch.random.fork_rng():  # the caller's random state stays as it is
        for number, name in enumerate(stages, start=1):
            with explained_memory_errors(name):
                table = loaded.stage(name)
                if init is not None and name == "autoregressive_prior":
                    table = with_components_of(table, init)
                images = partial(make_dataset, sources[loaded.data_source(name)], seed=loaded.seed)
                examples = partial(read_examples, images, device, skip_bad=options.skip_bad)
                torch.manual_seed(loaded.seed)  # for the initial weights
                clip = FrozenClip.load(model / "clip", device) if name in NEED_CLIP else None
                decoder = open_decoder(model, device) if name == INPAINTING else None
                task = new_task(name, table, clip, examples, decoder)
                task.fit_to_data()
                if isinstance(task, UpsamplerTask) and task.options.redrawn:
                    task.redrawing = Redrawing.load(model, device, task.options.redraw_steps)
                if isinstance(task, SecondUpsamplerTask) and task.options.upsampled:
                    task.upsampler = load_first_upsampler(model, device)
                if init is not None and name not in (INPAINTING, *resumed):
                    new_clip = name in CLIP_STATISTICS and not same_weights(init / "clip", model / "clip")
                    load_initial_weights(task, init, CLIP_STATISTICS[name] if new_clip else ())
                session = Session(
                    title=f"{name} ({number} of {len(stages)})" if len(stages) > 1 else name,
                    folder=out / name,
                    seed=loaded.seed,
                    budget=Budget(table.fit.steps if options.steps is None else options.steps, options.minutes),
                    device=device,
                    resume=name in resumed,
                    skip_bad=options.skip_bad,
                    quiet=options.quiet,
                    settings=frozen_settings(task, model),
                    dtype=dtype,
                    accumulation=options.accumulation,
                    shard=options.shard,
                )
                fit(task, images(task.size), table.fit, session)
                with processes.shared_errors():  # the others wait: a later stage reads what this one wrote
                    if processes.is_main:
                        export(name, task, loaded, model)
    return model


def check(
    stage: str,
    recipe: str | Path | None,
    out: str | Path | None = None,
    options: TrainingOptions = TrainingOptions(),  # noqa: B008 (frozen)
    on_fault: Callable[[str], None] = print,
) -> None:
    """Check the recipe and the data of one stage or "all" stages without training. All images are decoded.

    out: the folder of the run; None checks nothing about a folder. on_fault: receives a line for each file
    that cannot be used. Raises InputError as `train` does.
    """
    folder = None if out is None else Path(out)
    if options.distill is not None:
        _, sources = check_distillation(stage, recipe, folder, options, on_fault)
    elif is_fine_tuning(options):
        _, sources = check_fine_tuning(stage, recipe, folder, options, on_fault)
    else:
        loaded, stages, *_ = check_run(stage, recipe, folder, options)
        sources = open_sources(loaded, stages, options, on_fault=on_fault)
    for where, source in sources.items():
        if not options.quiet:
            print_note(f"{where}: {describe(source)}")


def describe(source: Source) -> str:
    """The amount and the kind of training data."""
    if isinstance(source, Listing):
        return f"{len(source.samples):,} images"
    return f"{len(source.prompts):,} prompts" if isinstance(source, PromptList) else "scenes, made on the fly"


def check_run(
    stage: str, recipe: str | Path | None, out: Path | None, options: TrainingOptions
) -> tuple[Recipe, list[str], list[str], Path | None]:
    """The recipe, the stages of a run in order, those of them that resume, and the model they start from.

    Raises InputError for mistakes in the recipe of any stage or in the options.
    """
    if options.teacher is not None:
        raise InputError("--teacher belongs to --distill guidance or --distill consistency; add one, or leave it out")
    if options.prior is not None or options.image_encoder is not None:
        raise InputError(
            "--prior and --image-encoder belong to a published model that --init fine-tunes; leave them out"
        )
    loaded = load_recipe(DEFAULT_RECIPE if recipe is None else recipe, options.data)
    stages = list(loaded.stages) or ["clip"] if stage == "all" else [stage]
    for name in stages:
        loaded.stage(name)
    resumed: list[str] = []
    if out is not None and options.resume:
        resumed = stages_to_resume(stages, out)
    elif out is not None:
        check_no_state(stages, out)
    model = None if out is None else out / "model"
    if options.init is not None and stage == INPAINTING:
        raise InputError("the inpainting decoder starts from the decoder in --out: leave out --init")
    init = None if options.init is None else find_checkpoint(options.init)
    new = [name for name in stages if name not in (INPAINTING, *resumed)]
    if init is not None:
        check_predictions(new, loaded, init)
    elif model is not None and "clip" not in stages:
        for name in stages:
            check_clip(name, model)
    if model is not None:
        check_redrawing(loaded, stages, model)
        check_upsampled(loaded, stages, model)
    check_stages(loaded, stages, model, {} if init is None else dict.fromkeys(new, init))
    return loaded, stages, resumed, init


def export(name: str, task: Task, recipe: Recipe, model: Path) -> None:
    """Write a trained stage's networks and schedule into the checkpoint folder, and add them to its index."""
    index: dict[str, Any] = read_json(model / INDEX) if (model / INDEX).exists() else {"stages": {}}
    index |= {"_class_name": "Unclip", "_unclip_version": __version__, "name": recipe.name}
    if (model / "clip").exists():  # `init` may have copied it
        index["clip"] = ["unclip", "Clip"]
    if name == INPAINTING:  # its schedule is the decoder's
        save_copy(task.networks(), model)
        index[name] = ["unclip", "InpaintingDecoder"]
    else:
        index |= save_stage(name, task, model)
    if name == "clip" and "decoder_text" in index and not fits_clip(model / "decoder_text"):
        index = without(index, (*PARTS, "decoder_scheduler", INPAINTING))
        print_note(
            f"removed the decoder from {model / INDEX}, which used the CLIP before: train it again, with this one"
        )
    if name == "decoder" and INPAINTING in index and not is_current(model):  # a copy of the decoder before
        index = without(index, (INPAINTING,))
        print_note(f"removed the inpainting decoder from {model / INDEX}: train it again, from this decoder")
    if sampling := task.stage_config():
        index["stages"] = {**index["stages"], name: sampling}
    if recipe.data.get("kind") == "scenes":
        # The words of the training captions: the finished model reports prompts with other words.
        words = vocabulary(common_nouns(recipe), style_words(recipe)).words
        write_json(model / "vocabulary.json", {"words": sorted(words), "styles": list(styles(recipe))})
    write_json(model / INDEX, index)


def save_stage(name: str, task: Task, model: Path) -> dict[str, Any]:
    """Write a trained stage's networks and schedule into the checkpoint folder, and return their index entries."""
    entries: dict[str, Any] = {}
    for component, network in task.networks().items():
        save_network(network, model / component)
        library = type(network).__module__.partition(".")[0]
        entries[component] = [library, class_name(network)]
    if task.schedule is not None:
        config = task.schedule.to_config()
        write_json(model / f"{name}_scheduler" / "scheduler_config.json", config)
        entries[f"{name}_scheduler"] = ["diffusers", config["_class_name"]]
    return entries


def frozen_settings(task: Task, model: Path) -> dict[str, str]:
    """Hashes of weights that are not trained, and so not in the state of a task: a run resumes with equal ones only."""
    if isinstance(task, InpaintingDecoderTask):
        return {"decoder fingerprint": fingerprint(model)}
    if not isinstance(task, DecoderTask) or (encoder := task.network.text_encoder) is None:
        return {}
    return {"token embedding": hash_values(encoder.transformer.token_embedding.weight)[:16]}


def without(index: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A model_index.json without the components and stages of these names."""
    left = {key: value for key, value in index.items() if key not in names}
    return left | {"stages": {stage: entry for stage, entry in index["stages"].items() if stage not in names}}


def scene_options(recipe: Recipe) -> dict[str, SceneOptions]:
    """The distribution of scenes of each stage that learns what scenes show; a second upsampler learns their edges."""
    stages = {name: stage for name, stage in recipe.stages.items() if name != "second_upsampler"}
    return {name: SceneOptions(**stage.scenes.given()) for name, stage in stages.items() if stage.scenes}


def styles(recipe: Recipe) -> tuple[str, ...]:
    """The styles of sprites that the decoder is trained on; without a decoder, those of any stage."""
    found = scene_options(recipe)
    found = {"decoder": found["decoder"]} if "decoder" in found else found
    return tuple(style for style in STYLES if any(style in options.styles for options in found.values()))


def style_words(recipe: Recipe) -> tuple[str, ...]:
    """The styles that the captions of all stages mention: the finished model knows these words."""
    found = list(scene_options(recipe).values())
    return tuple(
        style for style in STYLES if found and all(each.names_styles and style in each.styles for each in found)
    )


def common_nouns(recipe: Recipe) -> tuple[str, ...]:
    """The nouns that occur in the scenes of all stages: the finished model can generate these."""
    nouns = tuple(load_nouns())
    for stage in recipe.stages.values():
        used = {**recipe.data, **stage.data}.get("nouns", nouns)
        nouns = tuple(noun for noun in nouns if noun in used)
    return nouns
