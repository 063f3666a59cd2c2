"""The words of a prompt, and which of them a model with a closed vocabulary has never seen."""

import re
from collections.abc import Collection

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, in order."""
    return _WORD.findall(text.lower().replace("’", "'"))


def unknown_words(prompt: str, known: Collection[str]) -> list[str]:
    """The words of a prompt that are not in `known`, lower case, each once, in order."""
    return list(dict.fromkeys(word for word in words_of(prompt) if word not in known))
