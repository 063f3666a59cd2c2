"""`unclip evaluate`: how good a model is, part by part."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from unclip.checkpoints.identity import identify
from unclip.cli import options
from unclip.cli.progress import Progress, on_terminal
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import InputError
from unclip.evaluation.choices import PARTS, SUITES, parse_parts, parse_samplers
from unclip.requests.fields import MAX_SEED
from unclip.system.choices import check_device, check_dtype, check_memory
from unclip.system.files import check_writable
from unclip.version import __version__

SPLITS = ("held_out", "train")


def evaluate(
    suite: Annotated[str, typer.Option(metavar="|".join(SUITES), help="The domain that is asked about.")] = "stickers",
    model: options.Model = "stickers",
    # Its long name is the setting's: "n" in unclip.toml is the number of images of a prompt.
    n: Annotated[int, typer.Option("--n", "--prompts", help="Prompts of each kind: one object, two, a count.")] = 100,
    only: Annotated[str | None, typer.Option(metavar="PART,...", help=f"Of {', '.join(PARTS)}.")] = None,
    samplers: Annotated[
        str, typer.Option(metavar="NAME,...", help="Whose steps are counted in prior-steps and steps.")
    ] = ",".join(SAMPLER_NAMES),
    split: Annotated[
        str, typer.Option(metavar="|".join(SPLITS), help="Combinations that training never showed, or did.")
    ] = "held_out",
    seed: Annotated[int, typer.Option(help="Of the prompts and the pictures.")] = 0,
    batch_size: Annotated[int | None, typer.Option(help="Images computed at a time.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    out: Annotated[str, typer.Option("-o", "--out", metavar="FOLDER", help="For the report and its pictures.")] = (
        "evaluation"
    ),
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no notes.")] = False,
) -> None:
    """Measure how good a model is, by prompts that it never saw: report.json and report.html, written part by part.

    The same command again goes on where it was stopped. Example: unclip evaluate --only objects,clip --n 40
    """
    options.check_choice("--suite", suite, SUITES)
    options.check_choice("--split", split, SPLITS)
    options.check_at_least_one("--n", n)
    options.check_at_least_one("--batch-size", batch_size)
    if not 0 <= seed < MAX_SEED // 2:
        raise InputError(f"--seed must be from 0 to {MAX_SEED // 2 - 1}, not {seed}")
    check_device(device)
    check_dtype(dtype)
    check_memory(memory)
    names, tried = None if only is None else parse_parts(only), parse_samplers(samplers)
    check_writable(out)

    from unclip.evaluation.measures import measure_parts, select_parts
    from unclip.evaluation.report import Report, format_result
    from unclip.evaluation.suite import Suite
    from unclip.pipeline import Unclip

    progress = Progress(on_terminal(quiet))
    with closing(progress):
        pipe = Unclip.from_pretrained(model, device=device, dtype=dtype, memory=memory, progress=progress)
    parts = select_parts(pipe, names)
    left_out = [name for name in PARTS if name not in parts]
    if names is None and left_out and not quiet:
        print(f"unclip: note: {pipe.name} lacks what is measured by {', '.join(left_out)}", file=sys.stderr)
    setup = {
        "suite": suite,
        "model": model,
        "revision": identify(model).revision,
        "n": n,
        "split": split,
        "seed": seed,
        "dtype": dtype,
        "defaults": pipe.defaults(),
        "unclip": __version__,
    }
    report = Report(Path(out), setup)
    asked = {"n": n, "seed": seed, "split": split, "samplers": tried, "batch_size": batch_size}
    examined = Suite(pipe, report, Path(out), **asked, progress=progress)
    try:
        for title, result in measure_parts(examined, parts):
            progress.close()
            if not as_json:
                print(format_result(title, result), end="\n\n", flush=True)
    except KeyboardInterrupt:
        progress.close()
        print("unclip: the same command again goes on where this one stopped", file=sys.stderr)
        raise
    finally:
        progress.close()
    if as_json:
        print(json.dumps({"setup": report.setup, "results": report.results}))
    if not quiet:
        print(f"unclip: the report is {examined.html_path}", file=sys.stderr)
