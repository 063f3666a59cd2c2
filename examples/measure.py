"""How often the bundled model draws what it was asked for: `python examples/measure.py [PROMPTS] [SPLIT] [MODEL]`.

Every picture is judged by `unclip.evaluation.checker`, which compares it with the sprites and knows nothing of the
model. The prompts are combinations that training never showed (SPLIT held_out) or did show (train). Rates come with the
95% interval of Wilson.
"""

import sys
from collections import defaultdict

from unclip import Unclip
from unclip.evaluation.checker import check
from unclip.evaluation.prompts import prompts
from unclip.evaluation.rates import row
from unclip.training.captions import nouns_in


def main(count: str = "120", split: str = "held_out", model: str = "stickers", size: str = "64") -> None:
    pipe = Unclip.from_pretrained(model)
    asked = prompts(int(count), seed=0, split=split, nouns=nouns_in(pipe.vocabulary))
    verdicts = defaultdict(list)
    for i, (prompt, scene) in enumerate(asked):
        [result] = pipe.generate(prompt, seed=i, size=size)
        verdict = check(result.image, scene)
        for what in ("background", "objects", "count", "relation", "all"):
            if getattr(verdict, what) is not None:
                verdicts[scene.kind, what].append(getattr(verdict, what))
    print(f"{pipe.name}, {count} {split} prompts at {size} px")
    for (kind, what), outcomes in sorted(verdicts.items()):
        print(row(f"{kind:<7} {what}", outcomes, 19))


if __name__ == "__main__":
    main(*sys.argv[1:])
