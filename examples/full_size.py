"""Write a checkpoint of a published layout and size with random weights, for benchmarks.

    python examples/full_size.py runs/full --family kandinsky-2-2
    unclip bench --model runs/full --against diffusers --batch-size 1
    unclip bench --model runs/full --stages --batch-size 1 --dtype bfloat16 --memory low

The families take 4 to 10 GB of disk, in bfloat16. `--tiny` writes a small one, to try the commands.
"""

import argparse
import sys
from pathlib import Path

from random_checkpoint.families import WRITERS
from random_checkpoint.sizes import SIZES


def main(*given: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder; the prior of a Kandinsky comes beside it")
    parser.add_argument("--family", choices=WRITERS, default="karlo", help="the published layout  [default: karlo]")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the commands")
    arguments = parser.parse_args(given)
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists; give a new folder")
    total = WRITERS[arguments.family](arguments.folder, SIZES[arguments.family][1 if arguments.tiny else 0])
    print(f"{total / 1e6:.1f} M parameters in {arguments.folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
