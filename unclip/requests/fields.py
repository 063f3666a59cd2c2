"""The modes of a request, the fields that each has, their limits, and their old names."""

from collections.abc import Collection
from typing import Any

MASK_MODES = ("white", "black", "alpha")
"""The pixels of a mask that are repainted: white, black, or transparent ones."""
ANCHORS = ("center", "left", "right", "top", "bottom", "top-left", "top-right", "bottom-left", "bottom-right")
FITS = ("crop", "pad")
SIDES = ("left", "right", "top", "bottom")
SIDE_PROMPTS = tuple(f"{side}_prompt" for side in SIDES)
PRIOR_FIELDS = ("prior_steps", "prior_guidance", "prior_sampler", "prior_best_of")
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
OLD_NAMES = {"negative": "negative_prompt", "harmonize": "resample", "share": "fraction"}
"""Former names of fields, which are still read from every source of requests."""

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000  # the length of the training schedule
MAX_GUIDANCE = 1000
MAX_IMAGES = 100_000
MAX_CANDIDATES = 1024
MAX_FRAMES = 1000
MAX_SIDE = 8192  # pixels
THETA = 0.35
"""Default fraction by which a text diff rotates an embedding."""


def foreign_fields(mode: str) -> set[str]:
    """The fields that other modes have and this one does not."""
    return {name for names in FIELDS_OF.values() for name in names} - set(FIELDS_OF[mode])


def edits_canvas(mode: str) -> bool:
    """Whether a mode edits an image of any size and preserves the known pixels: inpainting and outpainting."""
    return mode in CANVAS_MODES


def excluded_fields(mode: Any, given: Collection[str]) -> set[str]:
    """The fields that a request of a mode must not have, beside those that are given: defaults for them do not apply.

    Empty for an unknown mode, which the request itself refuses.
    """
    if mode not in MODES:
        return set()
    excluded = foreign_fields(mode)
    if mode == "inpaint" or mode == "outpaint" and set(given) & {*SIDES}:
        excluded.add("size")  # the image, or the margins, determine it
    if mode == "edit":  # towards a text or an embedding, not both
        if set(given) & {"prompt", "from_prompt"}:
            excluded.add("embedding")
        elif "embedding" in given:
            excluded |= {"prompt", "from_prompt"}
    return excluded
