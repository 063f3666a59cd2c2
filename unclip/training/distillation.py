"""Distil a stage of a loaded model of any layout into one that samples with fewer evaluations."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from unclip.checkpoints.additions import Additions
from unclip.checkpoints.decoder_copy import NAME as INPAINTING
from unclip.checkpoints.decoder_copy import keep_copy
from unclip.checkpoints.distilled import KEY, DistilledStage
from unclip.checkpoints.identity import compute_revision
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.trainable import DISTILLABLE, TrainableStage, open_trainable
from unclip.errors import InputError, RecipeError, did_you_mean
from unclip.inference.stage import Stage
from unclip.system.files import read_json, write_json
from unclip.training.accelerator import check_division, connect
from unclip.training.budget import Budget
from unclip.training.data.datasets import Source, make_dataset
from unclip.training.data.prompts import PromptList
from unclip.training.fine_tuning import export_checkpoint
from unclip.training.loop import Session, fit
from unclip.training.monitor import print_note
from unclip.training.options import TrainingOptions, check_no_state, explained_memory_errors, stages_to_resume
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.recipe_tables import DistillationTable
from unclip.training.sources import open_sources, read_examples
from unclip.training.tasks.distillation import TASKS, loses_signal
from unclip.training.tasks.fine_tuning import checkpoint_activations

RECIPE = "distill"
"""The preset that is used if no recipe is given."""


def distill(stage: str, recipe: str | Path | None, out: Path, options: TrainingOptions) -> Path:
    """Distil a stage of `options.teacher`, and return the checkpoint `out/model`, of the teacher's layout.

    `out/STAGE` receives the state, the loss curve and samples. The recipe's table [distill] describes the run; None is
    the preset "distill". Raises InputError for mistakes in the recipe, the data or the options, and for a stage that
    cannot be distilled; `loop.fit` lists the errors that end a run later.
    """
    device = options.pick_device()
    processes = connect(device)
    options = options.for_process(processes)
    with processes.shared_errors():
        loaded, sources = check_distillation(stage, recipe, out, options)
        check_division(loaded.distill.fit.batch_size, processes, options.accumulation, f"{loaded.source} [distill.fit]")
    table, [source] = loaded.distill, sources.values()
    dtype = options.precision(device)
    assert options.distill is not None and options.teacher is not None
    with torch.random.fork_rng(), explained_memory_errors(stage, "fewer levels"):
        teacher = load_checkpoint(options.teacher, device, dtype, "high", additions(options))
        part = open_student(stage, options)
        part.load_components()
        torch.manual_seed(loaded.seed)
        images = partial(make_dataset, source, seed=loaded.seed)
        examples = partial(read_examples, images, device, skip_bad=options.skip_bad)
        task = TASKS[options.distill](part, teacher, stage, table, examples)
        if table.checkpointing:
            checkpoint_activations(part.backbone)
        revision = compute_revision(part.folder)
        session = Session(
            title=f"{stage}, distilled from {teacher.name}",
            folder=out / stage,
            seed=loaded.seed,
            budget=Budget(table.fit.steps if options.steps is None else options.steps, options.minutes),
            device=device,
            resume=options.resume,
            skip_bad=options.skip_bad,
            quiet=options.quiet,
            settings=meaning(options.distill, table, task.settings, revision),
            dtype=dtype,
            accumulation=options.accumulation,
            shard=options.shard,
        )
        fit(task, images(task.size), table.fit, session)
        made = out / "model"
        with processes.shared_errors():
            if processes.is_main:
                export_distilled(part, stage, task.settings, made)
    if not options.quiet:
        print_note(f"saved {made}")
    return made


def check_distillation(
    stage: str,
    recipe: str | Path | None,
    out: Path | None,
    options: TrainingOptions,
    on_fault: Callable[[str], None] | None = None,
) -> tuple[Recipe, Mapping[str, Source]]:
    """The recipe and the data of a run, after all checks that need no weights. on_fault: as in `open_sources`.

    Raises InputError for mistakes in the recipe, the data or the options, and for a stage that cannot be distilled.
    """
    kind = options.distill
    if kind is None or kind not in TASKS:
        raise InputError(f"distillation {kind!r} is unknown; {did_you_mean(str(kind), TASKS)}")
    if options.teacher is None:
        raise InputError("--distill needs the model to learn from: name it by --teacher, such as --teacher stickers")
    if options.init is not None or options.lora is not None:
        raise InputError("a distillation starts from its teacher: leave out --init and --lora")
    if stage not in DISTILLABLE:
        raise InputError(f"only the {', '.join(DISTILLABLE)} of a model can be distilled, not {stage!r}")
    options.precision(options.pick_device())
    loaded = load_recipe(RECIPE if recipe is None else recipe, options.data)
    if loaded.stages:
        raise RecipeError(
            f"{loaded.source} has a table [{next(iter(loaded.stages))}], which describes a new network; the network to "
            f"distil is that of {options.teacher}: use --recipe {RECIPE}, or a file with [data] and [distill] only"
        )
    if out is not None and options.resume:
        stages_to_resume([stage], out)
    elif out is not None:
        check_no_state([stage], out)
    part = open_student(stage, options, needs_images=loaded.distill.source == "images")
    check_options(stage, part.stage, kind, loaded.distill, f"{loaded.source} [distill]", part.name)
    sources = open_sources(loaded, [None], options, on_fault, prompts=True)
    check_data(part, loaded, sources)
    return loaded, sources


def check_options(stage: str, part: Stage, kind: str, table: DistillationTable, where: str, name: str) -> None:
    """Raise RecipeError for options that do not fit a stage of the teacher `name`. where: the recipe's table."""
    scales = table.guidance if isinstance(table.guidance, tuple) else (table.guidance, table.guidance)
    if kind == "guidance":
        if unused := {"segments", "teacher_steps"} & table.model_fields_set:
            raise RecipeError(f"{where}: {min(unused)} belongs to --distill consistency; leave it out")
        if stage == "upsampler":
            raise RecipeError("an upsampler has no guidance to distil: use --distill consistency")
        if scales == (1.0, 1.0) or (table.guidance is None and part.guidance == 1):
            raise RecipeError(f"{where}: guidance 1 is none, and leaves nothing to distil: set another")
    if stage == "upsampler" and table.guidance not in (None, 1.0):
        raise RecipeError(f"{where}: an upsampler has no guidance: leave it out")
    if stage == "prior" and isinstance(table.guidance, tuple):
        raise RecipeError(f"{where}: a prior has no input for the guidance scale: set a single one")
    if part.distillation is not None:
        for scale in scales:
            part.distillation.check_guidance(part.guidance if scale is None else scale)
    if kind == "consistency":
        if table.teacher_steps >= (count := part.schedule.num_train_timesteps):
            raise RecipeError(
                f"{where}: teacher_steps = {table.teacher_steps} should be below the {count} timesteps of {name}"
            )
        if table.teacher_steps % table.segments:
            raise RecipeError(
                f"{where}: teacher_steps = {table.teacher_steps} should be a multiple of segments = {table.segments}"
            )
        if part.distillation is not None and part.distillation.segments:
            raise RecipeError(f"the {stage} of {name} is distilled for few steps: use its own teacher")
        if loses_signal(part):
            raise RecipeError(
                f"the {stage} of {name} predicts noise down to no signal, where few steps cannot be learned: "
                "consistency needs a network that predicts x0 or the velocity; use --distill guidance"
            )


