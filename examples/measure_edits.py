"""How well the bundled model edits: `python examples/measure_edits.py [CASES] [MODEL]`.

Inpainting: the left object of a held-out scene of two is replaced by another. Right, if the checker of
`unclip.evaluation`, which knows nothing of the model, finds the new one there and the other beside it. Outpainting: a
held-out scene is widened to twice its width with its own prompt. Right, if the background goes on (its mean differs by
less than 4 of 255), the step in colour across the border is below 4, and nothing more is painted (which is also looked
at with two objects, and with several of a kind). And a scene of one object is widened, by half and to twice its width,
with another object as the prompt of that side: right, if the checker finds it there, and it alone.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from unclip import Unclip
from unclip.evaluation.intervals import row
from unclip.requests.request import Request
from unclip.stickers.captions import canonical_caption, nouns_in
from unclip.stickers.prompts import prompts
from unclip.stickers.recognition.checker import check
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, Scene
from unclip.stickers.sprites import load_nouns

SIDE, STEP = 256, 4.0


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene, SIDE))


def replacement(scene: Scene, noun: str, seed: int) -> tuple[Request, Scene]:
    """The edit that puts `noun` in the place of a pair's left object, and the scene that it should give."""
    left, right = sorted(scene.objects, key=lambda placed: placed.x)
    new = replace(scene, objects=(replace(left, name=noun), right), relation="left of")
    free = np.zeros((SIDE, SIDE), np.uint8)
    free[:, : SIDE // 2] = 255
    request = Request(
        mode="inpaint",
        prompt=canonical_caption(new, load_nouns()),
        image=picture(scene),
        mask=Image.fromarray(free),
        seed=seed,
    )
    return request, new


def addition(scene: Scene, noun: str, prompt: str, seed: int, pixels: int) -> tuple[Request, Scene]:
    """The edit that adds `noun` on the right of a scene of one object, and what should be seen there."""
    [placed] = scene.objects
    new = replace(scene, objects=(replace(placed, name=noun),), size_word=None)
    beyond = canonical_caption(new, load_nouns())
    request = Request(
        mode="outpaint", prompt=prompt, image=picture(scene), right=pixels, right_prompt=beyond, seed=seed
    )
    return request, new


def added(result: Image.Image, wanted: Scene) -> bool:
    """Whether what is beyond a scene's right side shows what is wanted, and nothing else."""
    pixels = result.width - SIDE
    alone = picture(replace(wanted, objects=()))
    alone.paste(result.crop((SIDE, 0, result.width, SIDE)), ((SIDE - pixels) // 2, 0))
    return bool(check(alone, wanted).objects)


def is_bare(result: Image.Image, scene: Scene) -> bool:
    """Whether beyond a scene's right side there is background alone: 98% of the pixels within 60 of 255."""
    beyond = np.asarray(result).astype(float)[:, SIDE:]
    return (np.abs(beyond - np.array(BACKGROUNDS[scene.background])).max(-1) > 60).mean() < 0.02


def another(nouns: Sequence[str], scene: Scene, i: int) -> str:
    """A noun that a scene does not show, the i-th of a fixed round."""
    shown = {placed.name for placed in scene.objects}
    return next(noun for noun in (nouns[(37 * i + k) % len(nouns)] for k in range(3)) if noun not in shown)


def main(cases: str = "40", model: str = "stickers") -> None:
    pipe, count = Unclip.from_pretrained(model), int(cases)
    nouns = nouns_in(pipe.vocabulary)
    pairs = [
        scene
        for _, scene in prompts(8 * count + 8, seed=1, kinds=("pair",), nouns=nouns)
        if scene.relation in ("left of", "right of")
    ][:count]
    found, untouched = [], []
    for i, scene in enumerate(pairs):
        request, wanted = replacement(scene, another(nouns, scene, i), seed=i)
        [result] = pipe.generate(request)
        verdict = check(result.image, wanted)
        found.append(bool(verdict.objects and verdict.relation))
        kept = (slice(None), slice(SIDE // 2, None))
        untouched.append(np.array_equal(np.asarray(result.image)[kept], np.asarray(request.image)[kept]))
    goes_on, steps, half, full = [], [], [], []
    bare = {}
    for kind in ("single", "pair", "count"):
        bare[kind] = []
        for i, (prompt, scene) in enumerate(prompts(count, seed=2, kinds=(kind,), nouns=nouns)):
            [result] = pipe.outpaint(picture(scene), prompt, right=SIDE, seed=i)
            bare[kind].append(is_bare(result.image, scene))
            if kind != "single":
                continue
            pixels = np.asarray(result.image).astype(float)
            colour = np.array(BACKGROUNDS[scene.background], float)
            beyond = np.median(pixels[:, SIDE:], axis=(0, 1))  # an object may stand there too
            goes_on.append(np.abs(beyond - colour).mean() < STEP)
            steps.append(np.abs(pixels[:, SIDE] - pixels[:, SIDE - 1]).mean())
            for width, there in ((SIDE // 2, half), (SIDE, full)):
                request, wanted = addition(scene, another(nouns, scene, i), prompt, i, width)
                there.append(added(pipe.generate(request)[0].image, wanted))
    rows = {
        "inpaint: the new object is there, beside the other": found,
        "inpaint: the other half is untouched": untouched,
        "outpaint: the background goes on": goes_on,
        f"outpaint: step at the border below {STEP:g}": [step < STEP for step in steps],
        **{f"outpaint: nothing more is painted, {kind}": outcomes for kind, outcomes in bare.items()},
        "outpaint: a side's new object is there, half width": half,
        "outpaint: a side's new object is there, full width": full,
    }
    for name, outcomes in rows.items():
        print(row(name, outcomes, 52))
    print(f"step in colour across the border, of 255: median {np.median(steps):.2f}, largest {np.max(steps):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
