"""`unclip serve`: the OpenAI Images API, and the canvas, on this machine."""

import importlib.util
import logging
import sys
from contextlib import closing
from typing import Annotated, Any

import typer

from unclip.cli import checks, options
from unclip.cli.progress import Progress, on_terminal
from unclip.errors import InputError
from unclip.server.settings import LOOPBACK, SIZES, ServerSettings
from unclip.system.light_imports import import_networks

ADDRESS = "Address and access"
LIMITS = "Limits"
NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def positive(name: str, help: str, metavar: str = "N", panel: str = LIMITS):
    """An option for a number that is at least 1."""
    return typer.Option(name, metavar=metavar, help=help, callback=checks.at_least_one, rich_help_panel=panel)


def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Name, folder or hub id. Repeat it for several; the first is the default.  [default: stickers]",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="NAME", help="Address to listen on; 0.0.0.0 for all networks.", rich_help_panel=ADDRESS),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 picks a free one.", rich_help_panel=ADDRESS)
    ] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key that each call must have. Better set as UNCLIP_API_KEY: other users see command lines.",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name that the server is reached by, such as a proxy's.",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A web page whose scripts may call the server.", rich_help_panel=ADDRESS),
    ] = None,
    sizes: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A size that the model does not generate is made from the nearest one and resized, or refused: "
            "nearest or exact.",
            callback=checks.checked(lambda _, value: checks.check_choice("--sizes", value, SIZES)),
        ),
    ] = "nearest",
    max_images: Annotated[int, positive("--max-images", "Images of one call.")] = 10,
    queue_size: Annotated[int, positive("--queue-size", "Images that may wait; further calls get status 429.")] = 256,
    max_body: Annotated[int, positive("--max-body", "Size of a call.", "MB")] = 50,
    max_pixels: Annotated[int, positive("--max-pixels", "Pixels of an image or a canvas, in 1024 x 1024.", "N")] = 16,
    keep_minutes: Annotated[
        int, positive("--keep-minutes", "Time that results and uploads are kept after their last use.")
    ] = 60,
    keep_size: Annotated[int, positive("--keep-size", "Memory for results and uploads.", "MB")] = 256,
    open_when_done: Annotated[
        bool, typer.Option("--open", help="Open the canvas in a browser.", rich_help_panel=options.OUTPUT)
    ] = False,
    quiet: options.Quiet = False,
    image_encoder: options.ImageEncoder = None,
    prior: options.Prior = None,
    lora: options.Lora = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    batch_size: options.BatchSize = 16,
) -> None:
    """Serve images over HTTP: the OpenAI Images API, and a canvas in the browser.

    Calls that arrive together are generated together. Ctrl-C finishes what runs and stops.

    \b
    Example:
      unclip serve --port 8000
    """
    check_installed()
    import_networks()
    from unclip.server.run import bind, log_to_stderr, url_of
    from unclip.server.run import serve as run
    from unclip.server.security import allowed_hosts

    keys = tuple(api_key or ())
    if not all(keys):
        raise InputError("--api-key is empty; give a key, or leave it out")
    settings = ServerSettings(
        api_keys=keys,
        hosts=allowed_hosts(host, allow_host or (), LOOPBACK),
        origins=tuple(origin.rstrip("/") for origin in allow_origin or ()),
        max_images=max_images,
        max_body=max_body * 1_000_000,
        max_pixels=max_pixels << 20,
        sizes=sizes,
        batch_size=16 if batch_size is None else batch_size,
        queue_size=queue_size,
        keep_time=keep_minutes * 60.0,
        keep_size=keep_size * 1_000_000,
    )
    with closing(bind(host, port)) as socket:
        how = {"device": device, "dtype": dtype, "memory": memory}
        how |= {"image_encoder": image_encoder, "prior": prior, "lora": lora or ()}
        loaded = load(models or ["stickers"], quiet, how)
        log_to_stderr(logging.WARNING if quiet else logging.INFO)
        socket.listen()  # a caller may connect once it has read the next line
        url = url_of(socket)
        print(f"unclip serves {', '.join(loaded)} at {url}", flush=True)
        if host not in LOOPBACK and not keys:
            print("unclip: note: other machines can use this server, and there is no --api-key", file=sys.stderr)
        if open_when_done:
            typer.launch(url)
        run(loaded, settings, [socket])


def check_installed() -> None:
    """Raise InputError if a package of the extra `serve` is missing."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"serve needs {missing[0]}: install it with pip install 'unclip[serve]'")


def load(names: list[str], quiet: bool, how: dict[str, Any]):
    """The models by name. how: options of `from_pretrained`.

    Raises CheckpointError for an unknown one, InputError for two of one name.
    """
    from unclip.pipeline import Unclip

    loaded: dict[str, Unclip] = {}
    with closing(Progress(on_terminal(quiet))) as progress:
        for name in names:
            pipe = Unclip.from_pretrained(name, progress=progress, **how)
            if pipe.model.name in loaded:
                raise InputError(f"--model: two models have the name {pipe.model.name!r}; give one of them")
            loaded[pipe.model.name] = pipe
    return loaded
