import torch

from unclip.inference.conditions import Conditioning, Known
from unclip.models.text import TextEncoding


def test_shrinking_averages_known_pixels_and_keeps_no_masked_one() -> None:
    image = torch.full((1, 3, 16, 16), 0.5)
    mask = torch.ones(1, 1, 16, 16)
    mask[..., 6:] = 0
    image[..., 6:] = -1  # what is to be painted over
    small = Known(image, mask).resized(4, 4)
    assert torch.equal(small.mask, torch.tensor([1.0, 0, 0, 0]).expand(1, 1, 4, 4))
    torch.testing.assert_close(small.image[..., :2], torch.full((1, 3, 4, 2), 0.5))


def test_enlarging_keeps_soft_mask_values() -> None:
    mask = torch.tensor([1.0, 1.0, 0.25, 0.0]).expand(1, 1, 4, 4)
    large = Known(torch.full((1, 3, 4, 4), 0.5), mask).resized(8, 8)
    assert torch.equal(large.mask[0, 0, 0], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.0, 0.0]))
    torch.testing.assert_close(large.image[..., :4], torch.full((1, 3, 8, 4), 0.5))
    same = Known(large.image, large.mask)
    assert same.resized(8, 8) is same


def test_the_hint_mask_has_only_fully_known_pixels() -> None:
    mask = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    assert torch.equal(Known(torch.zeros(1, 3, 1, 3), mask).hint[1].flatten(), torch.tensor([1.0, 0.0, 0.0]))


def test_rows_of_a_conditioning_keep_embedding_and_texts_together() -> None:
    def encode(offset: int) -> TextEncoding:
        numbers = torch.arange(3) + offset
        return TextEncoding(numbers[:, None], numbers[:, None, None], numbers[:, None] > 1, numbers[:, None])

    conditioning = Conditioning(torch.arange(3.0)[:, None], encode(0), encode(10))
    rows = conditioning.rows([2, 0, 2])
    assert rows.embed.flatten().tolist() == [2, 0, 2]
    assert rows.text.tokens.flatten().tolist() == rows.text.states.flatten().tolist() == [2, 0, 2]
    assert rows.negative.embed.flatten().tolist() == [12, 10, 12]
    assert rows.text.mask.flatten().tolist() == [True, False, True]
