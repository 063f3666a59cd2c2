"""`unclip evaluate`: the quality of a model, part by part."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unclip.checkpoints.identity import identify_model
from unclip.cli import checks, options
from unclip.cli.processes import start_processes
from unclip.cli.progress import Progress, on_terminal
from unclip.diffusion.sampler_names import FOR_ANY_MODEL
from unclip.errors import InputError
from unclip.evaluation.choices import PARTS, SUITES, parse_parts, parse_samplers
from unclip.requests.fields import MAX_SEED
from unclip.system.files import check_writable
from unclip.system.processes import Processes
from unclip.version import __version__

if TYPE_CHECKING:
    from unclip.evaluation.report import Report

SPLITS = ("held_out", "train")
EVALUATION = "Evaluation"  # a section of the help


def evaluate(
    ctx: typer.Context,
    suite: Annotated[
        str,
        typer.Option(
            metavar="|".join(SUITES),
            help="Domain of the prompts.",
            callback=checks.checked(lambda _, value: checks.check_choice("--suite", value, SUITES)),
            rich_help_panel=EVALUATION,
        ),
    ] = "stickers",
    # The longest name is the setting's: "n" in unclip.toml is the number of images of a prompt.
    n: Annotated[
        int,
        typer.Option(
            "--n",
            "--prompts",
            metavar="N",
            help="Prompts of each kind: one object, two objects, a count.",
            callback=checks.at_least_one,
            rich_help_panel=EVALUATION,
        ),
    ] = 100,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="PART,...",
            help=f"Parts to measure, of {', '.join(PARTS)}.  [default: all]",
            callback=checks.checked(lambda _, value: parse_parts(value)),
            rich_help_panel=EVALUATION,
        ),
    ] = None,
    samplers: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Samplers to compare in prior-steps and steps.",
            callback=checks.checked(lambda _, value: parse_samplers(value)),
            rich_help_panel=EVALUATION,
        ),
    ] = ",".join(FOR_ANY_MODEL),
    split: Annotated[
        str,
        typer.Option(
            metavar="|".join(SPLITS),
            help="Combinations that were held out of training, or were in it.",
            callback=checks.checked(lambda _, value: checks.check_choice("--split", value, SPLITS)),
            rich_help_panel=EVALUATION,
        ),
    ] = "held_out",
    seed: Annotated[
        int,
        typer.Option(
            metavar="SEED",
            help="Seed of the prompts and the images.",
            callback=checks.checked(lambda _, value: check_seed(value)),
            rich_help_panel=EVALUATION,
        ),
    ] = 0,
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for the report and its images.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = "evaluation",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    model: options.Model = "stickers",
    prior: options.Prior = None,
    lora: options.Lora = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    batch_size: options.BatchSize = None,
    processes: options.Processes = None,
) -> None:
    """Measure the quality of a model, part by part.

    The prompts combine objects that training never combined. The results are in report.json and report.html, which are
    updated after each part; the same command continues an evaluation that was stopped.

    \b
    Example:
      unclip evaluate --only objects,clip --n 40
    """
    names = None if only is None else parse_parts(only)
    sampler_names = parse_samplers(samplers)
    check_writable(out)
    if (code := start_processes(ctx, processes)) is not None:
        raise typer.Exit(code)
    group = Processes.current()
    group.connect()
    quiet = quiet or not group.is_main

    from unclip.evaluation.measures import measure_parts, select_parts
    from unclip.evaluation.report import format_result
    from unclip.evaluation.suite import Suite
    from unclip.modes.resolve import model_defaults
    from unclip.pipeline import Unclip
    from unclip.system.device import own_device

    device = device if group.count == 1 else str(own_device(device, group))
    progress = Progress(on_terminal(quiet))
    with closing(progress):
        pipe = Unclip.from_pretrained(
            model, device=device, dtype=dtype, memory=memory, prior=prior, lora=lora or (), progress=progress
        )
    parts = select_parts(pipe, names)
    left_out = [name for name in PARTS if name not in parts]
    if names is None and left_out and not quiet:
        print(f"unclip: note: {pipe.model.name} lacks what these parts measure: {', '.join(left_out)}", file=sys.stderr)
    setup = {
        "suite": suite,
        "model": model,
        "revision": identify_model(model).revision,
        **({} if prior is None else {"prior": prior}),
        **({"lora": lora} if lora else {}),
        "n": n,
        "split": split,
        "seed": seed,
        "dtype": dtype,
        "defaults": model_defaults(pipe.model),
        "unclip": __version__,
    }
    report = open_report(Path(out), setup, group)
    measured = Suite(
        pipe,
        report,
        Path(out),
        n=n,
        seed=seed,
        split=split,
        samplers=sampler_names,
        batch_size=batch_size,
        progress=progress,
        processes=group,
    )
    try:
        with closing(progress):
            for title, result in measure_parts(measured, parts):
                progress.close()
                if not as_json and group.is_main:
                    print(format_result(title, result), end="\n\n", flush=True)
    except KeyboardInterrupt:
        if group.is_main:
            print("unclip: the same command continues this evaluation", file=sys.stderr)
        raise
    if as_json and group.is_main:
        print(json.dumps({"setup": report.setup, "results": report.results}))
    if not quiet:
        print(f"unclip: the report is {measured.html_path}", file=sys.stderr)


def open_report(folder: Path, setup: dict[str, Any], processes: Processes) -> "Report":
    """The report of an evaluation: the main process makes its file, and the others read that."""
    from unclip.evaluation.report import Report

    made: Report | None = None
    with processes.shared_errors():
        if processes.is_main:
            made = Report(folder, setup)
    return Report(folder, setup, writes=False) if made is None else made


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that leaves no room for those of the images."""
    if not 0 <= seed < MAX_SEED // 2:
        raise InputError(f"--seed must be from 0 to {MAX_SEED // 2 - 1}, not {seed}")
