"""Whether pictures show what was asked for, by the checker that shares nothing with the model; and how often it errs.

The categories are those of GenEval (Ghosh et al. 2023, arXiv:2310.11513) that the training domain has. They
are stricter here: a picture that shows more than was asked for is wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unclip.evaluation.intervals import rate
from unclip.evaluation.suite import Suite
from unclip.stickers.recognition.checker import Seen, Verdict, judge, see
from unclip.stickers.scene import BACKGROUNDS, COUNTS, SIZE_WORDS, Scene
from unclip.stickers.sprites import load_nouns

OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "next to": "above"}


@dataclass(frozen=True)
class Category:
    """What of a picture is judged.

    Attributes:
        passed: The outcome; None where the request has no such thing.
        spoiled: A request that the picture of the given one does not answer, wrong in this alone.
    """

    name: str
    passed: Callable[[Verdict], bool | None]
    spoiled: Callable[[Scene, np.random.Generator], Scene]


def _other(rng: np.random.Generator, options: Sequence, taken: Sequence) -> Any:
    left = [option for option in options if option not in taken]
    return left[int(rng.integers(len(left)))]


def _another_noun(scene: Scene, rng: np.random.Generator) -> Scene:
    """One of the names replaced; of a count, all of them."""
    taken = [placed.name for placed in scene.objects]
    name = _other(rng, tuple(load_nouns()), taken)
    kept = scene.objects[:1] if scene.kind == "pair" else ()
    return replace(scene, objects=(*kept, *(replace(placed, name=name) for placed in scene.objects[len(kept) :])))


CATEGORIES = {
    "single": (Category("single object", lambda verdict: verdict.objects, _another_noun),),
    "pair": (
        Category("two objects", lambda verdict: verdict.objects, _another_noun),
        Category(
            "position",
            lambda verdict: verdict.relation,
            lambda scene, rng: replace(scene, relation=OPPOSITES[scene.relation]),
        ),
    ),
    "count": (
        Category(
            "counting",
            lambda verdict: verdict.objects and verdict.count,
            lambda scene, rng: replace(scene, count=_other(rng, COUNTS, [scene.count])),
        ),
    ),
}
SIZE = Category(
    "small or large",
    lambda verdict: verdict.size,
    lambda scene, rng: replace(scene, size_word=_other(rng, SIZE_WORDS, [scene.size_word])),
)
BACKGROUND = Category(
    "background colour",
    lambda verdict: verdict.background,
    lambda scene, rng: replace(scene, background=_other(rng, tuple(BACKGROUNDS), [scene.background])),
)
ALL = Category("everything asked for", lambda verdict: verdict.all, _another_noun)
ORDER = ("single object", "two objects", "counting", "background colour", "position", "small or large", ALL.name)


def categories(scene: Scene) -> tuple[Category, ...]:
    """What is judged of a picture of a scene."""
    sized = () if scene.size_word is None else (SIZE,)
    return (*CATEGORIES[scene.kind], *sized, BACKGROUND, ALL)


def checker_error(suite: Suite) -> dict[str, Any]:
    """How often the checker errs on real renderings: of right ones it should accept all, of wrong ones none.

    A wrong one is a right picture under a request that differs in what the category is about, and in nothing else.
    """
    accepted: dict[tuple[str, str], list[bool]] = {}
    rng = np.random.Generator(np.random.Philox(key=[suite.seed, 0]))
    pictures = suite.real(suite.asked, suite.large)
    for i in suite.counted("checker", range(len(suite.asked))):
        scene, seen = suite.asked[i][1], see(pictures[i])
        for category in categories(scene):
            for side, request in (("right", scene), ("wrong", category.spoiled(scene, rng))):
                outcome = bool(category.passed(judge(seen, request)))
                accepted.setdefault((category.name, side), []).append(outcome)
    rows = [
        {
            "": name,
            "right ones accepted": rate(accepted.get((name, "right"), [])),
            "wrong ones accepted": rate(accepted.get((name, "wrong"), [])),
        }
        for name in ORDER
    ]
    return {"rows": rows}


def objects(suite: Suite) -> dict[str, Any]:
    """How often the model draws what it is asked for, at its defaults; and what was seen on each picture."""
    judged, pictures = [], suite.drawn
    for i in suite.counted("objects", range(len(suite.asked))):
        (prompt, scene), seen = suite.asked[i], see(pictures[i])
        verdict = judge(seen, scene)
        outcomes = {category.name: bool(category.passed(verdict)) for category in categories(scene)}
        judged.append({"prompt": prompt, "right": verdict.all, "outcomes": outcomes, "seen": _in_words(seen)})
    by_name = {name: [one["outcomes"][name] for one in judged if name in one["outcomes"]] for name in ORDER}
    rows = [{"": name, "right": rate(by_name[name])} for name in ORDER]
    note = f"{len(judged)} pictures, {len(dict(suite.asked))} different prompts; an object too many is wrong too"
    return {"rows": rows, "notes": [note], "pictures": judged}


def _in_words(seen: Seen) -> str:
    """What the checker saw: "cat, dog on blue"; with a question mark what it could not recognise."""
    names = [one.name if one.is_a(one.name) else f"{one.name}?" for one in seen.found]
    return f"{', '.join(names) or 'nothing'} on {seen.background.name}"
