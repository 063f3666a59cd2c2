"""Typed errors. Each message is one line that names the problem and the fix."""

import difflib
from collections.abc import Iterable


class UnclipError(Exception):
    """Base of every error this package raises on purpose."""

    shared = False
    """Whether every process of a run raises it, so that one report is enough."""


class InputError(UnclipError, ValueError):
    """Wrong input. The command line exits with code 2."""


class RequestError(InputError):
    """A request has an invalid field, or the model cannot run it."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of a layout that is not supported."""


class DataError(InputError):
    """Training data or an image file is missing or cannot be read."""


class RecipeError(InputError):
    """A training recipe is missing, or has an unknown key or an invalid value."""


class TrainingError(UnclipError):
    """A training run ended early: the memory was used up, or a process that loads data was killed."""


class ProcessError(TrainingError):
    """Another process of a run ended early. It, or the program that started it, reports why."""


class WriteError(UnclipError):
    """A result cannot be written: the disk is full, or there is no permission."""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is spelled most like `name`, or None if none is similar."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), None)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known one, or all of them."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"


def one_line(text: str, length: int = 200) -> str:
    """A text of others for a message: one line of printable characters, the middle of a long one left out."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else f"{line[: length // 2]} ... {line[-length // 2 :]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine ran out of memory. Compared by name, so that torch is not imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    messages = ("DefaultCPUAllocator", "MPS backend out of memory")  # torch raises a plain RuntimeError for these
    return isinstance(error, RuntimeError) and any(words in str(error) for words in messages)
