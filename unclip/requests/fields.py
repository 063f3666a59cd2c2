"""The modes of a request, the fields that each has, their limits, and their old names."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unclip.diffusion.sampler_names import SAMPLER_NAMES, SPACING_NAMES

MASK_MODES = ("white", "black", "alpha")
"""The pixels of a mask that are repainted: white, black, or transparent ones."""
ANCHORS = ("center", "left", "right", "top", "bottom", "top-left", "top-right", "bottom-left", "bottom-right")
FITS = ("crop", "pad")
SPEEDS = ("best", "balanced", "fast")
"""Best is the model's defaults; the others are its bundles of shortcuts (see `inference.speeds`)."""
SIDES = ("left", "right", "top", "bottom")
SIDE_PROMPTS = tuple(f"{side}_prompt" for side in SIDES)
PRIORS = ("diffusion", "autoregressive")
"""The kinds of priors; the first that a model has is its default."""
PRIOR_FIELDS_OF = {
    "diffusion": ("prior_steps", "prior_sampler"),
    "autoregressive": ("prior_temperature", "prior_top_p"),
}
"""For each kind of prior, the fields that the other kind does not have."""
PRIOR_FIELDS = (
    *("prior", "prior_steps", "prior_guidance", "prior_sampler"),
    *("prior_temperature", "prior_top_p", "prior_best_of"),
)
CANVAS_FIELDS = (*PRIOR_FIELDS, "image", "embedding", "resample", "keep_style")
FIELDS_OF = {
    "generate": (*PRIOR_FIELDS, "embedding"),
    "inpaint": (*CANVAS_FIELDS, "mask", "mask_mode", "feather"),
    "outpaint": (*CANVAS_FIELDS, *SIDES, *SIDE_PROMPTS, "anchor"),
    "vary": ("image", "fit", "strength"),
    "interpolate": (*PRIOR_FIELDS, "sources", "weights", "fraction", "frames", "same_noise", "fit"),
    "edit": ("image", "fit", "embedding", "from_prompt", "theta", "frames"),
    "reconstruct": ("image", "fit", "components"),
}
"""For each mode, the fields that not all modes have."""
MODES = tuple(FIELDS_OF)
CANVAS_MODES = ("inpaint", "outpaint")
FILE_FIELDS = ("image", "mask", "embedding")
TEXT_FIELDS = ("prompt", "negative_prompt", "from_prompt", *SIDE_PROMPTS)
OLD_NAMES = {"negative": "negative_prompt", "harmonize": "resample", "share": "fraction"}
"""Former names of fields, which are still read from every source of requests."""

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000  # the length of the training schedule
MAX_GUIDANCE = 1000
MAX_TEMPERATURE = 100
MAX_IMAGES = 100_000
MAX_CANDIDATES = 1024
MAX_FRAMES = 1000
MAX_SIDE = 8192  # pixels
MAX_SIGMA = 100_000
"""Above the largest noise level of every schedule."""
PRIOR_BEST_OF = 2
"""Default number of embeddings that the diffusion prior samples, of which one is used."""
THETA = 0.35
"""Default fraction by which a text diff rotates an embedding."""


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` to `high`. many: the field holds a list of at least one."""

    low: int
    high: int
    unit: str | None = None
    many: bool = False


@dataclass(frozen=True)
class Number:
    """Numbers from 0 to `high`. many: the field holds a list of at least one."""

    high: float
    many: bool = False


@dataclass(frozen=True)
class Interval:
    """Two numbers from 0 to `high`, the first below the second."""

    high: float


@dataclass(frozen=True)
class OneOf:
    """One of some texts."""

    choices: tuple[str, ...]


Limit = Whole | Number | Interval | OneOf

_STEPS = Whole(1, MAX_STEPS, "denoising steps")
_SCALE = Number(MAX_GUIDANCE)
_FRACTION = Number(1)
_MARGIN = Whole(0, MAX_SIDE, "pixels")
_SAMPLER = OneOf(SAMPLER_NAMES)
LIMITS: dict[str, Limit] = {
    "mode": OneOf(MODES),
    "seed": Whole(0, MAX_SEED),
    "n": Whole(1, MAX_IMAGES, "images"),
    "steps": _STEPS,
    "prior_steps": _STEPS,
    "upsampler_steps": _STEPS,
    "guidance": _SCALE,
    "prior_guidance": _SCALE,
    "prior": OneOf(PRIORS),
    "prior_temperature": Number(MAX_TEMPERATURE),
    "prior_top_p": _FRACTION,
    "noise_level": Whole(0, MAX_STEPS - 1),
    "sampler": _SAMPLER,
    "prior_sampler": _SAMPLER,
    "speed": OneOf(SPEEDS),
    "spacing": OneOf(SPACING_NAMES),
    "guidance_interval": Interval(MAX_SIGMA),
    "guidance_every": _STEPS,
    "cache_every": _STEPS,
    "upsampler_cache_every": _STEPS,
    "size": Whole(1, MAX_SIDE, "pixels"),
    "prior_best_of": Whole(1, MAX_CANDIDATES, "embeddings"),
    "mask_mode": OneOf(MASK_MODES),
    "feather": Whole(0, 1024, "pixels"),
    "resample": Whole(1, 100, "passes"),
    "keep_style": _FRACTION,
    **dict.fromkeys(SIDES, _MARGIN),
    "anchor": OneOf(ANCHORS),
    "best_of": Whole(1, MAX_CANDIDATES, "images"),
    "fit": OneOf(FITS),
    "strength": _FRACTION,
    "fraction": _FRACTION,
    "weights": Number(1_000_000, many=True),
    "theta": _FRACTION,
    "components": Whole(1, 65536, "components", many=True),
    "frames": Whole(2, MAX_FRAMES, "images"),
}
"""The values that each field may have: what requests are validated by, and what their JSON schema says.

Of `size`, the limits of each side. The other fields are texts, files, or true or false.
"""


@functools.cache
def foreign_fields(mode: str) -> frozenset[str]:
    """The fields that other modes have and this one does not."""
    return frozenset(name for names in FIELDS_OF.values() for name in names) - set(FIELDS_OF[mode])


def edits_canvas(mode: str) -> bool:
    """Whether a mode edits an image of any size and preserves the known pixels: inpainting and outpainting."""
    return mode in CANVAS_MODES


def excluded_fields(mode: Any, given: Mapping[str, Any]) -> set[str]:
    """The fields that a request of a mode must not have, beside those that are given: defaults for them do not apply.

    Empty for an unknown mode, which the request itself refuses.
    """
    if mode not in MODES:
        return set()
    excluded = set(foreign_fields(mode))
    if mode == "inpaint" or mode == "outpaint" and set(given) & {*SIDES}:
        excluded.add("size")  # the image, or the margins, determine it
    if mode == "edit":  # towards a text or an embedding, not both
        if set(given) & {"prompt", "from_prompt"}:
            excluded.add("embedding")
        elif "embedding" in given:
            excluded |= {"prompt", "from_prompt"}
    return excluded.union(*(names for kind, names in PRIOR_FIELDS_OF.items() if given.get("prior", kind) != kind))
