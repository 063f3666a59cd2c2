"""Show and measure what the bundled model does with image embeddings:

    python examples/embeddings.py figures [FOLDER] [MODEL]   variations, interpolation, text diff, PCA reconstructions
    python examples/embeddings.py psnr [IMAGES] [MODEL] [STEPS ...]   PSNR of reconstructions
    python examples/embeddings.py best-of [PROMPTS] [FOLDER] [MODEL]   gain of best-of-k, judged by the checker

The figures show images that the model made itself, of nouns that it keeps best. The measurements use scenes of its
domain, in combinations that training never used, without selection. The PCA reconstructions need
components.safetensors in the checkpoint: `unclip models components stickers` makes it. With --processes N, N processes
share the work of the measurements.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unclip import InputError, Request, RequestError, Result, Unclip
from unclip.evaluation.intervals import format_row, wilson_interval
from unclip.stickers.captions import nouns_in
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.recognition.checker import check
from unclip.stickers.render import render
from unclip.stickers.scene import Scene
from unclip.system.device import own_device
from unclip.system.launcher import run_script
from unclip.system.processes import Processes

PROCESSES = Processes.current()
COMPONENTS = (5, 10, 20, 40, 80, 160)
STEPS = (10, 25, 50, 100)
CANDIDATES = (1, 2, 4, 8)
BATCH = 8  # images of one process at a time
CELL, GAP = 128, 4


def load(model: str) -> Unclip:
    return Unclip.from_pretrained(model, device=str(own_device("auto", PROCESSES)))


def render_scenes(
    pipe: Unclip, count: int, side: int, kinds: Sequence[str] = ("single",)
) -> list[tuple[str, Image.Image]]:
    """Return captions and renderings of scenes with the model's nouns and styles, the same on every machine."""
    nouns, styles = nouns_in(pipe.model.vocabulary), pipe.model.styles
    prompts = sample_prompts(count, seed=7, kinds=kinds, nouns=nouns, styles=styles)
    return [(text, Image.fromarray(render(scene, side))) for text, scene in prompts]


