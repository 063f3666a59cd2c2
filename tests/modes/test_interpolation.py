import torch

from tests.helpers import difference
from unclip.images.processing import to_images
from unclip.inference.conditions import Conditioning
from unclip.inference.run_context import Run
from unclip.modes.base import sampling_options
from unclip.pipeline import Unclip
from unclip.requests.request import Request

FEW = {"steps": 4, "size": 16}  # of inversions that need not be close


def test_the_end_frames_of_an_interpolation_are_reconstructions(tiny: Unclip, cat, dog) -> None:
    results = tiny.interpolate(cat, dog, frames=3, seed=5, **FEW)
    assert [r.request.fraction for r in results] == [0.0, 0.5, 1.0]
    for picture, result in ((cat, results[0]), (dog, results[2])):
        assert difference(result, tiny.reconstruct(picture, **FEW)[0]) <= 1
    assert min(difference(results[1], end) for end in (results[0], results[2])) > 10


def test_a_frame_is_the_same_when_generated_alone(tiny: Unclip, cat, dog) -> None:
    results = tiny.interpolate(cat, "a blue dog", frames=4, seed=5, **FEW)
    for result in (results[1], results[3]):
        assert result.request.frames is None
        assert difference(tiny.generate(result.request)[0], result) <= 1


def test_interpolated_prompts_share_one_noise(tiny: Unclip) -> None:
    results = tiny.interpolate("a red cat", "a blue dog", frames=3, seed=5, size=16, prior_best_of=1)
    assert (results[0].request.sampler, results[0].request.guidance) == ("dpmpp-2m", 2.0)
    text, nothing = tiny.model.encode_text(["a red cat"]), tiny.model.encode_text([""])
    request = tiny.resolve(Request(prompt="a red cat", seed=5, size=16, prior_best_of=1))
    noise = [torch.Generator().manual_seed(5)]
    embed = tiny.model.sample_prior(text, nothing, Run(noise, tiny.model.device, sampling_options(request)))
    torch.randn(1, 16, generator=noise[0])  # of the other prompt
    run = Run(noise, tiny.model.device, sampling_options(request))
    [x] = tiny.model.sample(Conditioning(embed, nothing, nothing), run)
    assert difference(results[0], to_images(x[None])[0]) <= 1


def test_same_noise_makes_the_end_frames_variations(tiny: Unclip, cat, dog) -> None:
    first, last = tiny.interpolate(cat, dog, frames=2, seed=5, same_noise=True, size=16)
    for picture, result in ((cat, first), (dog, last)):
        assert difference(result, tiny.vary(picture, seed=5, size=16)[0]) == 0


def test_a_mixture_by_weights(tiny: Unclip, cat, dog) -> None:
    [between] = tiny.interpolate(cat, dog, frames=None, fraction=0.25, seed=5, **FEW)
    assert difference(tiny.mix([cat, dog], [3, 1], seed=5, **FEW)[0], between) <= 1
    three = [
        tiny.mix(order, [1, 1, 1], seed=5, **FEW)[0] for order in ([cat, dog, "a red cat"], [dog, cat, "a red cat"])
    ]
    assert difference(*three) <= 2
    assert difference(three[0], between) > 5
