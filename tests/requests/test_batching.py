import pytest

from unclip.requests.batching import can_share_batch, micro_batches
from unclip.requests.request import Request


def test_micro_batches_are_full_and_split_where_sampling_differs() -> None:
    a, b = (
        [Request(prompt=f"{i}", negative_prompt="x" * i, seed=i, id=str(i), steps=s) for i in range(5)] for s in (3, 4)
    )
    assert [len(batch) for batch in micro_batches(a, 2)] == [2, 2, 1]
    assert list(micro_batches([*a[:3], *b], 16)) == [a[:3], b]
    assert list(micro_batches([], 2)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prompt": "a dog", "seed": 2, "id": "x", "negative_prompt": "a cat"}, True),
        ({"embedding": "e.safetensors"}, True),
        ({"steps": 5}, False),
        ({"size": 16}, False),
        ({"prior_guidance": 2.0}, False),
    ],
)
def test_requests_share_a_batch_if_they_sample_alike(changes, expected) -> None:
    request = Request(prompt="a cat", seed=1)
    assert can_share_batch(request, request.replace(**changes)) is expected


def test_inverting_requests_do_not_share_a_batch_with_others() -> None:
    one = Request(mode="interpolate", sources=("a.png", "b.png"))
    assert not can_share_batch(one, one.replace(same_noise=True))
