"""The samplers' names, readable without torch: requests are checked before any model is loaded."""

from unclip.errors import RequestError, nearest

SAMPLER_NAMES = ("unclip", "ddpm", "ddim", "dpmpp-2m", "unipc")


def check_sampler(name: str, field: str = "sampler") -> str:
    """Return `name` if it is a sampler's; else raise a RequestError that names `field`, the nearest, and all."""
    if isinstance(name, str) and name in SAMPLER_NAMES:
        return name
    near = nearest(name, SAMPLER_NAMES)
    guess = f"did you mean {near!r}? " if near else ""
    shown = " ".join(repr(name)[:80].split())
    raise RequestError(f"{field} {shown} is unknown: {guess}choose from {', '.join(SAMPLER_NAMES)}")
