"""The entry point of the command line: runs a command, reports errors in one line, returns the exit code."""

import os
import sys

from unclip.cli.interrupts import EXIT_CODE, Interrupts

TYPE_CHECKING = False  # see `unclip.cli.interrupts`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAX_MESSAGE = 600  # characters; a message may quote what a file holds


def main(args: "Sequence[str] | None" = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 input error, 130 interrupted.

    args: None takes those of the process, and handles its signals.
    """
    interrupts = Interrupts()
    code: Any
    try:
        if args is None:
            interrupts.install()
            if "UNCLIP_PARENT" in os.environ:
                from unclip.system.launcher import end_with_parent

                end_with_parent()
            from unclip.system.light_imports import allow_light_imports

            allow_light_imports()
        import contextlib

        from unclip.cli.app import app

        for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show must not end a run
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch is imported: large pages for large tensors
        code = app(list(sys.argv[1:] if args is None else args), prog_name="unclip", standalone_mode=False)
        if sys.stdout is not None:  # it may have been closed
            sys.stdout.flush()
    except SystemExit as ending:
        code = ending.code
    except BrokenPipeError:  # the reader of our output has ended, as in `| head`
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        code = EXIT_CODE
    except Exception as error:
        code = report(error)
    if code == EXIT_CODE and not _is_reported_elsewhere(None):
        interrupts.report()
    return code if isinstance(code, int) else 0


def report(error: "Any") -> int:
    """Print an expected error as one line and return its exit code. Raise any other error: it is a bug."""
    from unclip.errors import InputError, UnclipError, is_out_of_memory, one_line

    if type(error).__name__ == "Abort":  # some versions of typer turn an interrupt into this
        return EXIT_CODE
    if is_out_of_memory(error):
        message, code = "the device ran out of memory; use a smaller --batch-size", 1
    elif type(error).__name__ == "NoArgsIsHelpError":
        import typer

        typer.echo(error.format_message(), err=True)
        return 2
    elif hasattr(error, "format_message"):  # a usage error of click
        message, code = error.format_message() + usage_hint(error), 2
    elif isinstance(error, UnclipError):
        message, code = str(error), 2 if isinstance(error, InputError) else 1
    elif isinstance(error, OSError):
        message, code = str(error), 1
    else:
        raise error
    message = one_line(message, MAX_MESSAGE)
    if not _is_reported_elsewhere(error, message, code):
        print(f"unclip: error: {message}", file=sys.stderr)
    return code


def _is_reported_elsewhere(error: "BaseException | None", message: str = "", code: int = 0) -> bool:
    """Whether another process of a run reports an error, or an interrupt (None)."""
    if "WORLD_SIZE" not in os.environ:
        return False
    from unclip.cli.processes import is_reported_elsewhere

    return is_reported_elsewhere(error, message, code)


def usage_hint(error: "Any") -> str:
    """The end of the message of a usage error that often has the same cause; else ""."""
    from unclip.requests.other_tools import SAME, hint, plain_name

    name = str(getattr(error, "option_name", "")).lstrip("-")
    if fix := hint(name):
        ours = SAME.get(plain_name(name))
        return f"; {fix}" if ours is None else f"; did you mean -{'' if ours == 'n' else '-'}{ours.replace('_', '-')}?"
    arguments = getattr(getattr(error.ctx, "command", None), "params", ()) if hasattr(error, "ctx") else ()
    takes_prompt = any("PROMPT" in (getattr(argument, "metavar", None) or "") for argument in arguments)
    if takes_prompt and "unexpected extra argument" in str(error.format_message()):
        return "; give one image, and quote a prompt of several words"
    return ""
