"""Notes for the user: prompts that were cut, and words that the model was not trained on."""

from collections.abc import Iterator

from unclip.inference.model import UnclipModel
from unclip.requests.fields import SIDE_PROMPTS
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.values import show
from unclip.requests.vocabulary import nearest_words, unknown_words

MAX_WORDS = 10
"""Unknown words that are named, each with those spelled most like it, which takes time."""


def notes(model: UnclipModel, request: Request) -> Iterator[str]:
    """One note per prompt that is too long, one for all unknown words, and one for shortcuts without effect."""
    yield from shortcut_notes(request)
    sources = [("source", source) for source in request.sources or () if source_kind(source) == "prompt"]
    others = [(name, getattr(request, name) or "") for name in (*SIDE_PROMPTS, "from_prompt")]
    prompts = [("prompt", request.prompt), *others, *sources]
    for field, prompt in (*prompts, ("negative_prompt", request.negative_prompt)):
        # The decoder may have a text encoder of its own; the note is about the one that reads less of the prompt.
        cuts = [(tokenizer.overflow(prompt), tokenizer) for tokenizer in model.encoder.tokenizers]
        cut, tokenizer = max(cuts, key=lambda each: len(each[0]))
        if cut:
            yield f"the {field} is longer than {tokenizer.capacity} tokens; cut off: {show(cut)}"
    if model.vocabulary is None:
        return
    unknown = unknown_words(" ".join(prompt for _, prompt in prompts), model.vocabulary)
    if unknown:
        words = ", ".join(with_nearest(word, model.vocabulary) for word in unknown[:MAX_WORDS])
        if len(unknown) > MAX_WORDS:
            words += f" and {len(unknown) - MAX_WORDS:,} more words"
        yield f"{model.name} does not know {words}: see `unclip models show {model.name} --vocabulary`"


def shortcut_notes(request: Request) -> Iterator[str]:
    """A note for what cannot shorten a resolved request."""
    if request.speed is None:
        scale = request.guidance
        idle = ("guidance_interval", "guidance_every") if scale == 1 else ("guidance_every",) if scale == 0 else ()
        given = [name for name in idle if getattr(request, name) not in (None, 1)]
        if given:
            yield f"{' and '.join(given)}: no effect at guidance {scale:g}, which needs one evaluation a step"
    elif request.speed != "best" and request.inverts:
        yield f"speed {request.speed} does not change the decoder here, which starts from an image's own noise"


def with_nearest(word: str, known: frozenset[str]) -> str:
    """An unknown word in quotes, with the known words that are spelled most like it."""
    nearest = " or ".join(map(repr, nearest_words(word, known)))
    return f"{show(word)} (nearest: {nearest})" if nearest else show(word)
