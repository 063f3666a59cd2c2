"""Settings below the command line: UNCLIP_* variables, then unclip.toml in the working folder, then the user's own.

A setting is an option of a `SettingsCommand`, named as on the command line: `steps = 20` for every command that has the
option, or in a table such as `[batch]` for one; UNCLIP_STEPS=20 is the same as a variable. Click does the rest: files
become its `default_map`, each option has its variable, and the `ParameterSource` says which of them was used.
"""

import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from unclip.cli.help import HelpCommand
from unclip.cli.history import VARIABLE as HISTORY_FILE
from unclip.errors import InputError, did_you_mean, nearest
from unclip.images.metadata import FORMATS
from unclip.requests import fields
from unclip.requests.other_tools import hint
from unclip.requests.request import Request
from unclip.requests.values import show
from unclip.system.launcher import PARENT
from unclip.system.processes import ERRORS

FILE = "unclip.toml"
PREFIX = "UNCLIP_"
USER_FILE = "UNCLIP_CONFIG"
"""The variable that names another file in place of the user's own."""
OLD_NAMES = {old: new.replace("_", "-") for old, new in fields.OLD_NAMES.items()} | {"pictures": "images"}
"""Names that options had in earlier versions, still read everywhere."""
_SOURCES = "unclip.settings"  # key of Context.meta: {(command, parameter): the file that a default is from}
SERVER = "server"
"""The option, and the setting, that lets a server make the images."""
DEFAULT_URL = "http://127.0.0.1:8000"
"""The url of `--server` without one: the default of `unclip serve`."""
LOCAL = ("device", "dtype", "memory", "image_encoder", "prior", "lora", "batch_size", "preview")
"""Options that say how this machine makes images."""
_ADDRESS = re.compile(r"https?://\S+|(localhost|[\w-]+(\.[\w-]+)+|\[[0-9a-fA-F:]+\])(:\d+)?/?|[\w-]+:\d+/?")
_USES_SERVER = "unclip.server"  # key of Context.meta
_SET = ("ENVIRONMENT", "DEFAULT_MAP")  # names of the parameter sources that are settings


class SettingsCommand(HelpCommand):
    """A command whose options can be set in unclip.toml and by variables."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, param in setting_options(self).items():
            # Not `auto_envvar_prefix`, which takes the names of Python's parameters (UNCLIP_AS_JSON for --json).
            names = [name, *(old for old, new in OLD_NAMES.items() if new == name)]
            param.envvar = [variable(each) for each in names]
            param.show_envvar = False
            param.envvar_list_splitter = "\n"  # by default a space, which values of --set may contain
            if param.callback is None and param.name in Request.field_names():
                param.callback = check_field

    def is_setting(self, param: Any) -> bool:
        """Whether an option can be set."""
        return not param.is_eager and long_name(param) != "dry-run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(param.name == SERVER for param in self.params):
            args = with_default_url(args)
            is_given = any(arg == f"--{SERVER}" or arg.startswith(f"--{SERVER}=") for arg in args)
            ctx.meta[_USES_SERVER] = is_given or bool(os.environ.get(variable(SERVER)) or ctx.lookup_default(SERVER))
        with setting_named_in_errors(ctx):
            rest = super().parse_args(ctx, args)
        drop_overruled(ctx)
        if ctx.params.get(SERVER) is not None:
            drop_local(ctx)
        return rest


class RecordedCommand(SettingsCommand):
    """A command whose options for the request and the model are by default as an image's record has them.

    Settings do not overrule a record; the other options can be set.
    """

    def replaced_defaults(self, field: str | None) -> str:
        is_recorded = field in Request.field_names() and field != "n"  # one image is made again
        return r"\[default: " if is_recorded else super().replaced_defaults(field)

    def models_defaults(self, ctx: Any) -> Callable[[str], str | None]:
        return lambda field: "as recorded"

    def is_setting(self, param: Any) -> bool:
        own = {*Request.field_names(), *("model", "image_encoder", "prior", "lora", "dtype", "set", "source")}
        return super().is_setting(param) and long_name(param).replace("-", "_") not in own


@dataclass(frozen=True)
class Setting:
    """A value from a file: for one command, or for all that have the option if `command` is None."""

    command: str | None
    name: str
    value: Any
    source: str


def files() -> list[Path]:
    """The sources of settings: the user's file, then the one in the working folder, which wins."""
    import platformdirs

    other = os.environ.get(USER_FILE)
    user = Path(other) if other is not None else Path(platformdirs.user_config_dir("unclip", appauthor=False)) / FILE
    return [user, Path(FILE)]


