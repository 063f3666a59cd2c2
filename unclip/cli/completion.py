"""Values that a shell completes: names of models, sizes, samplers, fields and their values."""

from collections.abc import Callable

import typer

from unclip.checkpoints import hub
from unclip.checkpoints.identity import identify_model
from unclip.checkpoints.locate import list_bundled_models
from unclip.errors import UnclipError
from unclip.images.metadata import FORMATS
from unclip.requests.fields import LIMITS, OneOf
from unclip.requests.text_values import FIELDS
from unclip.requests.values import size_text

Completer = Callable[[str], list[str]]


def one_of(*choices: str) -> Completer:
    """A completer of some words."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


image_formats = one_of(*FORMATS)


def models(incomplete: str) -> list[str]:
    """The bundled models and those in the hub's cache."""
    names = [*list_bundled_models(), *(name for name, _ in hub.list_cached_models())]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def sizes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The sizes of the model that is given, or of the default one."""
    model = ctx.params.get("model")
    try:
        found = identify_model("stickers" if model is None else model).sizes or ()
    except UnclipError:
        return []
    return [text for text in map(size_text, found) if text.startswith(incomplete)]


def assignments(incomplete: str) -> list[str]:
    """FIELD= for the fields of a request, and FIELD=VALUE where the values are known."""
    name, mark, value = incomplete.partition("=")
    field = name.replace("-", "_")
    if not mark:
        return [f"{field}=" for field in FIELDS if field.startswith(name.replace("-", "_"))]
    limit = LIMITS.get(field)
    choices = limit.choices if isinstance(limit, OneOf) else ()
    return [f"{name}={choice}" for choice in choices if choice.startswith(value)]
