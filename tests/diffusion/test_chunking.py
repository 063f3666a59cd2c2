import pytest
import torch
from torch import Tensor

from unclip.diffusion.chunking import chunked
from unclip.diffusion.denoiser import Prediction


@pytest.mark.parametrize(("together", "sizes"), [(3, [3, 3, 2]), (8, [8]), (9, [8]), (1, [1] * 8)])
@pytest.mark.parametrize("learned", [False, True])
def test_a_batch_is_denoised_in_chunks(together: int, sizes: list[int], learned: bool) -> None:
    made, calls = [], []

    def denoise_some(some: slice):
        made.append(some)

        def denoise(x: Tensor, t: Tensor) -> Prediction:
            calls.append(len(x))
            return Prediction(x + t.view(-1, 1), 2 * x if learned else None)

        return denoise

    denoise = chunked(denoise_some, 8, together)
    x, t = torch.randn(8, 5), torch.arange(8)
    for _ in range(2):
        prediction = denoise(x, t)
        assert torch.equal(prediction.x0, x + t.view(-1, 1))
        assert torch.equal(prediction.variance, 2 * x) if learned else prediction.variance is None
    assert calls == 2 * sizes
    assert [i for some in made[: len(sizes)] for i in range(8)[some]] == list(range(8))
