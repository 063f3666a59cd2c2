"""How often images show their prompts, judged by the checker, which shares nothing with the model; and its own error.

The categories are the ones of GenEval (Ghosh et al. 2023, arXiv:2310.11513) that apply to the training domain. They are
stricter here: an image with an extra object is wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from unclip.evaluation.intervals import estimate_rate
from unclip.evaluation.suite import Suite
from unclip.stickers.recognition.checker import Detection, Verdict, detect, judge
from unclip.stickers.scene import BACKGROUNDS, COUNTS, SIZE_WORDS, Scene
from unclip.stickers.sprites import load_nouns

T = TypeVar("T")

OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "next to": "above"}


@dataclass(frozen=True)
class Category:
    """A property of an image that is judged.

    Attributes:
        name: Its name in tables and in the report's outcomes.
        passes: Returns the outcome; None if the scene lacks the property.
        falsify: Returns a scene that differs from the given one in this property alone.
    """

    name: str
    passes: Callable[[Verdict], bool | None]
    falsify: Callable[[Scene, np.random.Generator], Scene]


def _choose_other(rng: np.random.Generator, options: Sequence[T], excluded: Sequence[T | None]) -> T:
    left = [option for option in options if option not in excluded]
    return left[int(rng.integers(len(left)))]


def _replace_noun(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene with another noun: the second of a pair, or all of a count."""
    name = _choose_other(rng, tuple(load_nouns()), [placed.name for placed in scene.objects])
    kept = scene.objects[:1] if scene.kind == "pair" else ()
    return replace(scene, objects=(*kept, *(replace(placed, name=name) for placed in scene.objects[len(kept) :])))


CATEGORIES = {
    "single": (Category("single object", lambda verdict: verdict.objects, _replace_noun),),
    "pair": (
        Category("two objects", lambda verdict: verdict.objects, _replace_noun),
        Category(
            "position",
            lambda verdict: verdict.relation,
            lambda scene, rng: replace(scene, relation=OPPOSITES[str(scene.relation)]),
        ),
    ),
    "count": (
        Category(
            "counting",
            lambda verdict: verdict.objects and verdict.count,
            lambda scene, rng: replace(scene, count=_choose_other(rng, COUNTS, [scene.count])),
        ),
    ),
}
SIZE = Category(
    "small or large",
    lambda verdict: verdict.size,
    lambda scene, rng: replace(scene, size_word=_choose_other(rng, SIZE_WORDS, [scene.size_word])),
)
BACKGROUND = Category(
    "background colour",
    lambda verdict: verdict.background,
    lambda scene, rng: replace(scene, background=_choose_other(rng, tuple(BACKGROUNDS), [scene.background])),
)
ALL = Category("everything asked for", lambda verdict: verdict.all, _replace_noun)
ORDER = ("single object", "two objects", "counting", "background colour", "position", "small or large", ALL.name)


def categories(scene: Scene) -> tuple[Category, ...]:
    """Return the categories that apply to a scene."""
    size = () if scene.size_word is None else (SIZE,)
    return (*CATEGORIES[scene.kind], *size, BACKGROUND, ALL)


def measure_checker(suite: Suite) -> dict[str, Any]:
    """Return how often the checker errs on renderings: it should accept all right ones and no wrong ones.

    A wrong one is a rendering compared with a scene that differs in the category's property, and only there.
    """
    accepted: dict[tuple[str, str], list[bool]] = {}
    rng = np.random.Generator(np.random.Philox(key=[suite.seed, 0]))
    images = suite.render(suite.prompts, suite.full_size)
    detections = suite.share("checker", range(len(images)), lambda i: detect(images[i], suite.prompts[i][1].style))
    for (_, scene), detection in zip(suite.prompts, detections, strict=True):
        for category in categories(scene):
            for side, expected in (("right", scene), ("wrong", category.falsify(scene, rng))):
                outcome = bool(category.passes(judge(detection, expected)))
                accepted.setdefault((category.name, side), []).append(outcome)
    rows = [
        {
            "": name,
            "right ones accepted": estimate_rate(accepted.get((name, "right"), [])),
            "wrong ones accepted": estimate_rate(accepted.get((name, "wrong"), [])),
        }
        for name in ORDER
    ]
    return {"rows": rows}


def measure_objects(suite: Suite) -> dict[str, Any]:
    """Return how often the model's images at its defaults show their prompts, and the objects detected in each."""
    judged, images = [], suite.generated
    detections = suite.share("objects", range(len(images)), lambda i: detect(images[i], suite.prompts[i][1].style))
    for (prompt, scene), detection in zip(suite.prompts, detections, strict=True):
        verdict = judge(detection, scene)
        outcomes = {category.name: bool(category.passes(verdict)) for category in categories(scene)}
        judged.append({"prompt": prompt, "right": verdict.all, "outcomes": outcomes, "seen": _describe(detection)})
    by_name = {name: [each["outcomes"][name] for each in judged if name in each["outcomes"]] for name in ORDER}
    rows = [{"": name, "right": estimate_rate(by_name[name])} for name in ORDER]
    note = f"{len(judged)} images, {len(dict(suite.prompts))} different prompts; an extra object counts as wrong"
    return {"rows": rows, "notes": [note], "pictures": judged}


def _describe(detection: Detection) -> str:
    """Return the detected objects in words, such as "cat, dog on blue", with "?" after a name that is uncertain."""
    names = [each.name if each.is_a(each.name) else f"{each.name}?" for each in detection.objects]
    return f"{', '.join(names) or 'nothing'} on {detection.background.name}"
