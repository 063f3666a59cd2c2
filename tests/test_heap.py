"""How glibc treats memory that is freed."""

import resource
import sys

import pytest
import torch

from unclip import heap

ON_GLIBC = sys.platform == "linux" and heap._of_glibc("mallinfo2") is not None
needs_glibc = pytest.mark.skipif(not ON_GLIBC, reason="another C library")
BYTES = 48 << 20


def faults_of_a_block() -> int:
    """Pages that the system had to provide for a large block which is written to and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_blocks_are_used_again():
    with heap.blocks_reused():
        used = counts().arena - counts().keepcost  # of the heap, all but its free end
        for _ in range(40):
            faults_of_a_block()
        # A block that is aligned is asked for with some bytes to spare, which its own hole has only with a neighbour's.
        assert counts().arena - counts().keepcost <= used + 20 * BYTES
        kept = torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    assert kept.sum() == BYTES  # what is still held outlives it


@needs_glibc
def test_holes_are_closed_before_they_are_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heap, "HOLES", BYTES)
    with heap.blocks_reused():
        start, held = resident(), []
        for _ in range(40):  # as pictures that are kept from every step: their places keep the blocks' apart
            blocks = [torch.empty(size << 18, dtype=torch.uint8).fill_(1) for size in (3, 5, 9, 17)]
            held.append([torch.empty(8 + size) for size in range(20)])
            del blocks
            heap.close_holes()
        assert resident() - start < 4 * BYTES
    assert len(held) == 40


@needs_glibc
def test_afterwards_large_blocks_lie_apart_again():
    with heap.blocks_reused():
        before = counts().hblkhd
        inside = torch.empty(1 << 30, dtype=torch.uint8)
        assert counts().hblkhd == before
    outside = torch.empty(1 << 30, dtype=torch.uint8)
    assert counts().hblkhd >= before + len(outside) >= len(inside)


def counts() -> heap._Counts:
    count = heap._of_glibc("mallinfo2")
    count.restype = heap._Counts
    return count()


@needs_glibc
def test_what_was_free_goes_back_afterwards_and_after_an_error():
    with pytest.raises(KeyError), heap.blocks_reused():
        faults_of_a_block()
        inside = resident()
        raise KeyError
    assert resident() < inside - 0.9 * BYTES


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("wanted", [False, True])
def test_nothing_is_asked_where_it_is_not_wanted_or_not_known(wanted: bool, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(heap, "_of_glibc", lambda name: asked.append(name))
    with heap.blocks_reused(wanted):
        assert bool(asked) == wanted
    heap.close_holes()
    heap.give_back_large()
    heap.trim()
    assert asked[-3:] == ["mallinfo2", "mallopt", "malloc_trim"]