def make_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return rows of images as one image."""
    width = max(map(len, rows))
    sheet = Image.new("RGB", (width * (CELL + GAP) - GAP, len(rows) * (CELL + GAP) - GAP), "white")
    for y, images in enumerate(rows):
        for x, image in enumerate(images):
            sheet.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (x * (CELL + GAP), y * (CELL + GAP)))
    return sheet


def figures(folder: str = "out", model: str = "stickers") -> None:
    if PROCESSES.count > 1:
        raise InputError("the figures are a few images of one process: leave out --processes")
    pipe, out = Unclip.from_pretrained(model), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    prompts = ("a penguin on a pink background", "a fox on a blue background", "a pineapple on a pink background")

    def images(results: Sequence[Result]) -> list[Image.Image]:
        return [result.image for result in results]

    penguin, fox, pineapple = images(pipe.generate(prompts, seed=7))
    rows = {
        "variations": [
            [penguin, *images(pipe.vary(penguin, n=6, strength=0.6, seed=1))],
            [pineapple, *images(pipe.vary(pineapple, n=6, seed=1))],
        ]
    }
    rows["interpolation"] = [images(pipe.interpolate(penguin, fox, frames=8, seed=1))]
    target = "a penguin on a yellow background"
    rows["text_diff"] = [images(pipe.edit(penguin, target, from_prompt=prompts[0], frames=8, theta=0.5, seed=1))]
    try:
        most = len(pipe.model.components().axes)
        counts = sorted({min(count, most) for count in COMPONENTS})
        rows["components"] = [[*images(pipe.reconstruct(pineapple, components=counts, seed=1)), pineapple]]
    except RequestError as error:
        print(f"no PCA reconstructions: {error}")
    for name, lines in rows.items():
        make_sheet(lines).save(out / f"{name}.webp", quality=90, method=6)
        print(out / f"{name}.webp")


def psnr(count: str = "32", model: str = "stickers", *steps: str) -> None:
    pipe = load(model)
    side = pipe.model.sizes[0][0]
    images = [image for _, image in render_scenes(pipe, int(count), max(side, 64), ("single", "pair", "count"))]
    images = [image.resize((side, side), Image.Resampling.BOX) for image in images]
    print(f"{pipe.model.name}: PSNR of reconstructions at {side} px, dB, of {count} held-out scenes")
    print("steps    mean     min   of the mean error")
    for number in map(int, steps or STEPS):
        fields = {"mode": "reconstruct", "size": side, "steps": number, "seed": 0}

        def measure(batch: Sequence[Image.Image], fields: dict[str, Any] = fields) -> list[float]:
            results = pipe.generate([Request(image=image, **fields) for image in batch])
            return [
                float(np.square(np.asarray(image, float) - np.asarray(result.image, float)).mean())
                for image, result in zip(batch, results, strict=True)
            ]

        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        errors = [error for found in PROCESSES.share(batches, measure) for error in found]
        decibels = 10 * np.log10(255**2 / np.maximum(errors, 1e-2))
        pooled = 10 * np.log10(255**2 / max(np.mean(errors), 1e-2))
        print(f"{number:>5}{decibels.mean():8.1f}{decibels.min():8.1f}{pooled:8.1f}")


def best_of(count: str = "120", folder: str = "out", model: str = "stickers") -> None:
    pipe = load(model)
    size, most = pipe.model.sizes[0], max(CANDIDATES)

    def measure(case: tuple[int, tuple[str, Scene]]) -> list[bool]:
        i, (prompt, scene) = case
        results = pipe.generate(prompt, n=most, seed=most * i, size=size)
        outcomes = [check(result.image.resize((64, 64)), scene).all for result in results]
        # What best_of=k would have chosen.
        return [outcomes[max(range(k), key=lambda j: results[j].score)] for k in CANDIDATES]

    nouns, styles = nouns_in(pipe.model.vocabulary), pipe.model.styles
    cases = list(enumerate(sample_prompts(int(count), seed=0, nouns=nouns, styles=styles)))
    correct = dict(zip(CANDIDATES, zip(*PROCESSES.share(cases, measure), strict=True), strict=True))
    print(f"{pipe.model.name}: images that show their prompts, {count} held-out prompts")
    for k, outcomes in correct.items():
        print(format_row(f"best of {k}", outcomes, 12))
    if PROCESSES.is_main:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / "best_of.png"
        plot_rates({k: (sum(outcomes), len(outcomes)) for k, outcomes in correct.items()}).save(path)
        print(path)


def plot_rates(rates: dict[int, tuple[int, int]]) -> Image.Image:
    """Return a bar chart, 0 to 100%, of rates given as (correct, total), with their 95% intervals."""
    wide, high, left, bottom = 420, 260, 50, 30
    image = Image.new("RGB", (wide, high), "white")
    draw = ImageDraw.Draw(image)

    def y(rate: float) -> float:
        return high - bottom - rate * (high - bottom - 20)

    for percent in range(0, 101, 25):
        draw.line([(left, y(percent / 100)), (wide - 10, y(percent / 100))], fill="#dddddd")
        draw.text((8, y(percent / 100) - 6), f"{percent:>3}%", fill="black")
    step = (wide - left - 10) / len(rates)
    for i, (k, (correct, total)) in enumerate(rates.items()):
        middle = left + (i + 0.5) * step
        low, top = wilson_interval(correct, total)
        draw.rectangle([middle - step / 4, y(correct / total), middle + step / 4, y(0)], fill="#4a7ebb")
        draw.line([(middle, y(low)), (middle, y(top))], fill="black", width=2)
        draw.text((middle - 28, high - bottom + 8), f"best of {k}", fill="black")
    return image


def main(command: str = "", *arguments: str) -> None:
    commands = {"figures": figures, "psnr": psnr, "best-of": best_of}
    if command not in commands:
        sys.exit(__doc__)
    commands[command](*arguments)


if __name__ == "__main__":
    run_script(main)
