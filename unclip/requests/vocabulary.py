"""The words of a prompt, and which of them a model with a closed vocabulary has never seen."""

import difflib
import functools
import re
from collections.abc import Collection

_ALIKE = 0.7  # of difflib's ratio: "pengiun" is 0.86 like "penguin", "lion" 0.67 like "on"
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, in order."""
    return _WORD.findall(text.lower().replace("’", "'"))


def unknown_words(prompt: str, known: Collection[str]) -> list[str]:
    """The words of a prompt that are not in `known`, lower case, each once, in order."""
    return list(dict.fromkeys(word for word in words_of(prompt) if word not in known))


@functools.lru_cache(maxsize=1000)  # a batch has the same words in every line
def nearest_words(word: str, known: frozenset[str], most: int = 3) -> list[str]:
    """The known words that are spelled most like a word, the nearest first; none where all are far off."""
    return difflib.get_close_matches(word, sorted(known), n=most, cutoff=_ALIKE)
