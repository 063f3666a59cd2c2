"""Errors a caller can tell apart. Each message is one line that says what is wrong and how to fix it."""

import difflib
from collections.abc import Iterable


class UnclipError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(UnclipError, ValueError):
    """Something the user gave is wrong. The command line ends with exit code 2."""


class RequestError(InputError):
    """A field of a request has a value it cannot have."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete, or not in a layout that can be read."""


class DataError(InputError):
    """Training data or an image file is missing or cannot be read."""


class RecipeError(InputError):
    """A training recipe is missing, has an unknown key, or holds a value that cannot be used."""


class WriteError(UnclipError):
    """What was made cannot be written: no room, or no permission."""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The one of `known` that was probably meant by `name`, for a message's "did you mean"; None if none is near."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), None)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known one, or all of them."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left. Told by name: torch must not be imported to compare."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = ("DefaultCPUAllocator", "MPS backend out of memory")  # of these torch says no more than RuntimeError
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)
