from unclip.requests.vocabulary import nearest_words, unknown_words
from unclip.stickers.captions import vocabulary


def test_unknown_words_of_the_stickers():
    known = vocabulary().words
    assert unknown_words("A Puppy to the LEFT of two ice creams, gray background.", known) == []
    assert unknown_words("a wizard riding a dog; the Wizard's hat", known) == ["wizard", "riding", "wizard's"]
    assert unknown_words("", known) == []


def test_nearest_words_are_those_of_like_spelling():
    known = vocabulary().words
    assert nearest_words("pengin", known)[0] == "penguin"
    assert "strawberry" in nearest_words("strawbery", known)
    assert "turquoise" in nearest_words("turqoise", known)
    assert nearest_words("xylophonist", known) == []
    assert len(nearest_words("cats", known)) <= 3
