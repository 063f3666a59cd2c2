import pytest
from PIL import Image

from tests.helpers import difference
from unclip.inference.callbacks import Watcher
from unclip.pipeline import Unclip
from unclip.requests.request import Request


def test_the_best_candidates_are_returned_in_order(tiny: Unclip) -> None:
    all_of_them = tiny.generate("a red cat", n=5, seed=7, size=16)
    order = sorted(all_of_them, key=lambda result: -result.score)
    best = tiny.generate("a red cat", n=2, best_of=5, seed=7, size=16)
    for result, expected in zip(best, order, strict=False):
        assert (result.seed, result.request) == (expected.seed, expected.request)
        assert difference(result, expected) <= 1
        assert result.ranked == pytest.approx([r.score for r in order], abs=1e-3)
    [alone] = tiny.generate(best[1].request)
    assert alone.ranked == () and difference(alone, best[1]) <= 1


def test_candidates_are_generated_once_for_any_batch_size(tiny: Unclip) -> None:
    seen: list[int] = []

    class Recorder(Watcher):
        def see(self, stage, images, seeds) -> None:
            seen.extend(seeds if stage == "decoder" else [])

    requests = [Request(prompt=prompt, n=3, best_of=4, seed=5, size=16, steps=1) for prompt in ("a cat", "a dog")]
    results = tiny.generate(requests, batch_size=2, progress=Recorder())
    assert sorted(seen) == sorted([5, 6, 7, 8] * 2)
    whole = tiny.generate(requests, batch_size=16)
    assert [result.seed for result in results] == [result.seed for result in whole]
    assert [result.ranked for result in results] == [pytest.approx(result.ranked, abs=1e-4) for result in whole]
    assert [result.timings["decoder"] > 0 for result in results] == [True] * 6


def test_best_of_one_equals_no_ranking(tiny: Unclip, cat: Image.Image) -> None:
    for fields in ({"prompt": "a red cat"}, {"mode": "vary", "image": cat}):
        [ranked] = tiny.generate(Request(**fields, seed=7, size=16, best_of=1))
        [plain] = tiny.generate(Request(**fields, seed=7, size=16))
        assert (ranked.request, difference(ranked, plain)) == (plain.request, 0)
