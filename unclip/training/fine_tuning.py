"""Fine-tune the decoder or the prior of a published model, or with LoRA of any model, on one's own images."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from unclip.checkpoints.hub import parse_hub_id
from unclip.checkpoints.identity import compute_revision
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.networks import network_config, save_network
from unclip.checkpoints.token_embedding import ENTRIES
from unclip.checkpoints.trainable import STAGES, TrainableStage, open_trainable
from unclip.errors import CheckpointError, InputError, RecipeError
from unclip.system.files import read_json, write_json
from unclip.training.accelerator import check_division, connect
from unclip.training.budget import Budget
from unclip.training.data.datasets import Source, make_dataset
from unclip.training.loop import Session, fit
from unclip.training.lora import ATTENTION, LoraSettings, add_lora, check_lora, save_lora
from unclip.training.monitor import print_note
from unclip.training.options import TrainingOptions, check_no_state, explained_memory_errors, stages_to_resume
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.recipe_tables import FineTuningTable
from unclip.training.sources import open_sources, read_examples
from unclip.training.tasks.fine_tuning import FineTunedDecoder, FineTunedPrior, check_size, checkpoint_activations
from unclip.version import __version__

RECIPE = "finetune"
"""The preset that is used if no recipe is given."""
FROZEN = ("clip_mean", "clip_std")
"""Parameters that are measured and not trained: the statistics of a prior's embeddings."""
WEIGHTS, SHARD_SIZE = "diffusion_pytorch_model", "5GB"
"""The name and the size of weight files, as diffusers writes them."""


def is_fine_tuning(options: TrainingOptions) -> bool:
    """Whether a run fine-tunes a model as it is, and does not train the networks of a recipe.

    Raises InputError for a LoRA without a model, CheckpointError for a model that is missing.
    """
    if options.init is None:
        if options.lora is not None:
            raise InputError(
                "--lora changes a model: name it by --init, such as kandinsky-community/kandinsky-2-2-decoder"
            )
        return False
    return options.lora is not None or not is_native(options.init)


def is_native(init: str | Path) -> bool:
    """Whether a model is in this project's own layout. A model that is yet to be downloaded counts as a published one.

    Raises CheckpointError if there is no such model.
    """
    if parse_hub_id(str(init)) is None or Path(init).is_dir():
        return "stages" in read_json(find_checkpoint(init) / INDEX)
    try:
        return "stages" in read_json(find_checkpoint(init) / INDEX)
    except CheckpointError:
        return False


def fine_tune(stage: str, recipe: str | Path | None, out: Path, options: TrainingOptions) -> Path:
    """Fine-tune the "prior" or the "decoder" of `options.init`, and return what was made.

    That is the file `out/STAGE-lora.safetensors` with LoRA, else a checkpoint folder `out/model` of the same layout as
    the model. `out/STAGE` receives the state, the loss curve and samples. The recipe's table [finetune] describes the
    run; None is the preset "finetune". Raises InputError for mistakes in the recipe, the data or the options, and for
    a model that cannot be fine-tuned; `loop.fit` lists the errors that end a run later.
    """
    device = options.pick_device()
    processes = connect(device)
    options = options.for_process(processes)
    with processes.shared_errors():
        loaded, sources = check_fine_tuning(stage, recipe, out, options)
        check_division(loaded.finetune.fit.batch_size, processes, options.accumulation, table_of(loaded))
    table, [source] = loaded.finetune, sources.values()
    settings = None if options.lora is None else lora_settings(options.lora, table)
    with torch.random.fork_rng(), explained_memory_errors(stage, "a smaller size"):
        part = open_stage(stage, options)
        part.load(whole=settings is None)
        torch.manual_seed(loaded.seed)  # for the initial weights of LoRA layers
        if settings is None:
            for network in part.components.values():
                train_all(network)
        else:
            add_lora(part.backbone, settings, table_of(loaded))
        if table.checkpointing:
            checkpoint_activations(part.backbone)
        images = partial(make_dataset, source, seed=loaded.seed)
        examples = partial(read_examples, images, device, skip_bad=options.skip_bad)
        task = (FineTunedPrior if stage == "prior" else FineTunedDecoder)(part, table, examples)
        fitting = table.fit_for(lora=settings is not None)
        revision = compute_revision(part.folder)
        session = Session(
            title=f"{stage} of {part.name}",
            folder=out / stage,
            seed=loaded.seed,
            budget=Budget(fitting.steps if options.steps is None else options.steps, options.minutes),
            device=device,
            resume=options.resume,
            skip_bad=options.skip_bad,
            quiet=options.quiet,
            settings={
                "init": revision,
                "alpha": None if settings is None else settings.alpha,
                # They condition the stage, and another one would change its meaning halfway.
                "encoders": [*map(compute_revision, part.others), encoder_revision(options.image_encoder)],
            },
            dtype=options.precision(device),
            accumulation=options.accumulation,
            shard=options.shard,
        )
        fit(task, images(task.size), fitting, session)
        made = out / ("model" if settings is None else f"{stage}-lora.safetensors")
        with processes.shared_errors():
            if processes.is_main and settings is None:
                export_checkpoint(part, made)
            elif processes.is_main and settings is not None:
                about = {"base_model": part.name, "base_revision": revision, "stage": stage, "unclip": __version__}
                about |= {"rank": str(settings.rank), "alpha": f"{settings.alpha:g}"}
                save_lora(part.backbone, made, "prior" if stage == "prior" else "unet", settings, about)
    if not options.quiet:
        print_note(f"saved {made}")
    return made


