"""Train all four stages on a folder of pictures with captions, and draw with the result.

`python examples/train_own.py [STEPS]` first draws a small folder of pictures, so that it runs as it is; put your own
pictures into `pictures/` (cat.png with cat.txt beside it) and leave that part out. A handful of steps only shows that
the chain works: the recipe's own numbers are thousands.
"""

import sys
from pathlib import Path

from PIL import Image

from unclip import Unclip
from unclip.training.run import train
from unclip.training.scenes import render, scene_at

RECIPE = Path(__file__).with_name("own_pictures.toml")


def draw_pictures(folder: Path, count: int = 96) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        scene, caption = scene_at(1, i)
        Image.fromarray(render(scene, 256)).save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text(caption + "\n", encoding="utf-8")


def main(steps: str = "20") -> None:
    draw_pictures(Path("pictures"))
    model = train("all", RECIPE, "run", steps=int(steps))
    [result] = Unclip.from_pretrained(model).generate("a dog on a blue background", seed=0)
    print(result.save("own.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
