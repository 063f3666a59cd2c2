"""The caption grammar of the training scenes: what the bundled model can be asked, and how.

    caption    = subject, and in seven of eight the background, in one of the FRAMES
    single     = "a penguin", "a small penguin", "penguin"
    pair       = "a cat to the left of a dog", "a dog on the left and a cat on the right", "a cat and a dog"
    count      = "three apples", "3 apples"
    background = "a pink background", "pink"

Any noun may be replaced by one of its synonyms. ``vocabulary()`` lists every word.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from unclip.requests.vocabulary import words_of
from unclip.stickers.sprites import Noun, load_nouns

if TYPE_CHECKING:  # scenes.py imports this module
    from unclip.stickers.scene import Scene

# s: the subject; m: a medium such as "a picture"; c: the colour; a: the colour with its article.
FRAMES = (
    "{s} on {a} background",
    "{s} on {a} background",
    "{s} on {a} background",
    "{s} on {a} background",
    "on {a} background, {s}",
    "{a} background with {s}",
    "{s}, {c} background",
    "{s} on {c}",
    "{s}, {c}",
    "{s} against {a} background",
    "{m} of {s} on {a} background",
    "{m} of {s} on {c}",
)
FRAMES_WITHOUT_BACKGROUND = ("{s}", "{s}", "{m} of {s}")
MEDIA = ("a sticker", "an image", "a picture", "a drawing", "an illustration")
MEDIA_OF_SEVERAL = ("an image", "a picture", "a drawing", "an illustration")
# x relates to y as the scene says; X and Y are the same without articles.
RELATION_PHRASES = MappingProxyType(
    {
        "left of": (
            "{x} to the left of {y}",
            "{x} left of {y}",
            "{x} on the left of {y}",
            "{x} on the left and {y} on the right",
            "{y} on the right and {x} on the left",
        ),
        "right of": (
            "{x} to the right of {y}",
            "{x} right of {y}",
            "{x} on the right of {y}",
            "{x} on the right and {y} on the left",
            "{y} on the left and {x} on the right",
        ),
        "above": ("{x} above {y}", "{x} above {y}", "{x} over {y}", "{x} at the top and {y} at the bottom"),
        "below": (
            "{x} below {y}",
            "{x} below {y}",
            "{x} under {y}",
            "{x} beneath {y}",
            "{x} at the bottom and {y} at the top",
        ),
        "next to": ("{x} next to {y}", "{x} next to {y}", "{x} beside {y}", "{x} and {y}"),
    }
)
COUNT_WORDS = MappingProxyType({2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")})
SIZE_SYNONYMS = MappingProxyType(
    {"small": ("small", "small", "tiny", "little"), "large": ("large", "large", "big", "huge")}
)
COLOURS = MappingProxyType(  # background -> its spellings
    {
        "white": ("white",),
        "black": ("black",),
        "grey": ("grey", "gray"),
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "blue": ("blue",),
        "purple": ("purple",),
        "pink": ("pink",),
        "brown": ("brown",),
        "turquoise": ("turquoise",),
    }
)
_SOUNDS_LIKE_A_CONSONANT = ("uni", "ufo", "one", "eu")


@dataclass(frozen=True)
class Vocabulary:
    """All that a caption can name.

    Attributes:
        nouns: Name -> its synonyms.
        colours: Names of backgrounds -> their spellings.
        relations: Relation -> its phrases, of {x} and {y}.
        counts: Number -> its spellings.
        size_words: "small" and "large" -> their synonyms.
        words: Every single word, lower case, that a caption can hold.
    """

    nouns: Mapping[str, tuple[str, ...]]
    colours: Mapping[str, tuple[str, ...]]
    relations: Mapping[str, tuple[str, ...]]
    counts: Mapping[int, tuple[str, ...]]
    size_words: Mapping[str, tuple[str, ...]]
    words: frozenset[str]


def caption(scene: Scene, rng: np.random.Generator, nouns: Mapping[str, Noun] | None = None) -> str:
    """One of the many captions of a scene, at most about 22 words; always true of it."""
    nouns = load_nouns() if nouns is None else nouns
    subject = _subject(scene, rng, nouns)
    frames = FRAMES_WITHOUT_BACKGROUND if rng.random() < 0.12 else FRAMES
    media = MEDIA if scene.kind == "single" else MEDIA_OF_SEVERAL
    colour = _pick(rng, COLOURS[scene.background])
    text = _pick(rng, frames).format(s=subject, m=_pick(rng, media), c=colour, a=with_article(colour))
    style = rng.random()
    if style < 0.14:
        text = text[0].upper() + text[1:]
    if 0.07 < style < 0.21:
        text += "."
    return text


def canonical_caption(scene: Scene, nouns: Mapping[str, Noun] | None = None) -> str:
    """The plainest caption of a scene, without synonyms: "a small cat on a pink background"."""
    nouns = load_nouns() if nouns is None else nouns
    first = nouns[scene.objects[0].name]
    if scene.kind == "count":
        subject = f"{COUNT_WORDS[scene.count][0]} {first.plural}"
    elif scene.kind == "pair":
        second = nouns[scene.objects[1].name]
        x, y = _singular(first, first.name), _singular(second, second.name)
        subject = RELATION_PHRASES[scene.relation][0].format(x=x, y=y)
    else:
        subject = _singular(first, first.name, scene.size_word)
    return f"{subject} on {with_article(scene.background)} background"


def with_article(phrase: str) -> str:
    """The phrase after "a" or "an", whichever it sounds like."""
    vowel = phrase[0] in "aeiou" and not phrase.startswith(_SOUNDS_LIKE_A_CONSONANT)
    return f"{'an' if vowel or phrase.startswith('hour') else 'a'} {phrase}"


@functools.cache
def vocabulary(names: tuple[str, ...] = ()) -> Vocabulary:
    """What the grammar can say, of some nouns or of all."""
    nouns = {name: noun for name, noun in load_nouns().items() if not names or name in names}
    sizes = {word: tuple(dict.fromkeys(synonyms)) for word, synonyms in SIZE_SYNONYMS.items()}
    relations = {relation: tuple(dict.fromkeys(phrases)) for relation, phrases in RELATION_PHRASES.items()}
    phrases = ["a an", *FRAMES, *FRAMES_WITHOUT_BACKGROUND, *MEDIA, *MEDIA_OF_SEVERAL]
    for spellings in (COLOURS, sizes, relations, COUNT_WORDS):
        phrases += [phrase for group in spellings.values() for phrase in group]
    for noun in nouns.values():
        phrases += [noun.name, noun.plural, *noun.synonyms, *noun.synonym_plurals]
    words = {word for phrase in phrases for word in words_of(re.sub(r"\{\w\}", " ", phrase))}
    return Vocabulary(
        nouns=MappingProxyType({name: noun.synonyms for name, noun in nouns.items()}),
        colours=COLOURS,
        relations=MappingProxyType(relations),
        counts=COUNT_WORDS,
        size_words=MappingProxyType(sizes),
        words=frozenset(words),
    )


def nouns_in(words: Collection[str]) -> tuple[str, ...]:
    """The nouns of which a set of words has every name: those that a model with this vocabulary was trained on."""
    return tuple(name for name in load_nouns() if vocabulary((name,)).words.issubset(words))


def _subject(scene: Scene, rng: np.random.Generator, nouns: Mapping[str, Noun]) -> str:
    first = nouns[scene.objects[0].name]
    if scene.kind == "count":
        word, digit = COUNT_WORDS[scene.count]
        return f"{digit if rng.random() < 0.25 else word} {_plural_name(rng, first)}"
    if scene.kind == "pair":
        second = nouns[scene.objects[1].name]
        x, y = _singular(first, _name(rng, first)), _singular(second, _name(rng, second))
        return _pick(rng, RELATION_PHRASES[scene.relation]).format(x=x, y=y)
    size = None if scene.size_word is None else _pick(rng, SIZE_SYNONYMS[scene.size_word])
    name = _name(rng, first)
    if rng.random() < 0.15:  # "penguin on pink", as many people ask
        return name if size is None else f"{size} {name}"
    return _singular(first, name, size)


def _singular(noun: Noun, name: str, size: str | None = None) -> str:
    phrase = name if size is None else f"{size} {name}"
    return phrase if name in noun.bare else with_article(phrase)


def _name(rng: np.random.Generator, noun: Noun) -> str:
    return _pick(rng, noun.synonyms) if noun.synonyms and rng.random() < 0.3 else noun.name


def _plural_name(rng: np.random.Generator, noun: Noun) -> str:
    return _pick(rng, noun.synonym_plurals) if noun.synonym_plurals and rng.random() < 0.3 else noun.plural


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.random() * len(options))]
