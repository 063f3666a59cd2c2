"""Checks of the values of options, which need no model, and the callbacks that run them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from unclip.checkpoints.hub import parse_hub_id
from unclip.checkpoints.locate import find_checkpoint
from unclip.cli.settings import setting_source, source_in_errors, uses_server
from unclip.errors import CheckpointError, InputError
from unclip.images.metadata import FORMATS
from unclip.requests.fields import PRIORS
from unclip.requests.seeds import parse_seeds


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{option} {value!r} is unknown; choose from {', '.join(choices)}")


def check_at_least_one(option: str, value: int | None) -> None:
    """Raise InputError if `value` is given and below 1."""
    if value is not None and value < 1:
        raise InputError(f"{option} must be at least 1, not {value}")


def check_model(name: str) -> None:
    """Raise CheckpointError unless there is such a model here, or the name is one of the hub."""
    if parse_hub_id(name) is None:
        find_checkpoint(name)


def check_prior(name: str) -> None:
    """Raise CheckpointError unless the name is a kind of prior, a model here, or one of the hub."""
    if name not in PRIORS:
        try:
            check_model(name)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; or give a kind of prior: {' or '.join(PRIORS)}") from None


def check_folder(option: str, path: str) -> None:
    """Raise InputError unless `path` is a folder."""
    if not Path(path).is_dir():
        raise InputError(f"{option} {path!r} is not a folder; give the folder of the files")


def check_labels(labels: bool, grid: bool) -> None:
    """Raise InputError for labels without a grid."""
    if labels and not grid:
        raise InputError("--labels are part of the grid; give --grid too")


def checked(check: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A callback for an option that runs `check(param, value)` on a value that is given.

    If the value is from a settings file or a variable, the error names it. Options that are fields of a Request need no
    callback: `SettingsCommand` checks them.
    """

    def callback(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
        if value is not None:
            with source_in_errors(ctx, param):
                check(param, value)
        return value

    return callback


def local_model(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """A callback for the name of a model, which is on this machine unless a server makes the images."""
    return value if uses_server(ctx) else checked(lambda _, name: check_model(name))(ctx, param, value)


at_least_one = checked(lambda param, value: check_at_least_one(param.opts[0], value))
check_seeds = checked(lambda _, value: parse_seeds(value))
image_format = checked(lambda _, value: check_choice("--format", value, tuple(FORMATS)))


def prior_model(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """The folder or hub id of a prior. A kind of prior is dropped if it is a setting, which other commands have too."""
    if value not in PRIORS:
        return checked(lambda _, value: check_model(value))(ctx, param, value)
    if setting_source(ctx, param) is None:
        raise InputError(
            f"--prior {value} is for commands that take a prompt: leave it out, or write ./{value} for a folder"
        )
    return None
