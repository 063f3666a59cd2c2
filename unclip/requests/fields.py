"""The modes of a request, the fields that each has, and the checks of single values. Imports nothing heavy."""

MASK_MODES = ("white", "black", "alpha")

ANCHORS = ("center", "left", "right", "top", "bottom", "top-left", "top-right", "bottom-left", "bottom-right")

FITS = ("crop", "pad")

SIDES = ("left", "right", "top", "bottom")

SIDE_PROMPTS = tuple(f"{side}_prompt" for side in SIDES)

PRIOR_FIELDS = ("prior_steps", "prior_guidance", "prior_sampler", "prior_best_of")

EDIT_FIELDS = (*PRIOR_FIELDS, "image", "embedding", "resample", "keep_style")

FIELDS_OF = {  # those that only some modes have
    "generate": (*PRIOR_FIELDS, "embedding"),
    "inpaint": (*EDIT_FIELDS, "mask", "mask_mode", "feather"),
    "outpaint": (*EDIT_FIELDS, *SIDES, *SIDE_PROMPTS, "anchor"),
    "vary": ("image", "fit", "strength"),
    "interpolate": (*PRIOR_FIELDS, "sources", "weights", "fraction", "frames", "same_noise", "fit"),
    "edit": ("image", "fit", "embedding", "from_prompt", "theta", "frames"),
    "reconstruct": ("image", "fit", "components"),
}

MODES = tuple(FIELDS_OF)

CANVAS_MODES = ("inpaint", "outpaint")
"""Those that work on a canvas of any size, and keep what is known of it."""

FILE_FIELDS = ("image", "mask", "embedding")

MAX_SEED = 2**63 - 1

MAX_STEPS = 1000  # the length of the training schedule

MAX_GUIDANCE = 1000

MAX_IMAGES = 100_000

MAX_CANDIDATES = 1024

MAX_FRAMES = 1000

MAX_SIDE = 8192

THETA = 0.35  # how far a text diff turns an embedding, where nothing is said


def foreign_fields(mode: str) -> set[str]:
    """The fields that other modes have and this one has not."""
    return {name for names in FIELDS_OF.values() for name in names} - set(FIELDS_OF[mode])
