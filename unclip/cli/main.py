"""The entry point of the command line: runs a command, reports errors in one line, returns the exit code."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 input error, 130 interrupted."""
    from unclip.cli.app import app
    from unclip.cli.config import with_settings

    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show must not end a run
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch, yet to come: large tensors in large pages of memory
    sources: dict[str, str] = {}
    try:
        args, sources = with_settings(app, sys.argv[1:] if args is None else args)
        code = app(args, prog_name="unclip", standalone_mode=False)
        if sys.stdout is not None:  # it may have been closed
            sys.stdout.flush()
    except SystemExit as ending:
        code = ending.code
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = _report(error, sources)
    if code == 130:
        print("unclip: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _report(error: Exception, sources: Mapping[str, str]) -> int:
    """Print an expected error as one line and return its exit code; anything else is a bug: raise it.

    sources: option -> the settings file or variable that it is from, for an error that is about it.
    """
    from unclip.errors import InputError, UnclipError, is_out_of_memory

    if type(error).__name__ == "Abort":  # how some versions of typer hand on an interrupt
        return 130
    if is_out_of_memory(error):
        message, code = "the device ran out of memory; use a smaller --batch-size", 1
    elif type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return 2
    elif hasattr(error, "format_message"):  # a usage error from typer
        message, code = error.format_message(), 2
        message += "".join(f" (from {source})" for option, source in sources.items() if f"'{option}'" in message)
    elif isinstance(error, UnclipError):
        message, code = str(error), 2 if isinstance(error, InputError) else 1
    elif isinstance(error, OSError):
        message, code = str(error), 1
    else:
        raise error
    print(f"unclip: error: {' '.join(message.split())}", file=sys.stderr)
    return code
