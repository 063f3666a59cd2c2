"""`unclip config`, and the settings below the command line: UNCLIP_* variables, unclip.toml here, and the user's own.

A setting is an option of a command that makes pictures, named as on the command line: `steps = 20` for every one of
them, or in a table such as `[batch]` for one. UNCLIP_STEPS=20 is the same as a variable.
"""

import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from unclip.cli import options
from unclip.errors import InputError, nearest
from unclip.images.metadata import FORMATS
from unclip.requests.fields import SIDES

FILE = "unclip.toml"
PREFIX = "UNCLIP_"
USER_FILE = "UNCLIP_CONFIG"
"""The variable that names another file in place of the user's own."""
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")  # of a switch in a variable


@dataclass(frozen=True)
class Setting:
    """A value, for one command or (None) for all that have the option, and where it comes from."""

    command: str | None
    name: str
    value: Any
    source: str


def config(ctx: typer.Context, as_json: options.Json = False) -> None:
    """Print the settings in force, and where each is from.

    Example: UNCLIP_DEVICE=cpu unclip config
    """
    commands = picture_commands(ctx.find_root().command)
    given = list(settings(commands))
    for entry in in_force(commands, given):
        if as_json:
            print(json.dumps({**entry, "value": _plain(entry["value"])}))
        else:
            print(f"{entry['command']}.{entry['name']} = {json.dumps(_plain(entry['value']))}  ({entry['source']})")
    for name in ignored(commands):
        print(f"unclip: note: {name} is the name of no setting", file=sys.stderr)


