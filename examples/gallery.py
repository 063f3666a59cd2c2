"""Generate the README's images from fixed prompts and seeds: `python examples/gallery.py [FOLDER] [MODEL]`.

gallery.webp has two rows of images from prompts; one with an inpainting (the image, the mask, the result) and an
outpainting (the image, the result); one with an interpolation. large.webp is the first image in 1024 px. No image is
selected.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from unclip import Unclip

PROMPTS = (
    "a penguin on a pink background",
    "a large strawberry on a turquoise background",
    "a small rocket on a black background",
    "a castle on a purple background",
    "a sailboat on a grey background",
    "a lion on a green background",
    "a cat to the left of a dog on a blue background",
    "a guitar above a drum on an orange background",
    "a fox next to a mushroom on a yellow background",
    "two owls on a green background",
    "three apples on a white background",
    "four balloons on a pink background",
)
COLUMNS, CELL, GAP = 6, 192, 4
LARGE = 1024


def edits(pipe: Unclip) -> list[Image.Image]:
    """Return an image, a mask and the image with another object there; an image and its extension to the right."""
    [scene] = pipe.generate("an apple to the left of a mushroom on a turquoise background", seed=0)
    mask = Image.new("L", scene.image.size)
    ImageDraw.Draw(mask).rectangle((0, 0, mask.width // 2 - 1, mask.height - 1), fill=255)
    target = "a strawberry to the left of a mushroom on a turquoise background"
    [edited] = pipe.inpaint(scene.image, mask, target, seed=0)
    [fox] = pipe.generate("a fox on a turquoise background", seed=0)
    [wide] = pipe.outpaint(fox.image, right=fox.image.width, right_prompt="an owl on a turquoise background", seed=0)
    return [scene.image, mask.convert("RGB"), edited.image, fox.image, wide.image]


def interpolation(pipe: Unclip) -> list[Image.Image]:
    """Return images on the way from one generated image to another."""
    ends = pipe.generate(["a cat on a red background", "a car on a blue background"], seed=7)
    return [result.image for result in pipe.interpolate(*(end.image for end in ends), frames=COLUMNS, seed=7)]


def paste_row(sheet: Image.Image, images: list[Image.Image], row: int) -> None:
    """Paste images side by side; a wide one takes several cells."""
    x = 0
    for image in images:
        cells = image.width // image.height
        size = cells * (CELL + GAP) - GAP, CELL
        sheet.paste(image.resize(size, Image.Resampling.LANCZOS), (x, row * (CELL + GAP)))
        x += cells * (CELL + GAP)


def main(folder: str = "assets", model: str = "stickers") -> None:
    pipe = Unclip.from_pretrained(model)
    images = [result.image for i, prompt in enumerate(PROMPTS) for result in pipe.generate(prompt, seed=i)]
    rows = [images[:COLUMNS], images[COLUMNS:], edits(pipe), interpolation(pipe)]
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) - GAP, len(rows) * (CELL + GAP) - GAP), "white")
    for row, found in enumerate(rows):
        paste_row(sheet, found, row)
    [large] = pipe.generate(PROMPTS[0], seed=0, size=LARGE)
    for name, image in (("gallery.webp", sheet), ("large.webp", large.image)):
        image.save(Path(folder) / name, quality=90, method=6)
        print(Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
