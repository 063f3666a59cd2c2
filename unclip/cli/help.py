"""Help in groups: arguments, then a section for each `rich_help_panel`, aligned and readable at 80 columns.

Typer's own grouped help needs rich, which takes as long to import as the rest of `unclip --help`, and its boxes leave
30 of 80 columns for text.
"""

import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from unclip.checkpoints.sampling_defaults import sampling_defaults
from unclip.requests.fields import edits_canvas

MODELS = r"\[default: the model's"  # the beginning, in an expression, of a default that the model sets
ARGUMENTS = "unclip.arguments"  # key of Context.meta: the words of the command line
OTHER = "Options"  # the section of an option without a panel
_MAX_TERM = 30  # click writes longer ones in a line of their own
_NO_BREAK = "\xa0"  # textwrap breaks lines at ordinary spaces only
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class HelpCommand(TyperCommand):
    """A command whose help shows its options in groups, with the defaults that the model sets."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)  # --help is handled before --model is
        return super().parse_args(ctx, args)

    def replaced_defaults(self, field: str | None) -> str:
        """An expression for the beginning of the defaults in the text of an option that are filled in."""
        return MODELS

    def models_defaults(self, ctx: Any) -> Callable[[str], str | None]:
        """The default of a field, by its name, that is set by the model of the command line or of the settings."""
        defaults = sampling_defaults(_model(self, ctx), edits_canvas(str(self.name)))
        return lambda field: f"the model's: {defaults[field]}" if field in defaults else None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [self.options_metavar or "", *map(_usage, _arguments(self, ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections = {"Arguments": [(_name(param), getattr(param, "help", "")) for param in _arguments(self, ctx)]}
        write_sections(sections | _with_defaults(_options(self, ctx), self, ctx), formatter)


class HelpGroup(TyperGroup):
    """A group whose help shows its commands in groups, with the first sentence of each, then its options."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write nothing: `format_options` writes the commands, before the options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                heading = panel if isinstance(panel, str) else "Commands"
                sections.setdefault(heading, []).append((name, (command.help or "").split("\n\n")[0]))
        write_sections(sections, formatter)
        write_sections(_options(self, ctx), formatter)


def write_sections(sections: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    """Write sections of (term, text), with the texts of all of them in one column."""
    lengths = [len(term) for rows in sections.values() for term, _ in rows]
    width = max((length for length in lengths if length <= _MAX_TERM), default=0)
    for heading, rows in sections.items():
        if rows:
            with formatter.section(typer.style(heading, bold=True)):  # without the style where there is no terminal
                formatter.write_dl([(f"{term:<{width}}", _without_breaks(text)) for term, text in rows])
    formatter.buffer = [text.replace(_NO_BREAK, " ") for text in formatter.buffer]


def _with_defaults(
    sections: dict[str, list[tuple[str, str]]], command: HelpCommand, ctx: Any
) -> dict[str, list[tuple[str, str]]]:
    """The sections with "[default: the model's ...]" filled in."""
    if not any("[default: " in text for rows in sections.values() for _, text in rows):
        return sections
    records = [(param.get_help_record(ctx), param.name) for param in command.get_params(ctx)]
    names: dict[str, Any] = {record[0]: name for record, name in records if record is not None}
    default = command.models_defaults(ctx)

    def filled(term: str, text: str) -> str:
        begin = command.replaced_defaults(names[term])
        value = default(names[term]) if re.search(begin, text) else None
        return text if value is None else re.sub(rf"{begin}[^]]*\]", f"[default: {value}]", text)

    return {heading: [(term, filled(term, text)) for term, text in rows] for heading, rows in sections.items()}


def _model(command: Any, ctx: Any) -> str:
    """The model that a command would load: of its arguments, a variable, a settings file, or the default."""
    words: list[str] = ctx.meta.get(ARGUMENTS, [])
    for place, word in enumerate(words):
        name, mark, value = word.partition("=")
        if name == "--model":
            return value if mark else "".join(words[place + 1 : place + 2])
    for param in command.params:
        if param.name == "model":
            value, _ = param.consume_value(ctx, {})
            return "stickers" if value is None else str(value)
    return "stickers"


def _without_breaks(text: str) -> str:
    """The text with non-breaking spaces in "[default: the model's]"."""
    return re.sub(r"\[default: [^]]*\]", lambda match: match[0].replace(" ", _NO_BREAK), text)


def _options(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """The options by section, in the order of their definition; those without a panel first."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if param.param_type_name == "option" else None
        if record is not None:
            sections.setdefault(getattr(param, "rich_help_panel", None) or OTHER, []).append(record)
    others = {OTHER: sections.pop(OTHER, [])}
    return {**others, **sections} if len(others[OTHER]) > 1 else {**sections, **others}  # --help alone is last


def _arguments(command: Any, ctx: Any) -> list[Any]:
    return [param for param in command.get_params(ctx) if param.param_type_name == "argument"]


def _name(param: Any) -> str:
    return param.metavar or param.name.upper()


def _usage(param: Any) -> str:
    """An argument in the usage line: IMAGE, [PROMPT], IMAGE..."""
    name = _name(param)
    if "[" in name:  # "[MASK] [PROMPT]" is complete already
        return name
    return (name if param.required else f"[{name}]") + ("..." if param.nargs == -1 else "")
