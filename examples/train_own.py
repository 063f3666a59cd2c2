"""Train all four stages on a folder of images with captions, and generate an image with the result.

`python examples/train_own.py [STEPS]` first renders a folder of images, so that it runs without any data. A second call
resumes the training. A few steps only show that everything works: the recipe itself sets thousands. To train on your
own images (cat.png next to cat.txt), copy own_pictures.toml, set its path, and run `unclip train all --recipe COPY`.
"""

import sys
from pathlib import Path

from PIL import Image

from unclip import Unclip
from unclip.stickers.render import render
from unclip.stickers.stream import scene_at
from unclip.training.run import TrainingOptions, train
from unclip.training.state import has_state

RECIPE = Path(__file__).with_name("own_pictures.toml")
IMAGES = Path("rendered_images")
RUN = Path("run")


def render_images(count: int = 96) -> None:
    """Write images of random scenes and their captions."""
    IMAGES.mkdir()
    for i in range(count):
        scene, caption = scene_at(1, i)
        Image.fromarray(render(scene, 256)).save(IMAGES / f"{i:03d}.png")
        (IMAGES / f"{i:03d}.txt").write_text(caption + "\n", encoding="utf-8")


def write_recipe() -> Path:
    """Write a copy of own_pictures.toml for the rendered images."""
    RUN.mkdir(exist_ok=True)
    path = RUN / "recipe.toml"
    text = RECIPE.read_text(encoding="utf-8").replace('path = "pictures"', f'path = "{IMAGES}"')
    path.write_text(text, encoding="utf-8")
    return path


def main(steps: str = "20") -> None:
    if not IMAGES.exists():
        render_images()
    options = TrainingOptions(steps=int(steps), resume=has_state(RUN / "clip"))
    model = train("all", write_recipe(), RUN, options)
    [result] = Unclip.from_pretrained(model).generate("a dog on a blue background", seed=0)
    print(result.save("own.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