def load_settings(ctx: Any) -> None:
    """Make the settings files the defaults of the commands below `ctx`, and note variables that set nothing.

    Raises InputError, naming the file, if one cannot be parsed or has a table, a name or a type that no option has.
    """
    commands = settings_commands(ctx.command)
    defaults: dict[str, dict[str, Any]] = {command: {} for command in commands}
    sources: dict[tuple[str, str], str] = {}
    for path in files():
        if not path.is_file():
            continue
        for setting in _read(path, commands):  # the last one wins
            for command, params in commands.items():
                if setting.command in (None, command) and setting.name in params:
                    param = params[setting.name]
                    several = param.multiple and not isinstance(setting.value, list)
                    defaults[command][param.name] = [setting.value] if several else setting.value
                    sources[command, param.name] = setting.source
    ctx.default_map = defaults
    ctx.meta[_SOURCES] = sources
    for note in _unknown_variables(commands):
        print(f"unclip: note: {note}", file=sys.stderr)


def settings_commands(group: Any) -> dict[str, dict[str, Any]]:
    """The commands that have settings: command -> setting's name -> parameter."""
    found = {name: command for name, command in group.commands.items() if isinstance(command, SettingsCommand)}
    return {name: setting_options(command) for name, command in found.items()}


def setting_options(command: Any) -> dict[str, Any]:
    """The options of a command that can be set, by name: "batch-size" -> parameter."""
    options = {long_name(param): param for param in command.params if param.param_type_name == "option"}
    return {name: param for name, param in options.items() if command.is_setting(param)}


def long_name(param: Any) -> str:
    """An option's name without dashes in front: "out" for -o, --out."""
    return max(param.opts, key=len).lstrip("-")


def variable(name: str) -> str:
    """The variable of a setting: "batch-size" -> UNCLIP_BATCH_SIZE."""
    return PREFIX + name.upper().replace("-", "_")


def setting_source(ctx: Any, param: Any) -> str | None:
    """The file or variable that an option's value is from; None if it is the default or from the command line."""
    source = getattr(ctx.get_parameter_source(param.name), "name", None)
    if source == "ENVIRONMENT":
        return next(name for name in param.envvar if os.environ.get(name))
    return ctx.meta[_SOURCES][ctx.info_name, param.name] if source == "DEFAULT_MAP" else None


def check_field(ctx: Any, param: Any, value: Any) -> Any:
    """The value of an option that is a field of a Request, checked as such."""
    if value is not None:
        with source_in_errors(ctx, param):
            Request.check_value(param.name, value)
    return value


@contextmanager
def source_in_errors(ctx: Any, param: Any) -> Iterator[None]:
    """Name the settings file or the variable that a value is from in errors about it."""
    try:
        yield
    except InputError as error:
        source = setting_source(ctx, param)
        raise InputError(f"{source}: {error}" if source else str(error)) from None


@contextmanager
def setting_named_in_errors(ctx: Any) -> Iterator[None]:
    """Turn click's error about an option into an InputError that names the setting, if the value is from one."""
    try:
        yield
    except typer.BadParameter as error:
        source = None if error.param is None else setting_source(ctx, error.param)
        if source is None or error.param is None:
            raise
        value = os.environ.get(source) or ctx.lookup_default(error.param.name)
        raise InputError(f"{source}: {long_name(error.param)} cannot be {show(value)}: {error.message}") from None


