"""The tensors of an image are the same alone and in a batch, in float32 on a CPU."""

import pytest

from tests.sampling import sample_tensors
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.modes.resolve import resolve
from unclip.pipeline import Unclip
from unclip.requests.request import Request

PROMPTS = (
    ".",
    "two owls",
    "a cat to the left of a dog on a blue background",
    "a b c d e f g h i j k l m n o p q r s t",
)
PIXEL = 2 / 255  # in [-1, 1]; images whose values differ by less differ by at most 1 of 255


@pytest.fixture(scope="module")
def stickers() -> Unclip:
    return Unclip.from_pretrained("stickers", device="cpu", dtype="float32")


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("steps, prior_steps", [(4, 3), (1, 1)])
def test_few_steps_alone_and_in_a_batch(stickers: Unclip, sampler: str, steps: int, prior_steps: int) -> None:
    # With "unclip", the first amplifies a difference of 1e-6 in its embedding a thousandfold.
    cases = [(".", 106), *((PROMPTS[i % 4], 100 + i) for i in range(6))]
    fields = {"size": 64, "steps": steps, "prior_steps": prior_steps, "sampler": sampler, "prior_sampler": sampler}
    requests = [resolve(stickers.model, Request(prompt=prompt, seed=seed, **fields)) for prompt, seed in cases]
    batch = sample_tensors(stickers, requests)
    for i, request in enumerate(requests):
        [alone] = sample_tensors(stickers, [request])
        assert (alone - batch[i]).abs().max() < PIXEL / 10
