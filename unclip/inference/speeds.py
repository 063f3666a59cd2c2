"""The settings of `speed`: tested bundles of shortcuts for each family of checkpoints (measured in docs, "Speed").

A bundle has fields of a Request. Numbers of steps are upper limits: a checkpoint with fewer keeps its own.
"""

from collections.abc import Mapping
from typing import Any

from unclip.requests.fields import MAX_SIGMA

Bundle = Mapping[str, Any]

WITHOUT_SHORTCUTS = {
    "spacing": "uniform",
    "guidance_interval": (0.0, float(MAX_SIGMA)),
    "guidance_every": 1,
    "cache_every": 1,
    "upsampler_cache_every": 1,
}
"""The values of shortcuts that are not given. A record with a speed contains them, so that it repeats exactly."""

DECODER_FIELDS = ("steps", "sampler", "spacing", "guidance_interval", "guidance_every", "cache_every")
"""The fields of the decoder that a speed sets."""

FEW_PRIOR_STEPS = {"prior_steps": 10, "prior_sampler": "dpmpp-2m"}
FEWEST_PRIOR_STEPS = {"prior_steps": 5, "prior_sampler": "dpmpp-2m"}
HALF_REUSED = {"sampler": "dpmpp-2m", "cache_every": 2}
"""Every 2nd step reuses deep features. Not the difference of guidance: at published scales, of 8, that loses more."""
FEW_REUSED = {**HALF_REUSED, "steps": 8, "guidance_interval": (0.3, 10.0)}
"""With so few steps, published scales lose little only if the first and last ones are not guided."""

NATIVE: Mapping[str, Bundle] = {
    "balanced": {"prior_steps": 4, "prior_sampler": "dpmpp-2m", "steps": 6, "upsampler_steps": 1},
    "fast": {"prior_steps": 4, "prior_sampler": "dpmpp-2m", "steps": 4, "upsampler_steps": 1},
}
KARLO: Mapping[str, Bundle] = {
    "balanced": {**FEW_PRIOR_STEPS, **HALF_REUSED, "steps": 16, "upsampler_steps": 5, "upsampler_cache_every": 2},
    "fast": {**FEWEST_PRIOR_STEPS, **FEW_REUSED, "upsampler_steps": 2},
}
KANDINSKY: Mapping[str, Bundle] = {
    "balanced": {**FEW_PRIOR_STEPS, "sampler": "dpmpp-2m", "steps": 40},
    "fast": {**FEWEST_PRIOR_STEPS, "sampler": "dpmpp-2m", "steps": 20},
}
STABLE_UNCLIP: Mapping[str, Bundle] = {
    "balanced": {**FEW_PRIOR_STEPS, **HALF_REUSED, "steps": 16},
    "fast": {**FEWEST_PRIOR_STEPS, **FEW_REUSED, "guidance_interval": (0.5, 10.0)},
}


def speed_fields(bundles: Mapping[str, Bundle], speed: str, own: Mapping[str, Any], inverts: bool) -> dict[str, Any]:
    """The fields of a Request that `speed` sets.

    bundles, own: the model's bundles and defaults; a field whose default is None does not exist for the model.
    inverts: sampling starts from an image's own noise, so the decoder keeps the settings with which that was found.
    """
    bundle = {name: value for name, value in bundles.get(speed, {}).items() if own.get(name, value) is not None}
    fewer = {name: min(value, own[name]) for name, value in bundle.items() if name.endswith("steps")}
    found = WITHOUT_SHORTCUTS | bundle | fewer
    if inverts:
        found |= {name: value for name, value in WITHOUT_SHORTCUTS.items() if name in DECODER_FIELDS}
    return found
