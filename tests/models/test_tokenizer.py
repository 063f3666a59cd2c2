import open_clip
import pytest
import torch

from tests.tiny import TOKENS
from unclip.models.tokenizer import Tokenizer

PROMPTS = ["a cat", "", "two red dogs to the left of a blue house!", "a cat"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(TOKENS)


def test_tokens_are_those_of_open_clip(tokenizer: Tokenizer) -> None:
    prompts = [*PROMPTS, "Ein Käse — ペンギン 🐧", "word " * 30]
    expected = open_clip.SimpleTokenizer(context_length=TOKENS)(prompts)
    assert torch.equal(tokenizer(prompts), expected)
    assert torch.equal(tokenizer(tuple(prompts)), expected)


def test_overflow_is_the_text_that_does_not_fit(tokenizer: Tokenizer) -> None:
    text = "one two three four five six seven eight nine ten eleven"  # one token per word, which fits exactly
    assert len(text.split()) == TOKENS - 2
    assert tokenizer.overflow(text) == ""
    assert tokenizer.overflow("") == ""
    assert tokenizer.overflow(f"{text} Cat") == "cat"
    assert tokenizer.overflow(f"{text} a red cat") == "a red cat"
    # Text beyond the context has no effect; the last word within it has.
    full, over, other = tokenizer([text, f"{text} cat", text.replace("eleven", "cat")])
    assert torch.equal(full, over)
    assert not torch.equal(full, other)


def test_overflow_from_the_middle_of_a_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.overflow("𒀀" * 20).replace("\N{REPLACEMENT CHARACTER}", "").strip("𒀀 ") == ""
