"""The names of the parts of an evaluation, readable without torch."""

from collections.abc import Sequence

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import InputError, nearest

SUITES = ("stickers",)
PARTS = ("checker", "objects", "distance", "clip", "prior", "best", "upsampler", "prior-steps", "steps")


def parse_parts(text: str) -> Sequence[str]:
    """ "objects,clip" -> the parts. Raises InputError for one that there is not."""
    return _parse("--only", text, PARTS)


def parse_samplers(text: str) -> Sequence[str]:
    """ "ddim,unipc" -> the samplers, each once. Raises InputError for one that there is not."""
    return list(dict.fromkeys(_parse("--samplers", text, SAMPLER_NAMES)))


def _parse(option: str, text: str, known: Sequence[str]) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = nearest(name, known)
            guess = f"did you mean {near!r}? " if near else ""
            raise InputError(f"{option} {name!r} is unknown: {guess}choose from {', '.join(known)}")
    if not names:
        raise InputError(f"{option} names nothing; choose from {', '.join(known)}")
    return names
