"""`unclip again`: the request of an image with some fields changed."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from unclip.cli import checks, completion, options, records
from unclip.cli.assignments import assigned_fields
from unclip.cli.image_command import ImageOptions, image_command, make_images
from unclip.images.inputs import SOURCES
from unclip.inference.speeds import DECODER_FIELDS
from unclip.requests.fields import PRIOR_FIELDS_OF
from unclip.requests.request import Request
from unclip.requests.seeds import parse_seeds
from unclip.system.choices import DTYPES, check_dtype

OTHER_SPEED_FIELDS = ("prior_steps", "prior_sampler", "upsampler_steps", "upsampler_cache_every")
"""What --speed sets besides the fields of the decoder."""
RECORDED = "  [default: as recorded]"


@dataclass(frozen=True, kw_only=True)
class AgainOptions(ImageOptions):
    """The options of a command that makes images; what is not given is as recorded."""

    seed: Annotated[
        str | None,
        typer.Option(
            metavar="SEED",
            help=f"Seed of the first image; image i has SEED + i. Or all: 1,2,3 or 1..8.{RECORDED}",
            callback=checks.check_seeds,
            rich_help_panel=options.IMAGE,
        ),
    ] = None
    negative_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help=f"What the image should not show.{RECORDED}", rich_help_panel=options.IMAGE),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Name, folder or hub id.{RECORDED}",
            callback=checks.checked(lambda _, value: checks.check_model(value)),
            rich_help_panel=options.MODEL,
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Precision: {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.{RECORDED}",
            callback=checks.checked(lambda _, value: check_dtype(value)),
            rich_help_panel=options.MODEL,
        ),
    ] = None


@image_command("generate", AgainOptions)
def again(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP file made by unclip, or @12 of `unclip log`.")
    ],
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help=f"What to show.{RECORDED}", rich_help_panel=options.PROMPTS)
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change any other field; an empty value gives the model's default. May be repeated.",
            autocompletion=completion.assignments,
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    size: options.Size = None,
    input_image: records.InputImage = None,
    input_mask: records.InputMask = None,
    input_embedding: records.InputEmbedding = None,
    input_sources: records.InputSources = None,
    *,
    shared: ImageOptions,
) -> None:
    """Make an image again with some fields changed.

    All other fields, the seed, the model and the precision are those of the image's record. `unclip reproduce` makes
    the exact image again.

    \b
    Examples:
      unclip again out/a-penguin-7.png --steps 20 --prompt "a penguin with a hat"
      unclip again @12 --seed 1..8 --set strength=0.5
    """
    recorded = records.read_recorded(image)
    record, made_with = recorded.record, recorded.options
    inputs = {"image": input_image, "mask": input_mask, "embedding": input_embedding, SOURCES: input_sources or None}
    request = records.recorded_request(records.with_inputs(record, inputs, image), image)
    records.check_recorded_inputs(request, image)
    given = {"prompt": prompt, "size": size, "n": shared.n if shared.n > 1 else None, **shared.request_fields()}
    if shared.seed is not None:
        given["seed"] = parse_seeds(shared.seed)
    given = {name: value for name, value in given.items() if value is not None}
    changes = given | assigned_fields(more or [], set(given))
    job = {**request.to_dict(), **changes}
    for kind, names in PRIOR_FIELDS_OF.items():  # the recorded fields of another kind of prior
        if changes.get("prior", kind) != kind:
            job |= {name: None for name in names if name in job and name not in changes}
    changed = Request.from_dict({**job, "seed": request.seed})  # a list of seeds is split later
    if changes.get("speed") is not None:  # what the record holds would win over it
        set_by_speed = OTHER_SPEED_FIELDS if changed.inverts else (*DECODER_FIELDS, *OTHER_SPEED_FIELDS)
        job |= {name: None for name in set_by_speed if name in job and name not in changes}
    if not shared.quiet:
        additions = {"image_encoder": shared.image_encoder, "prior": shared.prior, "loras": shared.lora}
        known = {"loras" if name == "lora" else name for name, value in made_with.items() if value}
        for option in records.recorded_additions(record, known | {name for name, value in additions.items() if value}):
            print(f"unclip: note: the image was made with {option}", file=sys.stderr)
    make_images(
        [job],
        dataclasses.replace(
            shared,
            image_encoder=made_with.get("image_encoder") if shared.image_encoder is None else shared.image_encoder,
            prior=made_with.get("prior") if shared.prior is None else shared.prior,
            lora=shared.lora or made_with.get("lora"),
            model=records.recorded_model(recorded) if shared.model is None else shared.model,
            dtype=records.recorded_dtype(record) if shared.dtype is None else shared.dtype,
            no_wildcards=shared.no_wildcards or "prompt" not in changes,  # those of the recorded prompt are chosen
        ),
    )
