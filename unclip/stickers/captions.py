"""The caption grammar of the training scenes: every phrase that the bundled model has learned.

    caption    = subject, and in seven of eight the background, in one of the FRAMES
    single     = "a penguin", "a small penguin", "a small cartoon penguin", "penguin"
    pair       = "a cat to the left of a dog", "a dog on the left and a cat on the right", "a cat and a dog"
    count      = "three apples", "3 apples"
    background = "a pink background", "pink"

Any noun can be replaced by one of its synonyms. ``vocabulary()`` lists every word.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from unclip.requests.vocabulary import words_of
from unclip.stickers.compose import choose
from unclip.stickers.scene import Scene
from unclip.stickers.sprites import Noun, load_nouns

# {s}: subject; {m}: medium, such as "a picture"; {c}: colour; {a}: colour with its article.
# Repeated frames are more likely.
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
# {x}: the first object of the pair; {y}: the second.
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
COLOURS = MappingProxyType(  # background -> spellings
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
STYLE_WORDS = MappingProxyType({"flat": 0.4, "cartoon": 0.6})
"""Style -> fraction of captions that mention it, where scenes have several styles."""

_CONSONANT_SOUNDS = ("uni", "ufo", "one", "eu")  # "a unicorn", although it begins with a vowel


@dataclass(frozen=True)
class Vocabulary:
    """All words and phrases that captions can use.

    Attributes:
        nouns: Noun -> synonyms.
        colours: Background -> spellings.
        relations: Relation -> phrases with the placeholders {x} and {y}.
        counts: Number -> spellings.
        size_words: "small" and "large" -> synonyms.
        words: Every single word, in lower case.
    """

    nouns: Mapping[str, tuple[str, ...]]
    colours: Mapping[str, tuple[str, ...]]
    relations: Mapping[str, tuple[str, ...]]
    counts: Mapping[int, tuple[str, ...]]
    size_words: Mapping[str, tuple[str, ...]]
    words: frozenset[str]


def random_caption(scene: Scene, rng: np.random.Generator, names_style: bool = False) -> str:
    """Return a random true caption of a scene, at most 24 words long.

    Args:
        scene: The scene.
        rng: Source of randomness.
        names_style: Whether the caption may mention the style of the objects.
    """
    nouns = load_nouns()
    style_word = scene.style if names_style and rng.random() < STYLE_WORDS.get(scene.style, 0) else None
    subject = _random_subject(scene, rng, nouns, style_word)
    frames = FRAMES_WITHOUT_BACKGROUND if rng.random() < 0.12 else FRAMES
    media = MEDIA if scene.kind == "single" else MEDIA_OF_SEVERAL
    colour = choose(rng, COLOURS[scene.background])
    text = choose(rng, frames).format(s=subject, m=choose(rng, media), c=colour, a=add_article(colour))
    style = rng.random()
    if style < 0.14:
        text = text[0].upper() + text[1:]
    if 0.07 < style < 0.21:
        text += "."
    return text


def canonical_caption(scene: Scene, names_style: bool = False) -> str:
    """Return the plainest caption of a scene, without synonyms, such as "a small cat on a pink background".

    Args:
        scene: The scene.
        names_style: Whether the caption mentions the style of the objects, if there is a word for it.
    """
    nouns = load_nouns()
    style = scene.style if names_style and scene.style in STYLE_WORDS else None
    first = nouns[scene.objects[0].name]
    if scene.count is not None:
        subject = _join(COUNT_WORDS[scene.count][0], style, first.plural)
    elif scene.relation is not None:
        second = nouns[scene.objects[1].name]
        x, y = _singular(first, first.name, style), _singular(second, second.name, style)
        subject = RELATION_PHRASES[scene.relation][0].format(x=x, y=y)
    else:
        subject = _singular(first, first.name, scene.size_word, style)
    return f"{subject} on {add_article(scene.background)} background"


def add_article(phrase: str) -> str:
    """Return the phrase with "a" or "an" before it, by its sound."""
    vowel = phrase[0] in "aeiou" and not phrase.startswith(_CONSONANT_SOUNDS)
    return f"{'an' if vowel or phrase.startswith('hour') else 'a'} {phrase}"


@functools.cache
def vocabulary(names: tuple[str, ...] = (), styles: tuple[str, ...] = ()) -> Vocabulary:
    """Return the grammar's vocabulary.

    Args:
        names: Nouns; empty for all.
        styles: The styles that captions mention.
    """
    nouns = {name: noun for name, noun in load_nouns().items() if not names or name in names}
    sizes = {word: tuple(dict.fromkeys(synonyms)) for word, synonyms in SIZE_SYNONYMS.items()}
    relations = {relation: tuple(dict.fromkeys(phrases)) for relation, phrases in RELATION_PHRASES.items()}
    phrases = ["a an", *FRAMES, *FRAMES_WITHOUT_BACKGROUND, *MEDIA, *MEDIA_OF_SEVERAL]
    phrases += [style for style in styles if style in STYLE_WORDS]
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
    """Return the nouns whose names and synonyms are all among `words`: those a model with this vocabulary knows."""
    return tuple(name for name in load_nouns() if vocabulary((name,)).words.issubset(words))


def coloured_nouns(text: str, known: frozenset[str]) -> list[str]:
    """Return the objects of a text that follow a colour, such as "red cat"; captions name only colours of backgrounds.

    Args:
        text: A prompt.
        known: The words of a model. Other words than these are left out, and all of a model that knows no backgrounds.
    """
    if "background" not in known:
        return []
    found = (words_of(phrase) for phrase in _coloured_noun().findall(text.lower()))
    return list(dict.fromkeys(" ".join(words) for words in found if known >= set(words)))


@functools.cache
def _coloured_noun() -> re.Pattern[str]:
    names = {
        name
        for noun in load_nouns().values()
        for name in (noun.name, noun.plural, *noun.synonyms, *noun.synonym_plurals)
    }
    colours = {spelling for spellings in COLOURS.values() for spelling in spellings}
    longest_first = sorted(names, key=len, reverse=True)
    # "orange" is also a fruit, as in "an orange cat" but not in "an orange".
    return re.compile(rf"\b(?:{'|'.join(sorted(colours))})\s+(?:{'|'.join(map(re.escape, longest_first))})\b")


def _random_subject(scene: Scene, rng: np.random.Generator, nouns: Mapping[str, Noun], style: str | None) -> str:
    first = nouns[scene.objects[0].name]
    if scene.count is not None:
        word, digit = COUNT_WORDS[scene.count]
        return _join(digit if rng.random() < 0.25 else word, style, _random_plural(rng, first))
    if scene.relation is not None:
        second = nouns[scene.objects[1].name]
        x, y = _singular(first, _random_name(rng, first), style), _singular(second, _random_name(rng, second), style)
        return choose(rng, RELATION_PHRASES[scene.relation]).format(x=x, y=y)
    size = None if scene.size_word is None else choose(rng, SIZE_SYNONYMS[scene.size_word])
    name = _random_name(rng, first)
    if rng.random() < 0.15:  # "penguin on pink", as many people write
        return _join(size, style, name)
    return _singular(first, name, size, style)


def _singular(noun: Noun, name: str, *adjectives: str | None) -> str:
    phrase = _join(*adjectives, name)
    return phrase if name in noun.bare else add_article(phrase)


def _join(*words: str | None) -> str:
    return " ".join(word for word in words if word is not None)


def _random_name(rng: np.random.Generator, noun: Noun) -> str:
    return choose(rng, noun.synonyms) if noun.synonyms and rng.random() < 0.3 else noun.name


def _random_plural(rng: np.random.Generator, noun: Noun) -> str:
    return choose(rng, noun.synonym_plurals) if noun.synonym_plurals and rng.random() < 0.3 else noun.plural
