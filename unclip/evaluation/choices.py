"""The names that `unclip evaluate` accepts, readable without torch."""

from collections.abc import Sequence

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import InputError, did_you_mean

SUITES = ("stickers",)
PARTS = (
    "checker",
    "objects",
    "likeness",
    "distance",
    "clip",
    "prior",
    "priors",
    "best",
    "upsampler",
    "prior-steps",
    "steps",
    "speed",
)


def parse_parts(text: str) -> Sequence[str]:
    """Return the parts of an evaluation in a comma-separated list. Raises InputError for an unknown part or none."""
    return _parse_names("--only", text, PARTS)


def parse_samplers(text: str) -> Sequence[str]:
    """Return the samplers in a comma-separated list, each once. Raises InputError for an unknown sampler or none."""
    return list(dict.fromkeys(_parse_names("--samplers", text, SAMPLER_NAMES)))


def _parse_names(option: str, text: str, known: Sequence[str]) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(f"{option} {name!r} is unknown; {did_you_mean(name, known)}")
    if not names:
        raise InputError(f"{option} is empty; choose from {', '.join(known)}")
    return names
