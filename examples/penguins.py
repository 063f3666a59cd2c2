"""Generate four images of a prompt: `python examples/penguins.py [FOLDER]`."""

import sys
from pathlib import Path

from unclip import Unclip


def main(folder: str = "out") -> None:
    pipe = Unclip.from_pretrained("stickers")
    for result in pipe.generate("a penguin on a pink background", n=4, seed=7):
        path = result.save(Path(folder) / f"penguin-{result.seed}.png")
        print(f"{path}: CLIP similarity {result.score:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
