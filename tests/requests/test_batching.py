from unclip.requests.batching import micro_batches
from unclip.requests.request import Request


def test_micro_batches_hold_what_can_be_drawn_together() -> None:
    a, b = (
        [Request(prompt=f"{i}", negative_prompt="x" * i, seed=i, id=str(i), steps=s) for i in range(5)] for s in (3, 4)
    )
    assert [len(batch) for batch in micro_batches(a, 2)] == [2, 2, 1]
    assert list(micro_batches([*a[:3], *b], 16)) == [a[:3], b]
    assert list(micro_batches([], 2)) == []
