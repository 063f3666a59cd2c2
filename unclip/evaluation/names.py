"""The names of the parts of an evaluation, readable without torch."""

from collections.abc import Sequence

from unclip.errors import InputError, nearest

SUITES = ("stickers",)
PARTS = ("checker", "objects", "distance", "clip", "prior", "best", "upsampler", "prior-steps", "steps")


def parse_parts(text: str) -> Sequence[str]:
    """ "objects,clip" -> the parts. Raises InputError for one that there is not."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            near = nearest(name, PARTS)
            guess = f"did you mean {near!r}? " if near else ""
            raise InputError(f"--only {name!r} is unknown: {guess}choose from {', '.join(PARTS)}")
    if not names:
        raise InputError(f"--only names nothing; choose from {', '.join(PARTS)}")
    return names
