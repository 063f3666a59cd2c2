"""How glibc treats memory that is freed, for networks on the CPU; with another C library nothing happens here."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator

LARGE = 1 << 20  # bytes
GROWTH = 1 << 30  # bytes
HUGE_PAGE = 1 << 21
RESERVED = 1 << 32  # bytes of addresses
MADV_HUGEPAGE = 14  # of madvise(2)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt(3)
NEVER = -1
REUSED = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER}
# glibc's own limit, and what it comes to by itself once large blocks have been freed
USUAL = {M_MMAP_MAX: 1 << 16, M_TRIM_THRESHOLD: 1 << 26, M_MMAP_THRESHOLD: 1 << 25}


@contextlib.contextmanager
def blocks_reused(wanted: bool = True) -> Iterator[None]:
    """Keep the large blocks that are freed meanwhile for those that are asked for next; afterwards they go back.

    glibc gives each large block pages of its own, 4 KiB each, which the system clears one by one as they are first
    touched. For what a large U-Net computes and forgets many times a second, that takes up to a third of the time.
    Reused blocks lie in huge pages where the system has them. It costs memory: what is held between two blocks that
    are free keeps them apart, and then neither may do for the next (see `bounded_growth`).

    It is for the whole process while it lasts, and what was set by `mallopt` before is not set again. Two at a time end
    together. Outside of the main thread glibc keeps no large blocks, and nothing is gained.
    """
    set_option = _of_glibc("mallopt") if wanted else None
    if set_option is None:
        yield
        return
    try:
        for option, value in REUSED.items():
            set_option(option, value)
        _reserve()
        yield
    finally:
        for option, value in USUAL.items():
            set_option(option, value)
        trim()


def bounded_growth() -> Callable[[], None]:
    """A function to call before each call of the networks of a run, which keeps the holes of `blocks_reused` few.

    From its second call on there is one behind it, and it knows what the process holds for one. Whenever that has grown
    by `GROWTH` it hands back what is free. Not sooner: to provide it anew takes a quarter of a large U-Net's time.
    """
    called, usual = False, None

    def bound() -> None:
        nonlocal called, usual
        held = resident() if called else None
        called = True
        if held is None:
            return
        if usual is None:
            usual = held
        elif held > usual + GROWTH:
            trim()
            usual = None

    return bound


def resident() -> int | None:
    """What the process holds of the memory, in bytes; None where the system does not tell it as Linux does."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def give_back_large() -> None:
    """From now on, have what is large go back to the system when it is freed, at some cost for what is not so large.

    It is for the whole process, and for good. glibc raises the size from which it does so up to 32 MiB, as large as a
    kernel of the published decoder: these would be left between holes that no other network's fit into. At full size
    that is 600 MiB at the peak.
    """
    if (set_option := _of_glibc("mallopt")) is not None:
        set_option(M_MMAP_THRESHOLD, LARGE)


def trim() -> None:
    """Hand what is free back to the system."""
    if (hand_back := _of_glibc("malloc_trim")) is not None:
        hand_back(0)


def _reserve() -> None:
    """Grow the heap by addresses, not yet memory, that are to be backed by huge pages."""
    malloc, free, advise = (_of_glibc(name) for name in ("malloc", "free", "madvise"))
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if (start := malloc(RESERVED)) is not None:
        first, last = -(-start // HUGE_PAGE) * HUGE_PAGE, (start + RESERVED) // HUGE_PAGE * HUGE_PAGE
        advise(first, last - first, MADV_HUGEPAGE)  # a system without them says no, and nothing is lost
        free(start)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where that is another one, as musl, which has no `mallopt`."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
