"""The model's CLIP, and the prior that draws in its space: measures of them alone, on real renderings."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.noise import make_generators
from unclip.evaluation.intervals import mean, rate
from unclip.evaluation.suite import BATCH, BEST_OF, Suite
from unclip.requests.request import Request
from unclip.stickers.captions import canonical_caption
from unclip.stickers.prompts import prompts
from unclip.stickers.scene import Placed, Scene
from unclip.stickers.sprites import load_nouns

AMONG = 100  # scenes that retrieval has to choose from
GROUPS = 5  # of so many scenes, at most
BACKGROUND = "turquoise"  # of the scenes that differ in the noun alone: hardly a sprite is of this colour


def rank_1(queries: Tensor, answers: Tensor) -> list[bool]:
    """Whether the most similar of answers `n d` is the query's own, for queries `n d` in the same order."""
    likeness = F.normalize(queries, dim=-1) @ F.normalize(answers, dim=-1).T  # n n
    return (likeness.argmax(dim=1) == torch.arange(len(queries))).tolist()


def cosines(a: Tensor, b: Tensor) -> list[float]:
    """Of `n d` and `n d`, in pairs."""
    return F.cosine_similarity(a.double(), b.double(), dim=-1).tolist()


def distinct(n: int, seed: int, split: str, nouns: Sequence[str] = ()) -> list[tuple[str, Scene]]:
    """n prompts and scenes, no prompt twice, of some nouns or of all."""
    for total in count(n + n // 4, max(1, n // 4)):
        found = dict(prompts(total, seed, split=split, nouns=nouns))
        if len(found) >= n:
            return list(found.items())[:n]


def nouns_alone(nouns: Sequence[str] = ()) -> list[tuple[str, Scene]]:
    """A prompt and a scene for each of some nouns, or of all, alike in all else."""
    scenes = [Scene((Placed(name, 0.5, 0.5, 0.6),), BACKGROUND, "single") for name in nouns or load_nouns()]
    return [(canonical_caption(scene), scene) for scene in scenes]


def clip(suite: Suite) -> dict[str, Any]:
    """CLIP's score of the pictures drawn, and whether CLIP itself tells real pictures and captions apart."""
    asked = [prompt for prompt, _ in suite.asked]
    drawn = suite.embed("features, drawn", suite.drawn)
    real = suite.embed("features, real", suite.real(suite.asked, suite.large))
    text = suite.embed_text(asked)
    rows = [
        {"": "score, drawn pictures and their prompts", "value": mean(cosines(drawn, text))},
        {"": "score, real pictures and their prompts", "value": mean(cosines(real, text))},
        {"": "score, real pictures and the next prompt", "value": mean(cosines(real, text.roll(-1, 0)))},
    ]
    groups = min(GROUPS, -(-suite.n // 20))
    scenes = distinct(groups * AMONG, suite.seed + 2, suite.split, suite.nouns)
    sets = {
        f"retrieval among {AMONG}": (scenes, AMONG),
        "retrieval, nouns alone": (nouns_alone(suite.nouns), len(suite.nouns)),
    }
    for name, (pairs, size) in sets.items():
        pictures = suite.embed(name, suite.real(pairs, suite.small)).split(size)
        texts = suite.embed_text([prompt for prompt, _ in pairs]).split(size)
        to_image = [one for pair in zip(texts, pictures, strict=True) for one in rank_1(*pair)]
        to_text = [one for pair in zip(pictures, texts, strict=True) for one in rank_1(*pair)]
        rows.append({"": f"{name}: rank 1, text to image", "value": rate(to_image)})
        rows.append({"": f"{name}: rank 1, image to text", "value": rate(to_text)})
    note = f"nouns alone: {len(suite.nouns)} captions, each with one noun of its own on a {BACKGROUND} background"
    return {"rows": rows, "notes": [note]}


def prior(suite: Suite) -> dict[str, Any]:
    """How near the prior comes to the embedding of the true picture, against the text's own embedding."""
    true = suite.embed("features, real", suite.real(suite.asked, suite.small))
    text = suite.embed_text([prompt for prompt, _ in suite.asked])
    sampled = {f"prior, best of {k}": imagined(suite, suite.asked, prior_best_of=k) for k in BEST_OF}
    rows = [
        {"": name, "cosine to the true embedding": mean(cosines(found, true)), "nearest is the true one": rate(hits)}
        for name, found in {"text embedding": text, **sampled}.items()
        for hits in [rank_1(found, true)]
    ]
    return {"rows": rows}


@torch.inference_mode()
def imagined(suite: Suite, asked: Sequence[tuple[str, Scene]], **fields: Any) -> Tensor:
    """Embeddings `n d` that the prior draws for prompts, float32 on the CPU; `fields` are a Request's."""
    found, size = [], suite.batch_size or BATCH
    label = "prior, " + ", ".join(f"{name.removeprefix('prior_')} {value}" for name, value in fields.items())
    for start in suite.counted(label, range(0, len(asked), size)):
        batch = [prompt for prompt, _ in asked[start : start + size]]
        request = suite.pipe.resolve(Request(prompt=batch[0], seed=0, **fields))
        noise = make_generators([suite.seed + i for i in range(start, start + len(batch))])
        text, negative = (suite.pipe.encode_text(texts) for texts in (batch, [""] * len(batch)))
        found.append(suite.pipe.imagine(text, negative, noise, request).float().cpu())
    return torch.cat(found)
