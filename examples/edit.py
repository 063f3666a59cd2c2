"""Repaint an object of a picture, then widen the picture: `python examples/edit.py [FOLDER]`.

The picture and its mask lie in assets/editing; white is repainted. before_after.png shows both edits side by side.
"""

import sys
from pathlib import Path

from PIL import Image

from unclip import Unclip

PICTURES = Path(__file__).parent.parent / "assets" / "editing"
GAP = 8


def main(folder: str = "out") -> None:
    pipe = Unclip.from_pretrained("stickers")
    scene, mask = PICTURES / "scene.png", PICTURES / "mask.png"
    [inpainted] = pipe.inpaint(scene, mask, "a strawberry to the left of a mushroom on a yellow background", seed=3)
    new = "a strawberry on a yellow background"
    [outpainted] = pipe.outpaint(scene, "an apple next to a mushroom, yellow", right=256, right_prompt=new, seed=3)
    parts = [Image.open(scene), Image.open(mask).convert("RGB"), inpainted.image, outpainted.image]
    sheet = Image.new("RGB", (sum(part.width + GAP for part in parts) - GAP, 256), "white")
    x = 0
    for part in parts:
        sheet.paste(part, (x, 0))
        x += part.width + GAP
    inpainted.save(Path(folder) / "inpainted.png")
    outpainted.save(Path(folder) / "outpainted.png")
    sheet.save(Path(folder) / "before_after.png", optimize=True)
    print(Path(folder) / "before_after.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
