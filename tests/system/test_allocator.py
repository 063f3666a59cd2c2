"""Control of freed memory in glibc."""

import builtins
import ctypes
import resource
import sys

import pytest
import torch

from unclip.system import allocator

ON_GLIBC = sys.platform == "linux" and allocator.find_libc_function("mallinfo2") is not None
needs_glibc = pytest.mark.skipif(not ON_GLIBC, reason="another C library")
BYTES = 48 << 20


def count_page_faults() -> int:
    """Page faults of allocating, filling and freeing a large block."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_freed_blocks_are_reused():
    with allocator.reuse_freed_blocks():
        used = counts().arena - counts().keepcost  # the heap without its free end
        for _ in range(40):
            count_page_faults()
        # An aligned block is requested with some spare bytes, so it fits its own gap only together with a neighbour's.
        assert counts().arena - counts().keepcost <= used + 20 * BYTES
        kept = torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    assert kept.sum() == BYTES  # blocks in use outlive the context


@needs_glibc
def test_growth_by_fragmentation_is_limited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(allocator, "MAX_GROWTH", BYTES)
    with allocator.reuse_freed_blocks():
        start, held, limit_growth = allocator.resident_bytes(), [], allocator.make_growth_limiter()
        for _ in range(40):  # small blocks that stay in use fragment the heap
            blocks = [torch.empty(size << 18, dtype=torch.uint8).fill_(1) for size in (3, 5, 9, 17)]
            held.append([torch.empty(8 + size) for size in range(20)])
            del blocks
            limit_growth()
        assert allocator.resident_bytes() - start < 4 * BYTES
    assert len(held) == 40


@needs_glibc
def test_large_blocks_have_their_own_mappings_afterwards():
    with allocator.reuse_freed_blocks():
        before = counts().hblkhd
        inside = torch.empty(1 << 30, dtype=torch.uint8)
        assert counts().hblkhd == before
    outside = torch.empty(1 << 30, dtype=torch.uint8)
    assert counts().hblkhd >= before + len(outside) >= len(inside)


class Counts(ctypes.Structure):
    """The result of mallinfo2(3) for the main thread's heap. keepcost: free bytes at its end."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def counts() -> Counts:
    count = allocator.find_libc_function("mallinfo2")
    count.restype = Counts
    return count()


@needs_glibc
def test_free_memory_is_released_afterwards_even_after_an_error():
    with pytest.raises(KeyError), allocator.reuse_freed_blocks():
        count_page_faults()
        inside = allocator.resident_bytes()
        raise KeyError
    assert allocator.resident_bytes() < inside - 0.9 * BYTES


@pytest.mark.parametrize("enabled", [False, True])
def test_nothing_happens_if_disabled_or_without_glibc(enabled: bool, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(allocator, "find_libc_function", lambda name: asked.append(name))
    with allocator.reuse_freed_blocks(enabled):
        assert bool(asked) == enabled
    allocator.return_large_blocks()
    allocator.release_free_memory()
    assert asked[-2:] == ["mallopt", "malloc_trim"]


def test_memory_is_released_only_after_it_has_grown(monkeypatch: pytest.MonkeyPatch):
    held = iter([5, 5, 8, 9, 3, 6, 7, 9, 12])  # from the second call on
    calls, released = [], []
    monkeypatch.setattr(allocator, "MAX_GROWTH", 3)
    monkeypatch.setattr(allocator, "resident_bytes", lambda: next(held))
    monkeypatch.setattr(allocator, "release_free_memory", lambda: released.append(len(calls)))
    limit_growth = allocator.make_growth_limiter()
    for _ in range(10):
        limit_growth()
        calls.append(1)
    assert released == [4, 7]  # above 5 + 3; then, measured again, above 3 + 3


def test_without_proc_the_resident_size_is_unknown(monkeypatch: pytest.MonkeyPatch):
    def missing(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(builtins, "open", missing)
    assert allocator.resident_bytes() is None
    limit_growth = allocator.make_growth_limiter()
    limit_growth()
    limit_growth()
