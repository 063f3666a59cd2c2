"""Studies of the DALL-E 2 paper on the bundled model, each with its numbers and a figure:

    python examples/paper_studies.py typographic [IMAGES] [FOLDER] [MODEL]   a word pasted on an object (section 2.1)
    python examples/paper_studies.py guidance [PROMPTS] [FOLDER] [MODEL]     diversity against guidance (section 5.3)
    python examples/paper_studies.py binding [PROMPTS] [FOLDER] [MODEL]      which object goes where (section 7)

Small numbers by default; the intervals say how little they tell. With --processes N, N processes share the work. The
comparison of the priors in numbers (section 5.1) is `unclip evaluate --only priors`, and the PCA reconstructions
(section 4.4) are in examples/embeddings.py.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from unclip import Result, Unclip
from unclip.evaluation.intervals import estimate_mean, format_row, format_value
from unclip.stickers.captions import canonical_caption, nouns_in
from unclip.stickers.compose import swap_objects
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.recognition.checker import check, find_objects
from unclip.stickers.render import render
from unclip.stickers.scene import PlacedObject, Scene
from unclip.stickers.sprites import load_nouns
from unclip.system.device import own_device
from unclip.system.launcher import run_script
from unclip.system.processes import Processes

PROCESSES = Processes.current()
CELL, GAP = 96, 4
GUIDANCE = (1.0, 1.5, 3.0, 6.0)
SEEDS = 4


def make_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return rows of images as one image."""
    width = max(map(len, rows))
    sheet = Image.new("RGB", (width * (CELL + GAP) - GAP, len(rows) * (CELL + GAP) - GAP), "white")
    for y, images in enumerate(rows):
        for x, image in enumerate(images):
            sheet.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (x * (CELL + GAP), y * (CELL + GAP)))
    return sheet


def save_sheet(rows: Sequence[Sequence[Image.Image]], folder: str, name: str) -> None:
    if PROCESSES.is_main:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{name}.png"
        make_sheet(rows).save(path)
        print(path)


def load(model: str) -> Unclip:
    return Unclip.from_pretrained(model, device=str(own_device("auto", PROCESSES)))


def paste_word(image: Image.Image, word: str) -> Image.Image:
    """Return the image with a paper note across its middle that has a word on it."""
    found = image.copy()
    width, height = found.size
    note = (round(0.1 * width), round(0.4 * height), round(0.9 * width), round(0.6 * height))
    draw = ImageDraw.Draw(found)
    draw.rectangle(note, fill="white", outline="grey")
    font = ImageFont.load_default(size=0.17 * height)
    box = draw.textbbox((0, 0), word, font=font)
    middle = (note[0] + note[2] - box[0] - box[2]) / 2, (note[1] + note[3] - box[1] - box[3]) / 2
    draw.text(middle, word, fill="black", font=font)
    return found


def typographic(count: str = "12", folder: str = "out", model: str = "stickers") -> None:
    """Does CLIP read the note, and do variations show the object, or the word?"""
    pipe, side = load(model), 256
    nouns = [noun for noun in nouns_in(pipe.model.vocabulary or ()) or load_nouns() if len(noun) <= 8]
    styles = pipe.model.styles
    scenes = [scene for _, scene in sample_prompts(int(count), 11, kinds=("single",), nouns=nouns, styles=styles)]
    words = [nouns[(7 * i + 3) % len(nouns)] for i in range(len(scenes))]
    captions = [
        [canonical_caption(Scene((PlacedObject(noun, 0.5, 0.5, 0.6),), scene.background, "single")) for noun in nouns]
        for scene in scenes
    ]
    clean = [Image.fromarray(render(scene, side)) for scene in scenes]
    noted = [paste_word(image, word) for image, word in zip(clean, words, strict=True)]
    results: dict[str, list[bool]] = {}
    rows = []
    for kind, images in (("clean", clean), ("with the note", noted)):

        def nearest(case: tuple[Image.Image, list[str]]) -> str:
            image, texts = case
            similarity = F.cosine_similarity(pipe.embed_image(image), pipe.model.encode_text(texts).embed)
            return nouns[int(similarity.argmax())]

        def vary(case: tuple[int, Image.Image]) -> Image.Image:
            seed, image = case
            return pipe.vary(image, seed=seed)[0].image

        labels = PROCESSES.share(list(zip(images, captions, strict=True)), nearest)
        own = [scene.objects[0].name for scene in scenes]
        results[f"{kind}: CLIP's nearest noun is the object"] = [a == b for a, b in zip(labels, own, strict=True)]
        results[f"{kind}: CLIP's nearest noun is the word"] = [a == b for a, b in zip(labels, words, strict=True)]
        varied = PROCESSES.share(list(enumerate(images)), vary)
        seen = [find_objects(image, style=scene.style) for image, scene in zip(varied, scenes, strict=True)]
        for target, names in (("object", own), ("word", words)):
            results[f"{kind}: the variation shows the {target}"] = [
                any(one.is_a(name) for one in found) for found, name in zip(seen, names, strict=True)
            ]
        rows += [images[:8], varied[:8]]
    for name, outcomes in results.items():
        print(format_row(name, outcomes, 46))
    save_sheet(rows, folder, "typographic")


