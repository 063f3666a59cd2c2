"""Names of devices, precisions and memory modes, checked without importing torch."""

import re

from unclip.errors import InputError

DEVICES = ("auto", "cpu", "mps", "cuda", "cuda:N")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MEMORY = ("auto", "low", "high")


def check_device(name: str) -> str:
    """Return `name` if it names a device, whether or not this machine has it; else raise InputError."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", name):
        raise InputError(f"unknown device {name!r}; choose from {', '.join(DEVICES)}")
    return name


def check_dtype(name: str) -> str:
    """Return `name` if it names a precision; else raise InputError."""
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}; choose from {', '.join(DTYPES)}")
    return name


def check_memory(name: str) -> str:
    """Return `name` if it names a memory mode; else raise InputError."""
    if name not in MEMORY:
        raise InputError(f"unknown memory {name!r}; choose from {', '.join(MEMORY)}")
    return name
