"""`unclip generate`: prompts to images."""

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import options
from unclip.cli.output import target
from unclip.cli.progress import Progress, on_terminal
from unclip.diffusion.names import SAMPLER_NAMES
from unclip.errors import InputError
from unclip.files import write_new
from unclip.names import check_device, check_dtype
from unclip.request import Request, Result, size_text
from unclip.sheet import layout, sheet

_SAMPLERS = "|".join(SAMPLER_NAMES)


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to show.")],
    model: options.Model = "stickers",
    n: Annotated[int, typer.Option("-n", help="Images of each prompt.")] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Image i of a prompt has SEED + i. Unset: drawn, and printed.")
    ] = None,
    negative: Annotated[str, typer.Option(help="What to steer away from.")] = "",
    steps: Annotated[int | None, typer.Option(help="Denoising steps of the decoder.")] = None,
    prior_steps: Annotated[int | None, typer.Option(help="Denoising steps of the prior.")] = None,
    upsampler_steps: Annotated[int | None, typer.Option(help="Denoising steps of each upsampler.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale of the decoder.")] = None,
    prior_guidance: Annotated[float | None, typer.Option(help="Guidance scale of the prior.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar=_SAMPLERS, help="Sampler of the decoder.")] = None,
    prior_sampler: Annotated[str | None, typer.Option(metavar=_SAMPLERS, help="And of the prior.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Such as 64x64. Unset: the model's largest.")] = None,
    prior_best_of: Annotated[
        int | None, typer.Option(help="Embeddings the prior draws; the one nearest to the text is used.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images computed at a time.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    out: Annotated[
        str, typer.Option("-o", "--out", help="A folder, or for one image a file: .png, .jpg or .webp.")
    ] = "out",
    image_format: Annotated[
        str | None, typer.Option("--format", metavar="png|jpg|webp", help="Of files in a folder. Unset: png.")
    ] = None,
    grid: options.Grid = False,
    labels: options.Labels = False,
    open_result: options.Open = False,
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no notes.")] = False,
) -> None:
    """Make images from one or more prompts.

    Example: unclip generate "a penguin on a pink background" -n 4 --seed 7 -o out/
    """
    seed = secrets.randbelow(2**32) if seed is None else seed
    requests = [
        Request(
            prompt=prompt,
            negative=negative,
            seed=seed,
            n=n,
            steps=steps,
            prior_steps=prior_steps,
            upsampler_steps=upsampler_steps,
            guidance=guidance,
            prior_guidance=prior_guidance,
            sampler=sampler,
            prior_sampler=prior_sampler,
            size=size,  # text; a Request turns it into (width, height)
            prior_best_of=prior_best_of,
        )
        for prompt in prompts
    ]
    check_device(device)
    check_dtype(dtype)
    options.check_at_least_one("--batch-size", batch_size)
    options.check_labels(labels, grid)
    place = target(out, images=n * len(requests), format=image_format)
    if grid and place.is_file:
        raise InputError(f"--grid goes into a folder, and -o {out!r} is a file; leave one out")

    from unclip.pipeline import Unclip  # torch: only once everything that can be known is known to be right

    progress = Progress(on_terminal(quiet))
    told: set[str] = set()
    paths: list[tuple[Path, str]] = []
    pipe = Unclip.from_pretrained(model, device=device, dtype=dtype)
    if grid:
        cell = pipe.resolve(requests[0]).size
        layout(n * len(requests), cell, labels)  # too large a sheet is to fail now, not at the end
    try:
        for result in pipe.stream(requests, batch_size=batch_size, progress=progress):
            progress.close()
            path = place.save(result)
            paths.append((path, f"{result.seed} {result.request.prompt}"))
            print(_line(result, path, as_json), flush=True)
            for note in result.notes:
                if note not in told and not quiet:
                    print(f"unclip: note: {note}", file=sys.stderr)
                told.add(note)
    finally:
        progress.close()
    shown = paths[0][0] if len(paths) == 1 else place.path
    if grid:
        shown = write_new(place.path / "grid.png", sheet(paths, layout(len(paths), cell, labels)))
        print(f"unclip: the grid is {shown}", file=sys.stderr)
    if open_result:
        options.show_result(shown)


def _line(result: Result, path: Path, as_json: bool) -> str:
    """What standard output says of an image."""
    if not as_json:
        return f"{path}  seed {result.seed}"
    return json.dumps(
        {
            "file": str(path),
            "seed": result.seed,
            "prompt": result.request.prompt,
            "model": result.model,
            "size": size_text(result.image.size),
            "score": result.score,
        }
    )