def check_fine_tuning(
    stage: str,
    recipe: str | Path | None,
    out: Path | None,
    options: TrainingOptions,
    on_fault: Callable[[str], None] | None = None,
) -> tuple[Recipe, Mapping[str, Source]]:
    """The recipe and the data of a run, after all checks that need no weights. on_fault: as in `open_sources`.

    Raises InputError for mistakes in the recipe, the data or the options, and for a model that cannot be fine-tuned.
    """
    if stage not in STAGES:
        raise InputError(f"only the {' and the '.join(STAGES)} of a model can be fine-tuned, not {stage!r}")
    if options.lora is not None:
        check_lora(options.lora)
    options.precision(options.pick_device())
    loaded = load_recipe(RECIPE if recipe is None else recipe, options.data)
    if loaded.stages:
        raise RecipeError(
            f"{loaded.source} has a table [{next(iter(loaded.stages))}], which describes a new network; the network to "
            f"fine-tune is that of {options.init}: use --recipe {RECIPE}, or a file with [data] and [finetune] only"
        )
    if loaded.data.get("layouts"):
        raise RecipeError(f"{loaded.source} [data]: fine-tuning leaves layouts open; leave them out")
    if out is not None and options.resume:
        stages_to_resume([stage], out)
    elif out is not None:
        check_no_state([stage], out)
    sources = open_sources(loaded, [None], options, on_fault)
    part = open_stage(stage, options)
    if (distillation := part.stage.distillation) is not None:
        raise InputError(
            f"the {stage} of {options.init} is distilled, which further training would undo: fine-tune its teacher "
            f"{distillation.teacher}, and distil that"
        )
    if options.lora is None and is_native(part.folder):
        raise InputError(f"{options.init} was trained from a recipe: continue with --recipe, or fine-tune it by --lora")
    check_size(part, loaded.finetune, table_of(loaded))
    return loaded, sources


def open_stage(stage: str, options: TrainingOptions) -> TrainableStage:
    """The stage to fine-tune, without its weights. Raises CheckpointError if it is missing or does not fit."""
    device = options.pick_device()
    assert options.init is not None
    return open_trainable(options.init, stage, device, options.precision(device), options.prior, options.image_encoder)


def encoder_revision(encoder: str | Path | None) -> str | None:
    """What tells an added image encoder from another: the revision of its files, or its name in open_clip."""
    if encoder is None:
        return None
    try:
        return compute_revision(find_checkpoint(encoder))
    except CheckpointError:
        return str(encoder)


def table_of(recipe: Recipe) -> str:
    """The recipe's file and table, for messages."""
    return f"{recipe.source} [finetune]"


def lora_settings(rank: int, table: FineTuningTable) -> LoraSettings:
    """The LoRA of a rank, with alpha and targets of the recipe."""
    alpha = float(rank) if table.alpha is None else table.alpha
    return LoraSettings(rank, alpha, ATTENTION if table.targets is None else table.targets)


def train_all(network: torch.nn.Module) -> None:
    """Let all weights of a network be trained, but not the statistics of embeddings."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in FROZEN)


def export_checkpoint(part: TrainableStage, model: Path) -> Path:
    """Write a checkpoint with the trained networks, and all else as in the checkpoint they are from."""
    weights = tuple(f"{component}/" for component in part.components)
    own = is_native(part.folder)
    files = {} if own else {"name": WEIGHTS, "shard_size": SHARD_SIZE}
    for path in sorted(part.folder.rglob("*")):
        name = path.relative_to(part.folder).as_posix()
        hidden = any(piece.startswith(".") for piece in name.split("/"))
        replaced = name.startswith(weights) and path.suffix != ".txt" and not name.endswith("/config.json")
        if path.is_file() and not hidden and not replaced:
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, model / name)
    for component, network in part.components.items():
        path = model / component / "config.json"
        config = {key: value for key, value in read_json(path).items() if key not in ENTRIES}
        save = partial(save_network, network, model / component, **files)
        try:
            save()
        except CheckpointError:  # values beyond float16
            save(dtype=torch.float32)
        # With the names of its library, and what a distillation has added.
        write_json(path, read_json(path) | config | network_config(network))
    return model
