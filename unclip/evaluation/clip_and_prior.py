"""Measures of the model's CLIP and of its prior alone, on renderings."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.noise import make_generators
from unclip.evaluation.intervals import estimate_mean, estimate_rate
from unclip.evaluation.suite import BEST_OF, Prompts, Suite
from unclip.inference.run_context import Run
from unclip.modes.base import sampling_options
from unclip.requests.request import Request
from unclip.stickers.captions import canonical_caption
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.scene import PlacedObject, Scene
from unclip.stickers.sprites import DEFAULT_STYLE, load_nouns

CANDIDATES = 100  # scenes among which retrieval chooses
MAX_GROUPS = 5  # groups of that many scenes
BACKGROUND = "turquoise"  # of the scenes that differ in the noun alone; hardly any sprite has this colour


def measure_clip(suite: Suite) -> dict[str, Any]:
    """Return the CLIP score of the generated images, and how well CLIP itself retrieves renderings and captions."""
    prompts = [prompt for prompt, _ in suite.prompts]
    generated = suite.embed_images("features, generated", suite.generated)
    real = suite.embed_images("features, real", suite.render(suite.prompts, suite.full_size))
    text = suite.embed_text(prompts)
    rows = [
        {"": "score, generated images and their prompts", "value": estimate_mean(cosines(generated, text))},
        {"": "score, real images and their prompts", "value": estimate_mean(cosines(real, text))},
        {"": "score, real images and the next prompt", "value": estimate_mean(cosines(real, text.roll(-1, 0)))},
    ]
    groups = min(MAX_GROUPS, -(-suite.n // 20))
    scenes = distinct_prompts(groups * CANDIDATES, suite.seed + 2, suite.split, suite.nouns, suite.styles)
    sets = {
        f"retrieval among {CANDIDATES}": (scenes, CANDIDATES),
        "retrieval, nouns alone": (prompts_of_nouns(suite.nouns, suite.styles[0]), len(suite.nouns)),
    }
    for name, (pairs, size) in sets.items():
        images = suite.embed_images(name, suite.render(pairs, suite.decoder_size)).split(size)
        texts = suite.embed_text([prompt for prompt, _ in pairs]).split(size)
        to_image = [hit for text, image in zip(texts, images, strict=True) for hit in is_retrieved(text, image)]
        to_text = [hit for text, image in zip(texts, images, strict=True) for hit in is_retrieved(image, text)]
        rows.append({"": f"{name}: rank 1, text to image", "value": estimate_rate(to_image)})
        rows.append({"": f"{name}: rank 1, image to text", "value": estimate_rate(to_text)})
    note = f"nouns alone: {len(suite.nouns)} captions of single objects on a {BACKGROUND} background, one for each noun"
    return {"rows": rows, "notes": [note]}


def measure_prior(suite: Suite) -> dict[str, Any]:
    """Return the cosine of the prior's embeddings, and of the text's own, with the true images' embeddings."""
    true = suite.embed_images("features, real", suite.render(suite.prompts, suite.decoder_size))
    embeddings = {"text embedding": suite.embed_text([prompt for prompt, _ in suite.prompts])}
    for k in BEST_OF:
        embeddings[f"prior, best of {k}"] = sample_embeddings(suite, suite.prompts, prior_best_of=k)
    rows = [
        {
            "": name,
            "cosine to the true embedding": estimate_mean(cosines(embed, true)),
            "nearest is the true one": estimate_rate(is_retrieved(embed, true)),
        }
        for name, embed in embeddings.items()
    ]
    return {"rows": rows}


@torch.inference_mode()
def sample_embeddings(suite: Suite, prompts: Prompts, **fields: Any) -> Tensor:
    """Return the prior's samples for prompts, `n d`, float32 on the CPU; `fields` are further fields of the Request."""
    label = "prior, " + ", ".join(f"{name.removeprefix('prior_')} {value}" for name, value in fields.items())

    def sample(batch: slice) -> Tensor:
        texts = [prompt for prompt, _ in prompts[batch]]
        model, request = suite.pipe.model, suite.pipe.resolve(Request(prompt=texts[0], seed=0, **fields))
        generators = make_generators([suite.seed + i for i in range(batch.start, batch.stop)])
        text, negative = model.encode_text(texts), model.encode_text([""] * len(texts))
        run = Run(generators, model.device, sampling_options(request))
        return model.sample_prior(text, negative, run).float().cpu()

    return torch.cat(suite.share(label, suite.slices(len(prompts)), sample))


def is_retrieved(queries: Tensor, answers: Tensor) -> list[bool]:
    """Return for each of the queries `n d` whether the most similar of the answers `n d` is the one of its index."""
    similarity = F.normalize(queries, dim=-1) @ F.normalize(answers, dim=-1).T  # n n
    return (similarity.argmax(dim=1) == torch.arange(len(queries))).tolist()


def cosines(a: Tensor, b: Tensor) -> list[float]:
    """Return the cosine similarities of `n d` and `n d`, row by row."""
    return F.cosine_similarity(a.double(), b.double(), dim=-1).tolist()


def distinct_prompts(
    n: int, seed: int, split: str, nouns: Sequence[str] = (), styles: Sequence[str] = (DEFAULT_STYLE,)
) -> Prompts:
    """Return n prompts and their scenes, no prompt twice, of the given nouns or of all, in the given styles."""
    total = n + n // 4
    while True:
        found = dict(sample_prompts(total, seed, split=split, nouns=nouns, styles=styles))
        if len(found) >= n:
            return list(found.items())[:n]
        total += max(1, n // 4)


def prompts_of_nouns(nouns: Sequence[str] = (), style: str = DEFAULT_STYLE) -> Prompts:
    """Return a prompt and a scene for each of the given nouns, or of all; they differ in the noun alone."""
    scenes = [
        Scene((PlacedObject(name, 0.5, 0.5, 0.6),), BACKGROUND, "single", style=style)
        for name in nouns or load_nouns()
        if style not in load_nouns()[name].not_in
    ]
    return [(canonical_caption(scene), scene) for scene in scenes]