def drop_overruled(ctx: Any) -> None:
    """Drop settings that contradict another option on the command line.

    Those are a size if margins are given, and a format if the suffix of the output file decides.
    """
    sources = {name: getattr(ctx.get_parameter_source(name), "name", None) for name in ctx.params}
    given = {name for name, source in sources.items() if source == "COMMANDLINE"}
    out = Path(str(ctx.params["out"])).suffix.lower().removeprefix(".") if "out" in given else ""
    for name, overruled in (("size", not given.isdisjoint(fields.SIDES)), ("format", out in FORMATS)):
        for param in ctx.command.params:
            if overruled and long_name(param) == name and sources.get(param.name) in _SET:
                ctx.params[param.name] = param.default


def uses_server(ctx: Any) -> bool:
    """Whether a command is asked to let a server make its images, before its options are parsed."""
    return ctx.meta.get(_USES_SERVER, False)


def with_default_url(args: Sequence[str]) -> list[str]:
    """The arguments of a command, with a url after each `--server` that has none."""
    found = list(args)
    options = found[: found.index("--")] if "--" in found else found
    for i, arg in enumerate(options):
        if arg == f"--{SERVER}" and not (i + 1 < len(options) and _ADDRESS.fullmatch(options[i + 1])):
            found[i] = f"--{SERVER}={DEFAULT_URL}"
    return found


def drop_local(ctx: Any) -> None:
    """Drop settings of this machine that a server has of its own. Raises InputError for one on the command line."""
    for param in ctx.command.params:
        if param.name in LOCAL and ctx.params[param.name] != param.default:
            source = getattr(ctx.get_parameter_source(param.name), "name", None)
            if source == "COMMANDLINE":
                raise InputError(f"--{long_name(param)} is a server's own choice: leave it or --{SERVER} out")
            if source in _SET:
                ctx.params[param.name] = param.default


def _read(path: Path, commands: dict[str, dict[str, Any]]) -> Iterator[Setting]:
    """The settings of a file, those for all commands first."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InputError(f"{path}: it is nested too deeply; correct the file, or move it away") from None
    except (OSError, ValueError) as error:  # tomllib's and Unicode's errors are ValueErrors
        raise InputError(f"{path}: {' '.join(str(error).split())}; correct the file, or move it away") from None
    tables = {name: value for name, value in found.items() if isinstance(value, dict)}
    for name, value in found.items():
        if name not in tables:
            yield _setting(None, name, value, str(path), commands)
    for command, table in tables.items():
        if command not in commands:
            raise InputError(f"{path}: [{command}] is not a command with settings; {did_you_mean(command, commands)}")
        for name, value in table.items():
            yield _setting(command, name, value, f"{path} [{command}]", commands)


def _setting(command: str | None, key: str, value: Any, source: str, commands: dict[str, dict[str, Any]]) -> Setting:
    """A setting with its value as it would be on the command line. Raises InputError for an unknown name or type."""
    name = key.replace("_", "-")
    name = OLD_NAMES.get(name, name)
    params = {name: param for own, known in commands.items() if command in (None, own) for name, param in known.items()}
    if name not in params:
        fix = hint(key) or did_you_mean(key.replace("_", "-"), params)
        raise InputError(f"{source}: {key!r:.80} is not a setting; {fix}")
    param = params[name]
    if param.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{source}: {key} must be true or false, not {show(value)}")
        return Setting(command, name, value, source)
    values = value if isinstance(value, list) and param.multiple else [value]
    if any(isinstance(one, bool) or not isinstance(one, (int, float, str)) for one in values):
        raise InputError(f"{source}: {key} cannot be {show(value)}; give a number or text")
    words = [str(one) for one in values]
    return Setting(command, name, words if param.multiple else words[0], source)


def _unknown_variables(commands: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A note for each variable UNCLIP_... that is not a setting."""
    known = {name for params in commands.values() for param in params.values() for name in param.envvar}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and name not in (USER_FILE, HISTORY_FILE, ERRORS, PARENT):
            near = nearest(name, known)
            yield f"{name} is not a setting" + (f"; did you mean {near!r}?" if near else "")
