"""Options that several commands share, and checks that need no model."""

from typing import Annotated

import typer

from unclip.errors import InputError
from unclip.names import DEVICES, DTYPES, MEMORY

Model = Annotated[str, typer.Option(help="A model's name, a checkpoint folder, or a hub id.")]
Device = Annotated[str, typer.Option(metavar="|".join(DEVICES), help="Where to compute.")]
Dtype = Annotated[str, typer.Option(metavar="|".join(DTYPES), help="Precision of the weights.")]
Memory = Annotated[
    str, typer.Option(metavar="|".join(MEMORY), help="low: one network at a time; auto: by the free memory.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="JSON, a line an object, on standard output; all else on standard error."),
]


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{option} {value!r} is unknown; choose from {', '.join(choices)}")


def check_at_least_one(option: str, value: int | None) -> None:
    """Raise InputError if `value` is given and below 1."""
    if value is not None and value < 1:
        raise InputError(f"{option} must be at least 1, not {value}")
