"""Notes for the user: prompts that were cut, words that the model was not trained on, settings that do not suit it."""

from collections.abc import Iterator

from unclip.inference.model import UnclipModel
from unclip.modes.distilled import distillation_notes, uses_prior
from unclip.requests.fields import SIDE_PROMPTS
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.values import show, size_text
from unclip.requests.vocabulary import nearest_words, unknown_words
from unclip.stickers.captions import coloured_nouns

MAX_WORDS = 10
"""Unknown words that are named, each with those spelled most like it, which takes time."""


def notes(model: UnclipModel, request: Request) -> Iterator[str]:
    """One note per prompt that is too long, per setting that does not suit the model, and for all unknown words."""
    yield from shortcut_notes(model, request)
    yield from guidance_notes(model, request)
    sources = [("source", source) for source in request.sources or () if source_kind(source) == "prompt"]
    others = [(name, getattr(request, name) or "") for name in (*SIDE_PROMPTS, "from_prompt")]
    prompts = [("prompt", request.prompt), *others, *sources]
    for field, prompt in (*prompts, ("negative_prompt", request.negative_prompt)):
        # The decoder may have a text encoder of its own; the note is about the one that reads less of the prompt.
        cuts = [(tokenizer.overflow(prompt), tokenizer) for tokenizer in model.encoder.tokenizers]
        cut, tokenizer = max(cuts, key=lambda each: len(each[0]))
        if cut:
            yield f"the {field} is longer than {tokenizer.capacity} tokens; cut off: {show(cut)}"
    yield from distillation_notes(model, request)
    if model.vocabulary is None:
        return
    unknown = unknown_words(" ".join(prompt for _, prompt in prompts), model.vocabulary)
    if unknown:
        words = ", ".join(with_nearest(word, model.vocabulary) for word in unknown[:MAX_WORDS])
        if len(unknown) > MAX_WORDS:
            words += f" and {len(unknown) - MAX_WORDS:,} more words"
        yield f"{model.name} does not know {words}: see `unclip models show {model.name} --vocabulary`"
    if coloured := coloured_nouns("; ".join(prompt for _, prompt in prompts), model.vocabulary):
        named = " and ".join(map(show, coloured[:MAX_WORDS]))
        yield f"{model.name} knows colours of backgrounds, not of objects: {named} may change the background"


def shortcut_notes(model: UnclipModel, request: Request) -> Iterator[str]:
    """A note for what cannot shorten a resolved request."""
    if request.speed is None:
        for names, why in idle_shortcuts(model, request):
            given = [name for name in names if getattr(request, name) not in (None, 1)]
            if given:
                yield f"{' and '.join(given)}: no effect {why}"
    elif request.speed != "best" and request.inverts:
        yield f"speed {request.speed} does not change the decoder here, which starts from an image's own noise"


def idle_shortcuts(model: UnclipModel, request: Request) -> Iterator[tuple[tuple[str, ...], str]]:
    """Fields that have no effect in a resolved request, and why."""
    if request.guidance in (0, 1):
        names = ("guidance_interval", "guidance_every") if request.guidance == 1 else ("guidance_every",)
        yield names, f"at guidance {request.guidance:g}, which needs one evaluation a step"
    elif request.steps == 1:
        yield ("guidance_every",), "with a single step"
    if request.steps == 1:
        yield ("cache_every",), "with a single step"
    if request.size is not None and any(request.size[0] < width for width, _ in model.sizes[1:2]):
        yield ("upsampler_cache_every",), f"on images of {size_text(request.size)}, which are not upsampled"
    elif request.upsampler_steps == 1:
        yield ("upsampler_cache_every",), "with a single step of the upsampler"


def guidance_notes(model: UnclipModel, request: Request) -> Iterator[str]:
    """A note for a negative prompt that no stage of a resolved request is guided away from."""
    guides_prior = uses_prior(request) and request.prior_guidance not in (None, 1)
    guides_decoder = request.guidance != 1 or model.decoder.distillation is not None  # `check_distilled` tells of these
    if request.negative_prompt.strip() and not (guides_prior or guides_decoder):
        yield "negative_prompt: no effect at guidance 1, which is none: set a higher guidance"


def with_nearest(word: str, known: frozenset[str]) -> str:
    """An unknown word in quotes, with the known words that are spelled most like it."""
    nearest = " or ".join(map(repr, nearest_words(word, known)))
    return f"{show(word)} (nearest: {nearest})" if nearest else show(word)