def check_data(part: TrainableStage, recipe: Recipe, sources: Mapping[str, Source]) -> None:
    """Raise InputError if the source of the samples does not fit the data, or the teacher has no prior to sample."""
    where = f"{recipe.source} [distill]"
    prompts_only = any(isinstance(source, PromptList) for source in sources.values())
    if recipe.distill.source == "images":
        if prompts_only:
            raise RecipeError(f'{where}: source = "images" needs images, and the data are prompts: use "teacher"')
    elif not part.has_prior:
        raise RecipeError(
            f'{where}: {part.name} has no prior to generate from prompts: set source = "images" and give images by '
            "--data, or give a prior by --prior"
        )


def open_student(stage: str, options: TrainingOptions, needs_images: bool = False) -> TrainableStage:
    """The stage to distil, without its weights. Raises CheckpointError if it is missing or does not fit."""
    device = options.pick_device()
    assert options.teacher is not None
    return open_trainable(
        options.teacher,
        stage,
        device,
        torch.float32,  # of all weights that are trained
        options.prior,
        options.image_encoder,
        images=needs_images,
    )


def additions(options: TrainingOptions) -> Additions:
    """What is loaded together with the teacher."""
    return Additions(image_encoder=options.image_encoder, prior=options.prior)


def meaning(kind: str, table: DistillationTable, settings: DistilledStage, revision: str) -> dict[str, object]:
    """The settings that decide what the weights mean. A run resumes only with equal ones."""
    return {
        "teacher": revision,
        "distill": kind,
        "guidance": list(settings.guidance),
        "segments": settings.segments,
        "source": table.source,
    }


def export_distilled(part: TrainableStage, stage: str, settings: DistilledStage, model: Path) -> Path:
    """Write the teacher's checkpoint with the networks of the distilled stage, which its index describes."""
    export_checkpoint(part, model)
    index = read_json(model / INDEX)
    if stage == "decoder" and INPAINTING in index:  # edits go on as before
        keep_copy(part.folder, model)
    index[KEY] = {**index.get(KEY, {}), stage: settings.model_dump(mode="json")}
    write_json(model / INDEX, index)
    return model
