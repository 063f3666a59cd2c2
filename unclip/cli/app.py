"""The commands, put together."""

from typing import Annotated

import typer

from unclip.cli import batch, bench, config, embed, evaluate, generate, models, reproduce, show, train
from unclip.cli import inpaint as edit
from unclip.cli import vary as latents
from unclip.version import __version__

app = typer.Typer(
    name="unclip",
    help="Text to image the DALL-E 2 way, with a small model included.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unclip {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


app.command("generate")(generate.generate)
app.command("inpaint")(edit.inpaint)
app.command("outpaint")(edit.outpaint)
app.command("vary")(latents.vary)
app.command("interpolate")(latents.interpolate)
app.command("edit")(latents.edit)
app.command("reconstruct")(latents.reconstruct)
app.command("embed")(embed.embed)
app.command("batch")(batch.batch)
app.command("train")(train.train)
app.add_typer(models.app, name="models")
app.command("show")(show.show)
app.command("reproduce")(reproduce.reproduce)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("config")(config.config)
