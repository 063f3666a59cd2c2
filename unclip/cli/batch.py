"""`unclip batch`: a prompt file to images, checked before it starts and resumed where it ended."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unclip import metadata
from unclip.batch.estimate import Amount, measure, size_counts, spoken_bytes
from unclip.batch.folder import ERRORS, Folder, open_folder, run_seed
from unclip.batch.model import Model, identify
from unclip.batch.names import DEFAULT, NameTemplate
from unclip.batch.plan import Job, Settings, Task, tasks
from unclip.batch.rows import FIELDS, BadLine, typed
from unclip.batch.run import Output, Totals, run
from unclip.batch.source import FORMATS, PromptFile, prompt_file
from unclip.cli import options
from unclip.cli.interrupt import StopOnInterrupt
from unclip.cli.progress import BatchProgress
from unclip.diffusion.names import SAMPLER_NAMES
from unclip.errors import InputError, RequestError
from unclip.names import check_device, check_dtype
from unclip.request import Request

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

_SAMPLERS = "|".join(SAMPLER_NAMES)
_SHOWN = 20  # bad lines; errors.jsonl has all of them


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE", help=f"{', '.join(FORMATS)}, .gz of them, or - for stdin.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="The folder of the pictures.")] = "out",
    model: options.Model = "stickers",
    seed: Annotated[
        int | None,
        typer.Option(help="Decides the seeds of lines without one. Unset: drawn, printed, and kept for a resume."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="Images of a line that does not say.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to steer away from.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of the decoder.")] = None,
    prior_steps: Annotated[int | None, typer.Option(help="Denoising steps of the prior.")] = None,
    upsampler_steps: Annotated[int | None, typer.Option(help="Denoising steps of each upsampler.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale of the decoder.")] = None,
    prior_guidance: Annotated[float | None, typer.Option(help="Guidance scale of the prior.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar=_SAMPLERS, help="Sampler of the decoder.")] = None,
    prior_sampler: Annotated[str | None, typer.Option(metavar=_SAMPLERS, help="And of the prior.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Such as 64x64. Unset: the model's largest.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field for lines that leave it open."),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="PATTERN", help="Of index, line, image, seed, slug, id, size, model, columns.")
    ] = DEFAULT,
    image_format: options.Format = "png",
    all_combinations: Annotated[
        bool, typer.Option("--all-combinations", help="Draw every choice of {a|b}, not one by the seed.")
    ] = False,
    no_wildcards: Annotated[bool, typer.Option("--no-wildcards", help="Braces in prompts are text.")] = False,
    input_format: Annotated[
        str | None, typer.Option(metavar="|".join(FORMATS), help="Where the file's suffix does not say.")
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Draw every N-th line, from the I-th.")] = "1/1",
    strict: Annotated[bool, typer.Option("--strict", help="Draw nothing if any line is bad.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line, say what would be made, end.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Take the names of files that no run of this folder made.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images computed at a time.")] = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")] = False,
) -> None:
    """Make images from a prompt file. Run it again to resume it.

    Example: unclip batch prompts.csv -o out/ --seed 7 --size 64x64
    """
    given = {
        "n": n, "negative": negative, "steps": steps, "prior_steps": prior_steps, "upsampler_steps": upsampler_steps,
        "guidance": guidance, "prior_guidance": prior_guidance, "sampler": sampler, "prior_sampler": prior_sampler,
        "size": size,
    }  # fmt: skip
    defaults = checked_defaults(given, more or [])
    if seed is not None:
        Request(prompt="x", seed=seed)
    check_device(device)
    check_dtype(dtype)
    options.check_choice("--format", image_format, tuple(metadata.FORMATS))
    options.check_at_least_one("--batch-size", batch_size)
    template, part = NameTemplate.parse(name), parse_shard(shard)
    identity = identify(model)

    def settings(run_seed: int, folder: Path) -> Settings:
        return Settings(
            seed=run_seed,
            name=template,
            defaults=defaults,
            folder=folder,
            sizes=identity.sizes,
            wildcards=not no_wildcards,
            all_combinations=all_combinations,
            shard=part,
        )

    with prompt_file(file, input_format) as prompts:
        progress = BatchProgress(as_json=as_json, quiet=quiet)
        for note in prompts.header_notes():
            progress.note(note)
        if dry_run:
            plan = settings(run_seed(out, seed, identity, write=False), prompts.folder)
            raise typer.Exit(_dry_run(prompts, plan, progress, strict, identity, Path(out), image_format))
        with open_folder(out, overwrite=overwrite) as folder:
            drawn = run_seed(out, seed, identity)
            progress.note(f"seed {drawn}")
            plan = settings(drawn, prompts.folder)
            output = Output(prompts.name, template, image_format)
            code = _run(prompts, plan, folder, output, identity, progress, strict, batch_size, (model, device, dtype))
        raise typer.Exit(code)


def checked_defaults(given: dict[str, Any], more: list[str]) -> dict[str, Any]:
    """What lines that leave a field open get. Raises InputError for what no request can have."""
    fields = {name: value for name, value in given.items() if value is not None}
    for assignment in more:
        field, mark, value = assignment.partition("=")
        field = field.strip().replace("-", "_")
        if not mark or not field:
            raise InputError(f"--set {assignment!r}: write FIELD=VALUE, such as prior_best_of=4")
        if field in ("prompt", "seed", "id"):
            raise InputError(f"--set {field}: each line has its own; put it into the file")
        if field in fields:
            raise InputError(f"--set {field}: it is given twice; keep one of them")
        fields[field] = typed(field, value)
    if fields.get("mode") is None:
        Request.from_dict({"prompt": "x", **{name: value for name, value in fields.items() if name in FIELDS}})
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        Request.from_dict({"prompt": "x", unknown[0]: None})  # which says what was meant
    return fields


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8). Raises InputError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"--shard {text!r}: write I/N with I from 1 to N, such as 2/8")
    return part


def _dry_run(
    prompts: PromptFile, plan: Settings, progress: BatchProgress, strict: bool, model: Model, out: Path, format: str
) -> int:
    amount, bad = _check(prompts, plan, progress, None)
    seconds, size, source = measure(amount, model, out, format)
    progress.plan(amount, seconds, size, source, bad, size_counts(amount, model))
    _check_any(prompts, amount, bad)
    return (2 if strict else 1) if bad else 0


def _run(
    prompts: PromptFile,
    plan: Settings,
    folder: Folder,
    output: Output,
    model: Model,
    progress: BatchProgress,
    strict: bool,
    batch_size: int,
    opened: tuple[str, str, str],
) -> int:
    amount, bad = _check(prompts, plan, progress, folder)
    _check_any(prompts, amount, bad)
    if bad and strict:
        raise InputError(f"{bad} bad lines in {prompts.name}, listed in {folder.path / ERRORS}; nothing was made")
    if amount.images == amount.done:
        progress.end(Totals(skipped=amount.done), bad, folder.path / ERRORS)
        return 1 if bad else 0
    _, needed, _ = measure(amount, model, folder.path, output.format)
    if needed > (free := shutil.disk_usage(folder.path).free):
        progress.note(f"the pictures may need {spoken_bytes(needed)}, and {spoken_bytes(free)} are free")

    from unclip.pipeline import Unclip  # torch: only once everything that can be known is known to be right

    name, device, dtype = opened
    pipe = Unclip.from_pretrained(name, device=device, dtype=dtype)
    refused = 0
    for line in _drawable(prompts, plan, pipe):
        if isinstance(line, BadLine):
            _report(line, prompts, folder, progress, bad + refused)
            refused += 1
    bad += refused
    if refused and strict:
        raise InputError(f"{bad} bad lines in {prompts.name}, listed in {folder.path / ERRORS}; nothing was made")
    jobs: Iterator[Job] = (
        job for line in _drawable(prompts, plan, pipe) if isinstance(line, Task) for job in line.jobs()
    )
    progress.start(amount.images - amount.done, amount.done, plan.seed)
    try:
        with StopOnInterrupt(progress.stopping) as interrupt:
            totals = run(
                pipe, model, jobs, folder, output, progress, batch_size=batch_size, stop=lambda: interrupt.asked
            )
    except KeyboardInterrupt:
        progress.resumable()
        raise
    finally:
        progress.close()
    progress.end(totals, bad, folder.path / ERRORS)
    if totals.stopped:
        progress.resumable()
        return 130
    return 1 if bad or totals.failed else 0


def _check(prompts: PromptFile, plan: Settings, progress: BatchProgress, folder: Folder | None) -> tuple[Amount, int]:
    """Check every line without the model; report the bad ones. -> (what the good ones ask for, number of bad ones)"""
    amount, bad = Amount(), 0
    last = time.monotonic()
    for count, line in enumerate(tasks(prompts.rows(), plan)):
        if isinstance(line, BadLine):
            _report(line, prompts, folder, progress, bad)
            bad += 1
            continue
        amount.add(line.request, line.count)
        if folder is not None and folder.done:
            amount.done += sum(folder.is_done(job.key) for job in line.jobs())
        if time.monotonic() - last > 10:
            progress.note(f"checked {count + 1:,} lines")
            last = time.monotonic()
    if bad > _SHOWN and not progress.as_json:
        where = f"; all are in {folder.path / ERRORS}" if folder else ""
        print(f"unclip: error: {bad - _SHOWN} more bad lines{where}", file=sys.stderr)
    return amount, bad


def _check_any(prompts: PromptFile, amount: Amount, bad: int) -> None:
    if not amount.images and not bad:
        raise InputError(f"{prompts.name} holds no prompts for this run; write one a line")


def _drawable(prompts: PromptFile, plan: Settings, pipe: "Unclip") -> Iterator[Task | BadLine]:
    """The good lines as they are, and those among them that the model refuses as bad ones."""
    for line in tasks(prompts.rows(), plan):
        if isinstance(line, BadLine):
            continue
        try:
            pipe.resolve(line.request)
        except RequestError as error:
            yield BadLine.of(line.row.line, line.row.index, error)
        else:
            yield line


def _report(line: BadLine, prompts: PromptFile, folder: Folder | None, progress: BatchProgress, before: int) -> None:
    fields = {
        "file": prompts.name,
        "line": line.line,
        "index": line.index,
        "field": line.field,
        "error": line.problem,
    }
    if folder is not None:
        folder.error(fields)
    progress.bad_line(fields, shown=before < _SHOWN)
