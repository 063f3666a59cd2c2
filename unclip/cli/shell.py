"""`unclip shell`: a session with a loaded model."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import checks, completion, options
from unclip.cli.history import history_file
from unclip.cli.image_command import ImageOptions, image_command
from unclip.cli.output import find_target
from unclip.cli.progress import Progress, on_terminal
from unclip.cli.session import Session
from unclip.cli.terminal_images import PROTOCOLS, inline_viewer
from unclip.errors import InputError

HISTORY = "shell-history"  # beside the history of images


@image_command("generate")
def shell(
    size: options.Size = None,
    images: Annotated[
        str,
        typer.Option(
            metavar="|".join(PROTOCOLS),
            help="How the terminal shows images; auto: as it can, by its variables.",
            callback=checks.checked(lambda _, value: checks.check_choice("--images", value, PROTOCOLS)),
            autocompletion=completion.one_of(*PROTOCOLS),
            rich_help_panel=options.OUTPUT,
        ),
    ] = "auto",
    *,
    shared: ImageOptions,
) -> None:
    """Keep the model loaded, and generate images of the prompts that you type.

    Options are the first settings; :help lists the commands. Lines from a pipe are done in order, and the exit code is
    1 if any of them failed.

    \b
    Example:
      unclip shell --steps 20 -o out/
    """
    target = find_target(shared.out, images=2, format=shared.image_format)  # a folder
    for option, given in (("--grid", shared.grid), ("--labels", shared.labels), ("--preview", shared.preview)):
        if given:
            raise InputError(f"{option} is of a single command; leave it out")
    is_interactive = sys.stdin is not None and sys.stdin.isatty()
    if is_interactive:
        check_prompt_toolkit()

    from unclip.pipeline import Unclip

    with closing(Progress(on_terminal(shared.quiet))) as progress:
        pipe = Unclip.from_pretrained(
            shared.model,
            device=shared.device,
            dtype=shared.dtype,
            memory=shared.memory,
            image_encoder=shared.image_encoder,
            prior=shared.prior,
            lora=shared.lora or (),
            progress=progress,
        )
    viewer = viewer_of(shared, images if is_interactive else "off")
    session = Session(pipe, shared, target, viewer)
    if size is not None:
        session.settings["size"] = size
    if not is_interactive:
        session.run(line.rstrip("\n") for line in sys.stdin or ())
        raise typer.Exit(1 if session.failed else 0)
    if not shared.quiet:
        print(f"{pipe.model.name}: type a prompt, or :help", file=sys.stderr)
    with python_interrupts():
        interact(session, shared.history)


def check_prompt_toolkit() -> None:
    """Raise InputError if prompt_toolkit, which reads the lines in a terminal, is not installed."""
    try:
        import prompt_toolkit  # noqa: F401
    except ImportError:
        raise InputError("unclip shell needs prompt_toolkit: pip install 'unclip[shell]'") from None


def viewer_of(shared: ImageOptions, protocol: str) -> Callable[[Path], None]:
    """The function that shows a finished image: in the terminal if it can, else not at all, or with --open outside."""
    if shared.open_when_done:
        return options.open_result
    viewer = None if shared.as_json else inline_viewer(protocol)
    return (lambda path: None) if viewer is None else viewer


def interact(session: Session, keep_history: bool) -> None:
    """Read lines from the terminal, with completion and the arrow keys, until Ctrl-D or :quit."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Words(Completer):
        def get_completions(self, document, complete_event):
            text = document.text_before_cursor
            for word in session.completions(text):
                yield Completion(word, start_position=-len(text.split(" ")[-1]))

    history = InMemoryHistory()
    if keep_history:
        path = history_file().with_name(HISTORY)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))  # prompts are private
        history = FileHistory(str(path))
    prompt = PromptSession("unclip> ", history=history, completer=Words(), complete_while_typing=False)

    def lines() -> Iterator[str]:
        while True:
            try:
                yield prompt.prompt()
            except KeyboardInterrupt:  # Ctrl-C clears the line
                continue
            except EOFError:
                return

    source = lines()
    while True:
        try:
            session.run(source)
            return
        except KeyboardInterrupt:
            print("unclip: interrupted; the session goes on", file=sys.stderr)


@contextmanager
def python_interrupts() -> Iterator[None]:
    """Within the context, every Ctrl-C raises KeyboardInterrupt; outside it, a second one ends the program."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
