"""How often the bundled model draws what it was asked for: `python examples/measure.py [PROMPTS] [SPLIT] [MODEL]`.

Every picture is judged by `unclip.evaluation.checker`, which compares it with the sprites and knows nothing of the
model. The prompts are combinations that training never showed (SPLIT held_out) or did show (train). Rates come with the
95% interval of Wilson.
"""

import math
import sys
from collections import defaultdict

from unclip import Unclip
from unclip.evaluation.checker import check
from unclip.evaluation.prompts import prompts


def interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a rate."""
    centre, spread = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)


def main(count: str = "120", split: str = "held_out", model: str = "stickers", size: str = "64") -> None:
    pipe = Unclip.from_pretrained(model)
    asked = prompts(int(count), seed=0, split=split)
    verdicts = defaultdict(list)
    for i, (prompt, scene) in enumerate(asked):
        [result] = pipe.generate(prompt, seed=i, size=size)
        verdict = check(result.image, scene)
        for what in ("background", "objects", "count", "relation", "all"):
            if getattr(verdict, what) is not None:
                verdicts[scene.kind, what].append(getattr(verdict, what))
    print(f"{pipe.name}, {count} {split} prompts at {size} px")
    for (kind, what), outcomes in sorted(verdicts.items()):
        low, high = interval(sum(outcomes), len(outcomes))
        rate = sum(outcomes) / len(outcomes)
        print(f"{kind:<7} {what:<11} {rate:6.1%}  ({low:.1%} to {high:.1%}, n = {len(outcomes)})")


if __name__ == "__main__":
    main(*sys.argv[1:])