def with_settings(root: Any, args: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments with the settings in force before them, and where each option that was put in is from.

    An option that is given on the command line comes after its setting, and so wins. Raises InputError for a setting
    of an unknown name or shape; what is wrong with a value is for the command to say, as if it had been given there.
    """
    args = list(args)
    if not any(path.is_file() for path in files()) and not any(name.startswith(PREFIX) for name in os.environ):
        return args, {}
    commands = picture_commands(typer.main.get_command(root))
    if not args or args[0] not in commands:
        return args, {}
    for name in ignored(commands):
        print(f"unclip: note: {name} is the name of no setting", file=sys.stderr)
    known = commands[args[0]]
    chosen = {s.name: s for s in settings(commands) if s.command in (None, args[0]) and s.name in known}  # the last
    extra, sources = [], {}
    for name, setting in chosen.items():
        if _is_overruled(name, args[1:]):
            continue
        words = _as_arguments(known[name], setting.value)
        if words:
            sources[_option(known[name])] = setting.source
        extra += words
    return [args[0], *extra, *args[1:]], sources


def files() -> list[Path]:
    """Where settings may lie: the user's file, then the one in the working folder, which is stronger."""
    import platformdirs

    other = os.environ.get(USER_FILE)
    user = Path(other) if other is not None else Path(platformdirs.user_config_dir("unclip", appauthor=False)) / FILE
    return [user, Path(FILE)]


def picture_commands(group: Any) -> dict[str, dict[str, Any]]:
    """The commands that make pictures with a model of the user's choice: command -> option's name -> parameter."""
    commands = {}
    for command, entry in group.commands.items():
        known = {_name(param): param for param in getattr(entry, "params", []) if _is_setting(param)}
        if "model" in known and known["model"].default is not None:
            commands[command] = known
    return commands


def settings(commands: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    """All settings, the weakest first, each checked. Raises InputError naming the file or variable."""
    for path in files():
        if path.is_file():
            yield from _checked(_from_file(path, commands), commands)
    names = {f"{PREFIX}{name.upper().replace('-', '_')}": name for known in commands.values() for name in known}
    given = (Setting(None, names[key], value, key) for key, value in sorted(os.environ.items()) if key in names)
    yield from _checked(given, commands)


def ignored(commands: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Variables that look like settings and are none."""
    names = {name.upper().replace("-", "_") for known in commands.values() for name in known}
    found = (name for name in sorted(os.environ) if name.startswith(PREFIX) and name != USER_FILE)
    return [name for name in found if name.removeprefix(PREFIX) not in names]


def in_force(commands: Mapping[str, Mapping[str, Any]], given: list[Setting]) -> Iterator[dict[str, Any]]:
    """{"command", "name", "value", "source"} of every option of every command, its default where nothing was set."""
    for command, known in commands.items():
        for name, param in known.items():
            own = [s for s in given if s.name == name and s.command in (None, command)]
            value, source = (own[-1].value, own[-1].source) if own else (param.default, "default")
            yield {"command": command, "name": name, "value": value, "source": source}


def _from_file(path: Path, commands: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # tomllib's and Unicode's errors are ValueErrors
        raise InputError(f"{path}: {' '.join(str(error).split())}; correct it, or move it away") from None
    tables = {name: value for name, value in found.items() if isinstance(value, dict)}
    for name, value in found.items():
        if name not in tables:
            yield Setting(None, name.replace("_", "-"), value, str(path))
    for command, table in tables.items():
        if command not in commands:
            raise InputError(f"{path}: [{command}] is no command that makes pictures; known are {', '.join(commands)}")
        for name, value in table.items():
            yield Setting(command, name.replace("_", "-"), value, f"{path} [{command}]")


def _checked(given: Iterator[Setting], commands: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    for setting in given:
        having = [known for command, known in commands.items() if setting.command in (None, command)]
        params = [known[setting.name] for known in having if setting.name in known]
        if not params:
            names = {name for known in having for name in known}
            near = nearest(setting.name, names)
            fix = f"did you mean {near!r}?" if near else "`unclip config` lists the settings"
            raise InputError(f"{setting.source}: {setting.name!r} is not a setting; {fix}")
        yield Setting(setting.command, setting.name, _shaped(setting, params[0]), setting.source)


def _shaped(setting: Setting, param: Any) -> Any:
    """The value as an option takes it: a switch is on or off, only what may be given repeatedly is a list."""
    value = setting.value
    if param.is_flag:
        if isinstance(value, str):
            value = {**dict.fromkeys(_ON, True), **dict.fromkeys(_OFF, False)}.get(value.lower())
        if not isinstance(value, bool):
            raise InputError(f"{setting.source}: {setting.name} is true or false, not {setting.value!r:.60}")
        return value
    values = value if isinstance(value, list) and param.multiple else [value]
    if any(isinstance(one, bool) or not isinstance(one, (int, float, str)) for one in values):
        raise InputError(f"{setting.source}: {setting.name} cannot be {value!r:.60}; give one number or text")
    return value


def _as_arguments(param: Any, value: Any) -> list[str]:
    if param.is_flag:
        return [_option(param)] if value else []
    words = []
    for one in value if isinstance(value, list) else [value]:
        words += [f"{_option(param)}={one}"] if _option(param).startswith("--") else [_option(param), str(one)]
    return words


def _is_overruled(name: str, words: Sequence[str]) -> bool:
    """Whether what is given on the command line leaves no room for a setting of another name."""
    if name == "size":  # margins say it
        return any(word.partition("=")[0] in [f"--{side}" for side in SIDES] for word in words)
    if name == "format":  # the suffix of one file says it
        outs = [after for word, after in zip(words, words[1:], strict=False) if word in ("-o", "--out")]
        outs += [word.partition("=")[2] for word in words if word.startswith("--out=")]
        outs += [word[2:] for word in words if word.startswith("-o") and len(word) > 2]
        return any(Path(out).suffix.lower().removeprefix(".") in FORMATS for out in outs)
    return False


def _is_setting(param: Any) -> bool:
    return param.param_type_name == "option" and not param.is_eager and _name(param) not in ("help", "dry-run")


def _option(param: Any) -> str:
    """How an option is written: the longest of "-o" and "--out"."""
    return max(param.opts, key=len)


def _name(param: Any) -> str:
    return _option(param).lstrip("-")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str, list)) else str(value)
