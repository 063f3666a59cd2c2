"""Measure the bundled model's edits on held-out scenes: `python examples/measure_edits.py [CASES] [MODEL]`.

With --processes N, N processes share the work, each with a GPU of its own where there are some.

Inpainting replaces the left object of a pair by another. It succeeds if the checker, which shares nothing with the
model, finds the new object there and the other beside it.

Outpainting doubles the width of a scene with its own prompt. It succeeds if the background continues (its median
differs by less than 4 of 255), the step in colour across the border is below 4, and no other object appears; the last
is also measured with pairs and counts. Outpainting a single object by half and by its whole width, with another object
as the prompt of that side, succeeds if the checker finds that object there, and no other.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from unclip import Request, Unclip
from unclip.evaluation.intervals import format_row
from unclip.stickers.captions import canonical_caption, nouns_in
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.recognition.checker import check
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, Scene
from unclip.system.device import own_device
from unclip.system.launcher import run_script
from unclip.system.processes import Processes

share = Processes.current().share
SIDE = 256  # px
STEP = 4.0  # of 255
WIDTH = 44  # of the names in the table


def held_out(pipe: Unclip, count: int, seed: int, kind: str) -> list[tuple[str, Scene]]:
    """Return prompts and scenes of a kind, with the model's nouns and styles."""
    nouns, styles = nouns_in(pipe.model.vocabulary), pipe.model.styles
    return sample_prompts(count, seed, kinds=(kind,), nouns=nouns, styles=styles)


def render_image(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene, SIDE))


def replace_left(scene: Scene, noun: str, seed: int) -> tuple[Request, Scene]:
    """Return the edit that replaces the left object of a pair by `noun`, and the scene that should result."""
    left, right = sorted(scene.objects, key=lambda placed: placed.x)
    new = replace(scene, objects=(replace(left, name=noun), right), relation="left of")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, : SIDE // 2] = 255
    request = Request(
        mode="inpaint",
        prompt=canonical_caption(new),
        image=render_image(scene),
        mask=Image.fromarray(mask),
        seed=seed,
    )
    return request, new


def add_right(scene: Scene, noun: str, prompt: str, seed: int, pixels: int) -> tuple[Request, Scene]:
    """Return the edit that adds `noun` on the right of a single object, and the scene that should result there."""
    [placed] = scene.objects
    new = replace(scene, objects=(replace(placed, name=noun),), size_word=None)
    side_prompt = canonical_caption(new)
    request = Request(
        mode="outpaint", prompt=prompt, image=render_image(scene), right=pixels, right_prompt=side_prompt, seed=seed
    )
    return request, new


def shows_addition(result: Image.Image, expected: Scene) -> bool:
    """Return whether the added part on the right shows the objects of a scene, and nothing else."""
    pixels = result.width - SIDE
    alone = render_image(replace(expected, objects=()))
    alone.paste(result.crop((SIDE, 0, result.width, SIDE)), ((SIDE - pixels) // 2, 0))
    return bool(check(alone, expected).objects)


def is_bare(result: Image.Image, scene: Scene) -> bool:
    """Return whether the added part on the right is background alone: 98% of its pixels within 60 of 255."""
    beyond = np.asarray(result).astype(float)[:, SIDE:]
    return (np.abs(beyond - np.array(BACKGROUNDS[scene.background])).max(-1) > 60).mean() < 0.02


def choose_noun(nouns: Sequence[str], scene: Scene, i: int) -> str:
    """Return a noun that is not in a scene, the i-th of a fixed cycle."""
    used = {placed.name for placed in scene.objects}
    return next(noun for noun in (nouns[(37 * i + k) % len(nouns)] for k in range(3)) if noun not in used)


def measure_inpainting(pipe: Unclip, count: int) -> None:
    """Replace the left object of pairs, and print the rates of success."""
    found = held_out(pipe, 8 * count + 8, seed=1, kind="pair")
    pairs = [scene for _, scene in found if scene.relation in ("left of", "right of")]
    nouns = nouns_in(pipe.model.vocabulary)

    def measure(case: tuple[int, Scene]) -> tuple[bool, bool]:
        i, scene = case
        request, expected = replace_left(scene, choose_noun(nouns, scene, i), seed=i)
        [result] = pipe.generate(request)
        verdict = check(result.image, expected)
        right = (slice(None), slice(SIDE // 2, None))
        same = np.array_equal(np.asarray(result.image)[right], np.asarray(request.image)[right])
        return bool(verdict.objects and verdict.relation), same

    found, untouched = zip(*share(list(enumerate(pairs[:count])), measure), strict=True)
    print(format_row("inpaint: the new object is beside the other", found, WIDTH))
    print(format_row("inpaint: the other half is untouched", untouched, WIDTH))


def measure_extension(pipe: Unclip, count: int, kind: str) -> None:
    """Double the width of scenes of a kind with their own prompts, and print the rates of success."""

    def measure(case: tuple[int, tuple[str, Scene]]) -> tuple[bool, bool, float]:
        i, (prompt, scene) = case
        [result] = pipe.outpaint(render_image(scene), prompt, right=SIDE, seed=i)
        pixels = np.asarray(result.image).astype(float)
        beyond = np.median(pixels[:, SIDE:], axis=(0, 1))  # the median ignores an object there
        continues = bool(np.abs(beyond - np.array(BACKGROUNDS[scene.background])).mean() < STEP)
        step = float(np.abs(pixels[:, SIDE] - pixels[:, SIDE - 1]).mean())
        return is_bare(result.image, scene), continues, step

    cases = list(enumerate(held_out(pipe, count, seed=2, kind=kind)))
    bare, continues, steps = zip(*share(cases, measure), strict=True)
    print(format_row(f"outpaint: no other object appears, {kind}", bare, WIDTH))
    if kind == "single":
        print(format_row("outpaint: the background continues", continues, WIDTH))
        print(format_row(f"outpaint: step at the border below {STEP:g}", [bool(step < STEP) for step in steps], WIDTH))
        print(f"step in colour across the border, of 255: median {np.median(steps):.2f}, largest {np.max(steps):.2f}")


def measure_addition(pipe: Unclip, count: int, pixels: int) -> None:
    """Add another object on the right of single objects, and print the rate of success."""
    nouns = nouns_in(pipe.model.vocabulary)

    def measure(case: tuple[int, tuple[str, Scene]]) -> bool:
        i, (prompt, scene) = case
        request, expected = add_right(scene, choose_noun(nouns, scene, i), prompt, i, pixels)
        [result] = pipe.generate(request)
        return shows_addition(result.image, expected)

    found = share(list(enumerate(held_out(pipe, count, seed=2, kind="single"))), measure)
    print(format_row(f"outpaint: the side's object is there, {pixels} px", found, WIDTH))


def main(cases: str = "40", model: str = "stickers") -> None:
    pipe, count = Unclip.from_pretrained(model, device=str(own_device("auto", Processes.current()))), int(cases)
    measure_inpainting(pipe, count)
    for kind in ("single", "pair", "count"):
        measure_extension(pipe, count, kind)
    for pixels in (SIDE // 2, SIDE):
        measure_addition(pipe, count, pixels)


if __name__ == "__main__":
    run_script(main)
