"""The words that a model of sticker scenes knows, in groups, and a page that shows its objects."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator
from html import escape

from unclip.stickers.captions import MEDIA, STYLE_WORDS, nouns_in, vocabulary
from unclip.stickers.scene import BACKGROUNDS
from unclip.stickers.sprites import load_nouns, load_sprites

SIDE = 48  # pixels of a thumbnail
Groups = dict[str, list[tuple[str, ...]]]
"""Title -> rows: a word or phrase, and the others that mean the same."""
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: .5rem; padding: 0 }
li { list-style: none; display: flex; gap: .6rem; align-items: center }
img, i { width: 48px; height: 48px; flex: none; object-fit: contain } i { border-radius: 6px }
small { display: block; opacity: .7 }
"""


def word_groups(words: Collection[str]) -> Groups:
    """The words of a model's vocabulary, in groups; those that the grammar of the captions does not have come last."""
    known = set(words)
    names = nouns_in(known)
    styles = tuple(style for style in STYLE_WORDS if style in known)
    grammar = vocabulary(names, styles) if names else None
    if grammar is None:
        return {"words": [(word,) for word in sorted(known)]} if known else {}
    nouns = load_nouns()
    groups: Groups = {
        "objects": [
            (noun.name, noun.plural, *noun.synonyms, *noun.synonym_plurals) for noun in (nouns[name] for name in names)
        ],
        "backgrounds": [tuple(spellings) for spellings in grammar.colours.values()],
        "sizes": [(size, *(word for word in others if word != size)) for size, others in grammar.size_words.items()],
        "numbers": [tuple(spellings) for spellings in grammar.counts.values()],
        "positions": [
            tuple(phrase.format(x="A", y="B") for phrase in phrases) for phrases in grammar.relations.values()
        ],
        "kinds of image": [(medium,) for medium in MEDIA],
    }
    if styles:
        groups["styles"] = [(style,) for style in styles]
    others = sorted(known - grammar.words)
    return groups | ({"other words": [(word,) for word in others]} if others else {})


def word_lines(groups: Groups) -> Iterator[str]:
    """The groups as a table of text: a title, then a row for each word, with the others that mean the same."""
    for title, rows in groups.items():
        yield f"{title} ({len(rows)})"
        width = max(len(row[0]) for row in rows)
        for first, *others in rows:
            yield f"  {first:<{width}}  {', '.join(others)}".rstrip()


def word_page(name: str, groups: Groups) -> str:
    """The groups as one HTML page, with a thumbnail of each object and a sample of each background."""
    parts = []
    for title, rows in groups.items():
        items = "".join(f"<li>{_sample(title, first)}<div>{_text(first, others)}</div></li>" for first, *others in rows)
        parts.append(f"<h2>{escape(title)} ({len(rows)})</h2><ul>{items}</ul>")
    heading = f"The words that {escape(name)} knows"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title><style>{_STYLE}</style>'
        f"<h1>{heading}</h1>{''.join(parts)}</html>\n"
    )


def _text(first: str, others: list[str]) -> str:
    return escape(first) + (f"<small>{escape(', '.join(others))}</small>" if others else "")


def _sample(title: str, word: str) -> str:
    """A thumbnail of an object or of a background, as a part of the page itself; "" for any other word."""
    if title == "backgrounds" and word in BACKGROUNDS:
        return f'<i style="background: rgb{BACKGROUNDS[word]}"></i>'
    if title != "objects":
        return ""
    buffer = io.BytesIO()
    load_sprites().image(word, SIDE).save(buffer, "WEBP", quality=80)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(word)}" src="data:image/webp;base64,{source}">'
