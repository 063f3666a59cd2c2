import pytest

from tests.helpers import difference
from unclip.images.result import Result
from unclip.pipeline import Unclip


def test_the_small_size_skips_the_upsampler(tiny: Unclip) -> None:
    [result] = tiny.generate("a red cat", seed=7, size="16x16")
    assert result.image.size == (16, 16)
    assert "upsampler" not in result.timings


def test_guidance_of_zero_ignores_the_prompt(tiny: Unclip) -> None:
    cat, dog = (tiny.generate(p, seed=5, size=16, guidance=0)[0] for p in ("a red cat", "a blue dog"))
    assert cat.request.guidance == 0
    assert difference(cat, dog) == 0
    assert difference(cat, tiny.generate("a red cat", seed=5, size=16)[0]) > 20


def test_a_negative_prompt_has_an_effect_unless_guidance_is_one(tiny: Unclip) -> None:
    def drawn(**fields) -> Result:
        return tiny.generate("a red cat", seed=9, size=16, prior_best_of=1, **fields)[0]

    assert difference(drawn(), drawn(negative_prompt="a blue dog")) > 10
    assert difference(drawn(guidance=0), drawn(guidance=0, negative_prompt="a blue dog")) > 10
    plain = {"guidance": 1, "prior_guidance": 1}
    assert difference(drawn(**plain), drawn(**plain, negative_prompt="a blue dog")) == 0


def test_the_score_of_a_result_is_that_of_its_image(tiny: Unclip) -> None:
    results = tiny.generate(["a red cat", "a dog"], seed=7)
    scores = tiny.score([r.image for r in results], ["a red cat", "a dog"])
    assert [r.score for r in results] == pytest.approx(scores, abs=0.03)
