"""The commands, put together."""

from typing import Annotated

import typer

from unclip.cli import (
    again,
    batch,
    bench,
    config,
    embed,
    evaluate,
    generate,
    inpaint,
    log,
    models,
    reproduce,
    serve,
    shell,
    show,
    sweep,
    train,
    vary,
)
from unclip.cli.help import CONTEXT, HelpCommand, HelpGroup
from unclip.cli.settings import OLD_NAMES, RecordedCommand, SettingsCommand, load_settings
from unclip.version import __version__

app = typer.Typer(
    name="unclip",
    cls=HelpGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Old names of options are normalised here and so stay out of the help.
    context_settings={**CONTEXT, "token_normalize_func": lambda name: OLD_NAMES.get(name, name)},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unclip {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Generate and edit images the DALL-E 2 way. A small model is included.

    \b
    Examples:
      unclip generate "a penguin on a pink background" -n 4
      unclip inpaint photo.png mask.png "a red hat"
      unclip batch prompts.csv -o out/
    """
    command = getattr(ctx.command, "commands", {}).get(ctx.invoked_subcommand)
    if isinstance(command, SettingsCommand) or ctx.invoked_subcommand == "config":
        load_settings(ctx)


GENERATE = "Generate"
PROMPT_FILES = "Prompt files and records"
MODELS = "Models and settings"
TRAINING = "Training and evaluation"

app.command("generate", cls=SettingsCommand, rich_help_panel=GENERATE)(generate.generate)
app.command("inpaint", cls=SettingsCommand, rich_help_panel=GENERATE)(inpaint.inpaint)
app.command("outpaint", cls=SettingsCommand, rich_help_panel=GENERATE)(inpaint.outpaint)
app.command("vary", cls=SettingsCommand, rich_help_panel=GENERATE)(vary.vary)
app.command("interpolate", cls=SettingsCommand, rich_help_panel=GENERATE)(vary.interpolate)
app.command("edit", cls=SettingsCommand, rich_help_panel=GENERATE)(vary.edit)
app.command("reconstruct", cls=SettingsCommand, rich_help_panel=GENERATE)(vary.reconstruct)
app.command("embed", cls=SettingsCommand, rich_help_panel=GENERATE)(embed.embed)
app.command("shell", cls=SettingsCommand, rich_help_panel=GENERATE)(shell.shell)
app.command("batch", cls=SettingsCommand, rich_help_panel=PROMPT_FILES)(batch.batch)
app.command("sweep", cls=SettingsCommand, rich_help_panel=PROMPT_FILES)(sweep.sweep)
app.command("show", cls=HelpCommand, rich_help_panel=PROMPT_FILES)(show.show)
app.command("reproduce", cls=HelpCommand, rich_help_panel=PROMPT_FILES)(reproduce.reproduce)
app.command("again", cls=RecordedCommand, rich_help_panel=PROMPT_FILES)(again.again)
app.command("log", cls=HelpCommand, rich_help_panel=PROMPT_FILES)(log.log)
app.command("serve", cls=SettingsCommand, rich_help_panel=GENERATE)(serve.serve)
app.add_typer(models.app, name="models", rich_help_panel=MODELS)
app.command("config", cls=HelpCommand, rich_help_panel=MODELS)(config.config)
app.command("train", cls=HelpCommand, rich_help_panel=TRAINING)(train.train)
app.command("evaluate", cls=SettingsCommand, rich_help_panel=TRAINING)(evaluate.evaluate)
app.command("bench", cls=SettingsCommand, rich_help_panel=TRAINING)(bench.bench)