def guidance(count: str = "8", folder: str = "out", model: str = "stickers") -> None:
    """How much do images of one prompt differ, by the prior's and by the decoder's guidance?"""
    pipe = load(model)
    size = pipe.model.sizes[0]
    nouns, styles = nouns_in(pipe.model.vocabulary or ()), pipe.model.styles
    prompts = [text for text, _ in sample_prompts(int(count), seed=12, nouns=nouns, styles=styles)]
    cases = [(f"{kind} prior, guidance", {"prior": kind}, "prior_guidance") for kind in pipe.model.priors]
    cases.append(("decoder, guidance", {}, "guidance"))
    for name, fields, option in cases:
        rows = []
        for scale in GUIDANCE:
            own = {**fields, option: scale}

            def generate(prompt: str, own: dict[str, Any] = own) -> list[Result]:
                return pipe.generate(prompt, n=SEEDS, seed=1, size=size, **own)

            results = [result for found in PROCESSES.share(prompts, generate) for result in found]
            embeds = F.normalize(pipe.embed_image([result.image for result in results]), dim=-1)
            groups = embeds.unflatten(0, (-1, SEEDS))  # prompts seeds d
            same = (groups @ groups.transpose(1, 2)).sum((1, 2)) - SEEDS
            spread = estimate_mean((1 - same / (SEEDS * (SEEDS - 1))).tolist())
            scores = estimate_mean([result.score for result in results if result.score is not None])
            print(f"{name} {scale:g}: diversity {format_value(spread)}, CLIP score {format_value(scores)}")
            rows.append([result.image for result in results[: 2 * SEEDS]])
        save_sheet(rows, folder, f"guidance_{option if not fields else fields['prior']}")


def binding(count: str = "24", folder: str = "out", model: str = "stickers") -> None:
    """Of two objects, does each stand where the text says: by CLIP, by the embedding alone, by embedding and text?"""
    pipe = load(model)
    size = pipe.model.sizes[0]
    nouns, styles = nouns_in(pipe.model.vocabulary or ()), pipe.model.styles
    found = sample_prompts(2 * int(count), seed=13, kinds=("pair",), nouns=nouns, styles=styles)
    pairs = [(text, scene) for text, scene in found if scene.relation != "next to"][: int(count)]
    real = pipe.embed_image([Image.fromarray(render(scene, size[0])) for _, scene in pairs])
    own = pipe.model.encode_text([text for text, _ in pairs]).embed
    swapped = pipe.model.encode_text([canonical_caption(swap_objects(scene)) for _, scene in pairs]).embed
    better = F.cosine_similarity(real, own) > F.cosine_similarity(real, swapped)
    print(format_row("CLIP prefers the caption to the swapped one", better.tolist(), 46))
    rows = []
    for kind in pipe.model.priors:

        def generate(case: tuple[int, str], kind: str = kind) -> tuple[Image.Image, Image.Image]:
            """Return the image of a text, and that of the embedding which the prior samples for it."""
            seed, text = case
            with tempfile.TemporaryDirectory() as place:
                file = Path(place) / "binding.safetensors"
                pipe.save_embedding(file, text, seed=seed, prior=kind)
                alone = pipe.generate(embedding=str(file), seed=seed, size=size)[0].image
            return pipe.generate(text, seed=seed, size=size, prior=kind)[0].image, alone

        texts = [(seed, text) for seed, (text, _) in enumerate(pairs)]
        both, alone = zip(*PROCESSES.share(texts, generate), strict=True)
        for name, images in (("with the text", both), ("embedding alone", alone)):
            outcomes = [check(image, scene).all for image, (_, scene) in zip(images, pairs, strict=True)]
            print(format_row(f"{kind} prior, {name}: both, in their places", outcomes, 46))
            rows.append(images[:8])
    save_sheet(rows, folder, "binding")


def main(study: str = "", *arguments: str) -> None:
    studies = {"typographic": typographic, "guidance": guidance, "binding": binding}
    if study not in studies:
        sys.exit(f"usage: python examples/paper_studies.py {'|'.join(studies)} [N] [FOLDER] [MODEL]")
    with torch.inference_mode():
        studies[study](*arguments)


if __name__ == "__main__":
    run_script(main)
