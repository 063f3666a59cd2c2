import torch

from unclip.models.text import TextEncoding, prompt_mask, tokens_only

END = 9  # the largest id: end of text


def encoding(b: int) -> TextEncoding:
    tokens = torch.arange(3 * b).reshape(b, 3)
    own = TextEncoding(torch.randn(b, 5), torch.randn(b, 2, 5), tokens[:, 1:] % 2 == 0, tokens[:, 1:])
    return TextEncoding(torch.randn(b, 4), torch.randn(b, 3, 4), tokens % 2 == 0, tokens, own)


def parts(text: TextEncoding) -> list[torch.Tensor]:
    """The tensors of an encoding and of the decoder's own."""
    assert text.decoder is not None
    return [*text[:4], *text.decoder[:4]]


def test_rows_are_selected_in_every_part_and_in_order() -> None:
    text = encoding(3)
    rows = text.rows([2, 0, 2])
    for part, whole in zip(parts(rows), parts(text), strict=True):
        assert torch.equal(part, whole[[2, 0, 2]])
    assert len(text.rows([]).embed) == 0


def test_repeat_places_copies_next_to_each_other() -> None:
    text = encoding(2)
    for part, whole in zip(parts(text.repeat(3)), parts(text), strict=True):
        assert torch.equal(part, whole[[0, 0, 0, 1, 1, 1]])
    assert torch.equal(text.repeat(1).states, text.states)


def test_a_decoder_without_an_encoder_of_its_own_gets_the_encoding_of_the_prior() -> None:
    both = encoding(2)
    assert both.for_decoder is both.decoder
    alone = both._replace(decoder=None)
    assert alone.for_decoder is alone
    assert alone.rows([1]).decoder is None


def test_the_prompt_mask_ends_at_the_last_end_of_text() -> None:
    tokens = torch.tensor([[8, 1, END, 0, 0], [8, END, 0, 0, 0], [8, 1, 2, 3, END], [8, END, 2, END, 0]])
    assert prompt_mask(tokens).sum(1).tolist() == [3, 2, 5, 4]
    assert prompt_mask(tokens)[0].tolist() == [True, True, True, False, False]


def test_tokens_only_has_no_embedding_and_no_states() -> None:
    tokens = torch.tensor([[8, 1, END, 0], [8, END, 0, 0]])
    text = tokens_only(tokens)
    assert text.embed.shape == text.states.shape == (2, 0)
    assert torch.equal(text.tokens, tokens)
    assert torch.equal(text.mask, prompt_mask(tokens))
