"""The words of a prompt, and those that a model with a closed vocabulary was not trained on."""

import difflib
import functools
import re
from collections.abc import Collection

_SIMILAR = 0.7  # difflib's ratio: "pengiun" has 0.86 to "penguin", "lion" 0.67 to "on"
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order."""
    return _WORD.findall(text.lower().replace("’", "'"))


def unknown_words(prompt: str, known: Collection[str]) -> list[str]:
    """The words of a prompt that are not in `known`, in lower case, without repetition, in order."""
    return list(dict.fromkeys(word for word in words_of(prompt) if word not in known))


@functools.lru_cache(maxsize=1000)  # the lines of a batch repeat their words
def nearest_words(word: str, known: frozenset[str], most: int = 3) -> list[str]:
    """The known words that are spelled most like a word, the closest first; empty if none is similar."""
    return difflib.get_close_matches(word, sorted(known), n=most, cutoff=_SIMILAR)
