import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import DIM
from unclip.diffusion.noise import make_generators
from unclip.inference.run_context import Run
from unclip.inference.stage_inputs import StageInputs
from unclip.modes.base import sampling_options
from unclip.pipeline import Unclip
from unclip.requests.request import Request


def test_prior_guidance_of_zero_ignores_the_prompt(tiny: Unclip) -> None:
    def embed(prompt: str, **fields) -> Tensor:
        request = tiny.resolve(Request(prompt=prompt, prior_best_of=1, **fields))
        text, nothing = tiny.model.encode_text([prompt]), tiny.model.encode_text([""])
        return tiny.model.sample_prior(
            text, nothing, Run(make_generators([5]), tiny.model.device, sampling_options(request))
        )

    assert torch.equal(embed("a red cat", prior_guidance=0), embed("a blue dog", prior_guidance=0))
    assert not torch.allclose(embed("a red cat"), embed("a blue dog"), atol=0.01)
    assert tiny.resolve(Request(prompt="a cat", prior_guidance=0)).prior_guidance == 0


@pytest.mark.parametrize("best_of", [1, 2, 5])
def test_the_prior_returns_the_sample_most_similar_to_the_text(tiny: Unclip, best_of: int) -> None:
    prompts, seeds = ["a red cat", "a dog", "blue", "a cat on a dog"], [0, 1, 2, 3]
    text, nothing = tiny.model.encode_text(prompts), tiny.model.encode_text([""] * 4)
    request = tiny.resolve(Request(prompt="x", prior_best_of=best_of))
    ours = tiny.model.sample_prior(
        text, nothing, Run(make_generators(seeds), tiny.model.device, sampling_options(request))
    )
    chosen = []
    for prompt, seed, embed in zip(prompts, seeds, ours, strict=True):
        one, none = tiny.model.encode_text([prompt]), tiny.model.encode_text([""])
        condition = tiny.model.prior.stage.network.condition
        samples = []
        for i in range(best_of):  # each by itself, from the noise that the generator gives it
            [generator] = make_generators([seed])
            for _ in range(i):
                torch.randn(1, DIM, generator=generator)
            x = tiny.model.prior.stage.run(StageInputs(condition(one), condition(none)), [generator])
            samples.append(tiny.model.prior.stage.network.unwhiten(x))
        candidates, target = torch.cat(samples).numpy(), one.embed[0].numpy()
        cosines = candidates @ target / np.linalg.norm(candidates, axis=1) / np.linalg.norm(target)
        chosen.append(int(cosines.argmax()))
        torch.testing.assert_close(embed.numpy(), candidates[chosen[-1]], rtol=0, atol=1e-4)
    assert len(set(chosen)) > 1 or best_of == 1
