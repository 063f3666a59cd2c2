"""How glibc treats memory that is freed."""

import resource
import sys

import pytest
import torch

from unclip import heap

ON_GLIBC = sys.platform == "linux" and heap._of_glibc("mallopt") is not None
needs_glibc = pytest.mark.skipif(not ON_GLIBC, reason="another C library")
BYTES = 48 << 20


def faults_of_a_block() -> int:
    """Pages that the system had to provide for a large block which is written to and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_a_block_is_used_again():
    pages = BYTES // resource.getpagesize()
    with heap.blocks_reused():
        faults_of_a_block()
        assert faults_of_a_block() < pages / 100
        kept = torch.empty(BYTES, dtype=torch.uint8).fill_(1)
    assert kept.sum() == BYTES  # what is still held outlives it


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
        assert asked == ["mallopt"] * wanted
    heap.give_back_large()
    heap.trim()
    assert asked == ["mallopt"] * wanted + ["mallopt", "malloc_trim"]
