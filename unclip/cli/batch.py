"""`unclip batch`: a prompt file to images, checked before it starts and resumed where it ended."""

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.jobs import Settings
from unclip.batch.output_folder import grid_of, open_folder, run_seed
from unclip.batch.prompt_file import FORMATS, prompt_file
from unclip.batch.row import FIELDS, typed
from unclip.batch.runner import Output
from unclip.batch.session import Grid, Session
from unclip.checkpoints.identity import identify_model
from unclip.cli import options
from unclip.cli.batch_progress import BatchProgress
from unclip.cli.progress import Progress, on_terminal
from unclip.errors import InputError
from unclip.images import metadata
from unclip.requests.fields import MODES, foreign_fields
from unclip.requests.request import Request
from unclip.system.choices import check_device, check_dtype, check_memory

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE", help=f"{', '.join(FORMATS)}, .gz of them, or - for stdin.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="The folder of the pictures.")] = "out",
    model: options.Model = "stickers",
    image_encoder: options.ImageEncoder = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides the seeds of lines without one. Unset: drawn, printed, and kept for a resume."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="Images of a line that does not say.")] = None,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    prior_steps: options.PriorSteps = None,
    upsampler_steps: options.UpsamplerSteps = None,
    guidance: options.Guidance = None,
    prior_guidance: options.PriorGuidance = None,
    sampler: options.Sampler = None,
    prior_sampler: options.PriorSampler = None,
    size: options.Size = None,
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
    grid: options.Grid = False,
    labels: options.Labels = False,
    preview: options.Preview = False,
    open_result: options.Open = False,
    batch_size: Annotated[int, typer.Option(help="Images computed at a time.")] = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")] = False,
) -> None:
    """Make images from a prompt file. Run it again to resume it.

    Example: unclip batch prompts.csv -o out/ --seed 7 --size 64x64
    """
    given = {
        "n": n, "negative_prompt": negative_prompt, "steps": steps, "prior_steps": prior_steps, "upsampler_steps": upsampler_steps,
        "guidance": guidance, "prior_guidance": prior_guidance, "sampler": sampler, "prior_sampler": prior_sampler,
        "size": size,
    }  # fmt: skip
    defaults = checked_defaults(given, more or [])
    if seed is not None:
        Request(prompt="x", seed=seed)
    check_device(device)
    check_dtype(dtype)
    check_memory(memory)
    options.check_choice("--format", image_format, tuple(metadata.FORMATS))
    options.check_at_least_one("--batch-size", batch_size)
    options.check_labels(labels, grid)
    template, part = NameTemplate.parse(name), parse_shard(shard)
    identity = identify_model(model, download=not dry_run)

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
        session = Session(
            prompts=prompts,
            model=identity,
            output=Output(prompts.name, template, image_format),
            progress=progress,
            strict=strict,
            grid=Grid(labels) if grid else None,
            preview=preview,
        )
        if dry_run:
            plan = settings(run_seed(out, seed, identity, write=False)[0], prompts.folder)
            raise typer.Exit(session.dry_run(plan, Path(out)))
        with open_folder(out, overwrite=overwrite) as folder:
            naming = {"--name": name, "--format": image_format, "--dtype": dtype, "--image-encoder": image_encoder}
            drawn, notes = run_seed(out, seed, identity, naming=naming)
            for note in (f"seed {drawn}", *notes):
                progress.note(note)

            def load() -> "Unclip":
                from unclip.pipeline import Unclip

                with closing(Progress(on_terminal(quiet))) as loading:
                    how = {"device": device, "dtype": dtype, "memory": memory, "image_encoder": image_encoder}
                    return Unclip.from_pretrained(model, **how, progress=loading)

            code = session.run(settings(drawn, prompts.folder), folder, load, batch_size)
    if open_result and code != 130:
        options.show_result((grid_of(out) if grid else None) or Path(out))
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
        if given.get(field) is not None:
            raise InputError(f"--set {field}: it is given twice; keep one of them")
        fields[field] = typed(field, value)
    mode = fields.get("mode")
    if mode is None:  # lines may have modes of their own, for which fields that generate has not are meant
        own = {
            name: value for name, value in fields.items() if name in FIELDS and name not in foreign_fields("generate")
        }
        Request.from_dict({"prompt": "x", **own})
    elif mode not in MODES:
        Request(prompt="x", mode=mode)  # which says what there is
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        Request.from_dict({"prompt": "x", unknown[0]: None})  # which says what was meant
    return fields


def parse_shard(text: str) -> tuple[int, int]:
    """I/N -> (I, N). Raises InputError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"--shard {text!r}: write I/N with I from 1 to N, such as 2/8")
    return part
