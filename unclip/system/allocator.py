"""Control how glibc's malloc treats freed memory, for networks on the CPU. Other C libraries are left alone.

Two needs pull in opposite directions. A U-Net allocates and frees large blocks many times a second; by default glibc
maps fresh pages for each, which the kernel must clear one by one, and that takes up to a third of the time. Reusing
freed blocks avoids it (`reuse_freed_blocks`) but fragments the heap, so its growth must be limited
(`make_growth_limiter`). On machines with little memory, freed blocks should instead go back to the system at once
(`return_large_blocks`, `release_free_memory`).
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

LARGE_BLOCK = 1 << 20  # bytes; `return_large_blocks` maps blocks from this size on apart from the heap
MAX_GROWTH = 1 << 30  # bytes that the process may grow before free memory is released
HUGE_PAGE = 1 << 21  # bytes
RESERVED = 1 << 32  # bytes of address space
MADV_HUGEPAGE = 14  # advice of madvise(2)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # parameters of mallopt(3)

REUSE = {
    M_MMAP_MAX: 0,  # no block gets a mapping of its own: all come from the heap
    M_TRIM_THRESHOLD: -1,  # the free end of the heap is never returned
}
DEFAULTS = {
    M_MMAP_MAX: 1 << 16,  # glibc's default
    # The values that glibc's dynamic thresholds reach once large blocks have been freed.
    M_TRIM_THRESHOLD: 1 << 26,
    M_MMAP_THRESHOLD: 1 << 25,
}


@contextlib.contextmanager
def reuse_freed_blocks(enabled: bool = True) -> Iterator[None]:
    """Within this context, keep freed blocks in the process and reuse them; afterwards, release them.

    By default glibc maps each large block separately, in pages of 4 KiB, which the kernel clears at first access. For
    the activations of a large U-Net that takes up to a third of the time. Reused blocks also lie in huge pages, if the
    system has them. The price is memory: a block still in use between two free ones fragments the heap, and neither may
    fit the next request (see `make_growth_limiter`).

    The setting holds for the whole process. Earlier settings by `mallopt` are not restored. If two contexts overlap,
    the first to end ends both. Outside the main thread, glibc uses other heaps, so there is no gain.
    """
    set_option = find_libc_function("mallopt") if enabled else None
    if set_option is None:
        yield
        return
    try:
        for option, value in REUSE.items():
            set_option(option, value)
        _reserve_huge_pages()
        yield
    finally:
        for option, value in DEFAULTS.items():
            set_option(option, value)
        release_free_memory()


def make_growth_limiter() -> Callable[[], None]:
    """A function to call before each network call of a run; it keeps the heap of `reuse_freed_blocks` from growing.

    The second call, after one network call, measures the process's normal size. Whenever the process has grown by
    `MAX_GROWTH` beyond it, free memory is released, and the normal size is measured again at the next call. More
    frequent releases are slow: new pages take a quarter of a large U-Net's time.
    """
    called, normal = False, None

    def limit_growth() -> None:
        nonlocal called, normal
        current = resident_bytes() if called else None
        called = True
        if current is None:
            return
        if normal is None:
            normal = current
        elif current > normal + MAX_GROWTH:
            release_free_memory()
            normal = None

    return limit_growth


def resident_bytes() -> int | None:
    """Bytes of physical memory that the process holds, from Linux's /proc; None on other systems."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def return_large_blocks() -> None:
    """From now on, return each block of `LARGE_BLOCK` bytes or more to the system when it is freed.

    The setting holds for the whole process and costs some time. Without it, glibc raises the size limit up to 32 MiB,
    the size of one convolution kernel of the published decoder. Freed kernels of one network would stay in the heap,
    between gaps that no kernel of the next network fits; at full size that adds 600 MiB at the peak.
    """
    if (set_option := find_libc_function("mallopt")) is not None:
        set_option(M_MMAP_THRESHOLD, LARGE_BLOCK)


def release_free_memory() -> None:
    """Return all free memory of the heap to the system."""
    if (malloc_trim := find_libc_function("malloc_trim")) is not None:
        malloc_trim(0)


def _reserve_huge_pages() -> None:
    """Extend the heap by address space that the kernel backs with huge pages once it is used."""
    malloc, free, madvise = (find_libc_function(name) for name in ("malloc", "free", "madvise"))
    assert malloc is not None and free is not None and madvise is not None, "every C library on Linux has these"
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if (start := malloc(RESERVED)) is not None:
        first, last = -(-start // HUGE_PAGE) * HUGE_PAGE, (start + RESERVED) // HUGE_PAGE * HUGE_PAGE
        madvise(first, last - first, MADV_HUGEPAGE)  # a system without huge pages refuses, which does no harm
        free(start)


def find_libc_function(name: str) -> Any | None:
    """A function of the C library; None if it lacks it, as musl lacks `mallopt`, or the system is not Linux."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
