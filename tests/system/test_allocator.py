"""How glibc treats memory that is freed."""

import ctypes
import resource
import sys

import pytest
import torch

from unclip.system import allocator as heap

ON_GLIBC = sys.platform == "linux" and heap._of_glibc("mallinfo2") is not None  # of 2.33 or newer, to look into
needs_glibc = pytest.mark.skipif(not ON_GLIBC, reason="another C library")
BYTES = 48 << 20


def faults_of_a_block() -> int:
    """Pages that the system had to provide for a large block which is written to and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_blocks_are_used_again():
    with heap.reuse_freed_blocks():
        used = counts().arena - counts().keepcost  # of the heap, all but its free end
        for _ in range(40):
            faults_of_a_block()
        # A block that is aligned is asked for with some bytes to spare, which its own hole has only with a neighbour's.
        assert counts().arena - counts().keepcost <= used + 20 * BYTES
        kept = torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    assert kept.sum() == BYTES  # what is still held outlives it


@needs_glibc
def test_holes_are_closed_before_they_are_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heap, "GROWTH", BYTES)
    with heap.reuse_freed_blocks():
        start, held, bound = heap.resident(), [], heap.make_growth_limiter()
        for _ in range(40):  # as pictures that are kept from every step: their places keep the blocks' apart
            blocks = [torch.empty(size << 18, dtype=torch.uint8).fill_(1) for size in (3, 5, 9, 17)]
            held.append([torch.empty(8 + size) for size in range(20)])
            del blocks
            bound()
        assert heap.resident() - start < 4 * BYTES
    assert len(held) == 40


@needs_glibc
def test_afterwards_large_blocks_lie_apart_again():
    with heap.reuse_freed_blocks():
        before = counts().hblkhd
        inside = torch.empty(1 << 30, dtype=torch.uint8)
        assert counts().hblkhd == before
    outside = torch.empty(1 << 30, dtype=torch.uint8)
    assert counts().hblkhd >= before + len(outside) >= len(inside)


class Counts(ctypes.Structure):
    """What mallinfo2(3) tells of the main thread's heap, the free part at whose end has `keepcost` bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def counts() -> Counts:
    count = heap._of_glibc("mallinfo2")
    count.restype = Counts
    return count()


@needs_glibc
def test_what_was_free_goes_back_afterwards_and_after_an_error():
    with pytest.raises(KeyError), heap.reuse_freed_blocks():
        faults_of_a_block()
        inside = heap.resident()
        raise KeyError
    assert heap.resident() < inside - 0.9 * BYTES


@pytest.mark.parametrize("wanted", [False, True])
def test_nothing_is_asked_where_it_is_not_wanted_or_not_known(wanted: bool, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(heap, "_of_glibc", lambda name: asked.append(name))
    with heap.reuse_freed_blocks(wanted):
        assert bool(asked) == wanted
    heap.return_large_blocks()
    heap.trim()
    assert asked[-2:] == ["mallopt", "malloc_trim"]


def test_memory_is_handed_back_when_it_has_grown_and_not_before(monkeypatch: pytest.MonkeyPatch):
    held = iter([5, 5, 8, 9, 3, 6, 7, 9, 12])  # at the second call and after, with what a step needs
    calls, handed_back = [], []
    monkeypatch.setattr(heap, "GROWTH", 3)
    monkeypatch.setattr(heap, "resident", lambda: next(held))
    monkeypatch.setattr(heap, "trim", lambda: handed_back.append(len(calls)))
    bound = heap.make_growth_limiter()
    for _ in range(10):
        bound()
        calls.append(1)
    assert handed_back == [4, 7]  # more than 5 + 3, and then, for it begins anew, more than 3 + 3


def test_elsewhere_nothing_is_known_of_the_memory(monkeypatch: pytest.MonkeyPatch):
    def missing(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr("builtins.open", missing)
    assert heap.resident() is None
    bound = heap.make_growth_limiter()
    bound()
    bound()
