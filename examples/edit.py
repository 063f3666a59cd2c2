"""Replace an object in an image, then extend the image to the right: `python examples/edit.py [FOLDER]`.

The image and its mask are in assets/editing; the white region is repainted. before_after.webp shows both edits.
"""

import sys
from pathlib import Path

from PIL import Image

from unclip import Unclip

IMAGES = Path(__file__).parent.parent / "assets" / "editing"
GAP = 8


def main(folder: str = "out") -> None:
    pipe = Unclip.from_pretrained("stickers")
    scene, mask = IMAGES / "scene.png", IMAGES / "mask.png"
    [inpainted] = pipe.inpaint(scene, mask, "a strawberry to the left of a mushroom on a turquoise background", seed=3)
    added = "a strawberry on a turquoise background"
    [outpainted] = pipe.outpaint(scene, "an apple next to a mushroom, turquoise", right=256, right_prompt=added, seed=3)
    images = [Image.open(scene), Image.open(mask).convert("RGB"), inpainted.image, outpainted.image]
    sheet = Image.new("RGB", (sum(image.width + GAP for image in images) - GAP, 256), "white")
    x = 0
    for image in images:
        sheet.paste(image, (x, 0))
        x += image.width + GAP
    inpainted.save(Path(folder) / "inpainted.png")
    outpainted.save(Path(folder) / "outpainted.png")
    sheet.save(Path(folder) / "before_after.webp", quality=90, method=6)
    print(Path(folder) / "before_after.webp")


if __name__ == "__main__":
    main(*sys.argv[1:])
