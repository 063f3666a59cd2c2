"""`unclip config`: the settings in force, and where each of them is from."""

import json
from collections.abc import Iterator
from typing import Any

import typer

from unclip.cli import options
from unclip.cli.settings import setting_named_in_errors, setting_source, settings_commands

SECRETS = ("api-key",)
"""Settings whose values are not displayed."""


def config(ctx: typer.Context, as_json: options.Json = False) -> None:
    """Show all settings and where each is from.

    Settings are options that have another default than the built-in one. They are read from unclip.toml in the working
    folder, from unclip.toml in your configuration folder, and from variables such as UNCLIP_DEVICE.

    \b
    Example:
      UNCLIP_DEVICE=cpu unclip config
    """
    for entry in list(settings_in_force(ctx.find_root())):  # all are checked before the first line
        if as_json:
            print(json.dumps(entry))
        else:
            print(f"{entry['command']}.{entry['name']} = {json.dumps(entry['value'])}  ({entry['source']})")


def settings_in_force(root: Any) -> Iterator[dict[str, Any]]:
    """{"command", "name", "value", "source"} of each option of each command that has settings.

    root: the context of `unclip`, with the files loaded. Raises InputError for a value that a command would refuse.
    """
    for name, params in settings_commands(root.command).items():
        ctx = type(root)(root.command.commands[name], info_name=name, parent=root)
        for setting, param in params.items():
            value, _ = param.consume_value(ctx, {})
            if value is not None:  # otherwise there is nothing to check, and the option may be required
                with setting_named_in_errors(ctx):
                    value, _ = param.handle_parse_result(ctx, {}, [])
            if setting in SECRETS and value:
                value = "(hidden)"
            source = setting_source(ctx, param) or "default"
            yield {"command": name, "name": setting, "value": value, "source": source}
