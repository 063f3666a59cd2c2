from unclip.training.captions import vocabulary
from unclip.words import unknown_words


def test_unknown_words_of_the_stickers():
    known = vocabulary().words
    assert unknown_words("A Puppy to the LEFT of two ice creams, gray background.", known) == []
    assert unknown_words("a wizard riding a dog; the Wizard's hat", known) == ["wizard", "riding", "wizard's"]
    assert unknown_words("", known) == []
