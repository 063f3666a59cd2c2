"""The names of the samplers and of the spacings of their timesteps, importable without torch.

Requests are validated before any model is loaded.
"""

from unclip.errors import RequestError, nearest

SAMPLER_NAMES = ("unclip", "ddpm", "ddim", "dpmpp-2m", "dpmpp-3m", "unipc", "unipc-3")
SPACING_NAMES = ("uniform", "karras", "log-snr", "ays")
"""Uniform is the sampler's own: even steps of the timestep. The others are spaced by noise level."""


def check_sampler(name: str) -> str:
    """Return `name` if it is a sampler; else raise RequestError with the closest name and all names."""
    if isinstance(name, str) and name in SAMPLER_NAMES:
        return name
    near = nearest(name, SAMPLER_NAMES)
    guess = f"did you mean {near!r}? " if near else ""
    value = " ".join(repr(name)[:80].split())
    raise RequestError(f"sampler {value} is unknown: {guess}choose from {', '.join(SAMPLER_NAMES)}")
