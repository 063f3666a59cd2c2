"""Generate the README's image grid from fixed prompts and seeds: `python examples/gallery.py [FILE]`."""

import sys

from PIL import Image

from unclip import Unclip

PROMPTS = (
    "a penguin on a pink background",
    "a cat to the left of a dog on a blue background",
    "three apples on a white background",
    "a small rocket on a black background",
    "a large strawberry on a turquoise background",
    "a guitar above a drum on an orange background",
    "two owls on a green background",
    "a castle on a purple background",
    "a fox next to a mushroom on a yellow background",
    "a sailboat on a grey background",
    "four balloons on a pink background",
    "a robot to the right of a clock on a red background",
)
COLUMNS, CELL, GAP = 6, 192, 4


def main(path: str = "assets/gallery.webp") -> None:
    pipe = Unclip.from_pretrained("stickers")
    results = [result for i, prompt in enumerate(PROMPTS) for result in pipe.generate(prompt, seed=i)]
    rows = -(-len(results) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) - GAP, rows * (CELL + GAP) - GAP), "white")
    for i, result in enumerate(results):
        y, x = divmod(i, COLUMNS)
        sheet.paste(result.image.resize((CELL, CELL), Image.Resampling.LANCZOS), (x * (CELL + GAP), y * (CELL + GAP)))
    sheet.save(path, quality=90, method=6)
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
