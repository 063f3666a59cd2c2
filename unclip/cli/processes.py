"""`--processes`: a command in several processes of this machine, and what each of them reports."""

import os
import sys
from typing import Any

from unclip.cli.help import ARGUMENTS
from unclip.errors import InputError, ProcessError, UnclipError
from unclip.system.processes import ERRORS, Processes


def start_processes(ctx: Any, count: int | None) -> int | None:
    """Run the command of a context in `count` processes, and return their exit code. None in one of those, and for 1.

    Raises InputError in a process that torchrun or accelerate has started.
    """
    if count is None or ERRORS in os.environ:
        return None
    if Processes.current().count > 1:
        raise InputError("--processes starts processes itself: leave it out under torchrun and accelerate launch")
    if count == 1:
        return None
    from unclip.system.launcher import run_processes

    return run_processes([sys.executable, "-m", "unclip", ctx.command.name, *ctx.meta[ARGUMENTS]], count)


def is_reported_elsewhere(error: BaseException | None, message: str = "", code: int = 0) -> bool:
    """Whether another process reports an error; None is an interrupt. Leaves it to `--processes` if that started this
    one.

    Of processes that torchrun or accelerate has started, the main one reports what all of them raise.
    """
    if ERRORS in os.environ:
        from unclip.system.launcher import leave_error

        return error is None or leave_error(message, code, isinstance(error, ProcessError))
    if Processes.current().is_main:
        return False
    shared = isinstance(error, UnclipError) and error.shared
    return error is None or shared or isinstance(error, InputError | ProcessError)
