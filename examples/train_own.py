"""Train all four stages on a folder of pictures with captions, and draw with the result.

`python examples/train_own.py [STEPS]` draws a folder of pictures first, so that it runs as it is; a second call goes on
where the first ended. A handful of steps only shows that the chain works: the recipe's own numbers are thousands.
For pictures of your own (cat.png with cat.txt beside it), put their folder into a copy of own_pictures.toml and hand
that to `train`, or to `unclip train all --recipe`.
"""

import sys
from pathlib import Path

from PIL import Image

from unclip import Unclip
from unclip.stickers.render import render
from unclip.stickers.stream import scene_at
from unclip.training.run import train
from unclip.training.state import has_state

RECIPE = Path(__file__).with_name("own_pictures.toml")
PICTURES = Path("drawn_pictures")
RUN = Path("run")


def draw_pictures(count: int = 96) -> None:
    PICTURES.mkdir()
    for i in range(count):
        scene, caption = scene_at(1, i)
        Image.fromarray(render(scene, 256)).save(PICTURES / f"{i:03d}.png")
        (PICTURES / f"{i:03d}.txt").write_text(caption + "\n", encoding="utf-8")


def write_recipe() -> Path:
    """A copy of own_pictures.toml for the drawn pictures."""
    RUN.mkdir(exist_ok=True)
    path = RUN / "recipe.toml"
    text = RECIPE.read_text(encoding="utf-8").replace('path = "pictures"', f'path = "{PICTURES}"')
    path.write_text(text, encoding="utf-8")
    return path


def main(steps: str = "20") -> None:
    if not PICTURES.exists():
        draw_pictures()
    model = train("all", write_recipe(), RUN, steps=int(steps), resume=has_state(RUN / "clip"))
    [result] = Unclip.from_pretrained(model).generate("a dog on a blue background", seed=0)
    print(result.save("own.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
