"""The samplers' names, readable without torch: requests are checked before any model is loaded."""

import difflib

from unclip.errors import RequestError

SAMPLER_NAMES = ("unclip", "ddpm", "ddim", "dpmpp-2m", "unipc")


def check_sampler(name: str) -> str:
    """Return `name` if it is a sampler's; else raise a RequestError that lists them and the nearest."""
    if name in SAMPLER_NAMES:
        return name
    near = difflib.get_close_matches(str(name), SAMPLER_NAMES, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise RequestError(f"unknown sampler {name!r}: {guess}choose one of {', '.join(SAMPLER_NAMES)}")
