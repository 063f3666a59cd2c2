"""Names that other tools have for the fields of a request: diffusers, the web UIs, and public sets of prompts.

Prompt files may have them where the meaning is the same. Everywhere else, an error names the field of a request.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from unclip.errors import RequestError
from unclip.requests.values import show

SAME = {
    "num_inference_steps": "steps",
    "decoder_num_inference_steps": "steps",
    "inference_steps": "steps",
    "sampling_steps": "steps",
    "ddim_steps": "steps",
    "step": "steps",
    "prior_num_inference_steps": "prior_steps",
    "super_res_num_inference_steps": "upsampler_steps",
    "guidance_scale": "guidance",
    "decoder_guidance_scale": "guidance",
    "cfg_scale": "guidance",
    "cfg": "guidance",
    "prior_guidance_scale": "prior_guidance",
    "prior_cf_scale": "prior_guidance",
    "sampler_name": "sampler",
    "sampling_method": "sampler",
    "num_images_per_prompt": "n",
    "num_images": "n",
    "neg_prompt": "negative_prompt",
    "init_image": "image",
    "input_image": "image",
    "mask_image": "mask",
    "cache_interval": "cache_every",
}
"""Names in lower case, with underscores: the field with the same meaning."""
SIDES = ("width", "height")
"""Together, these are `size`."""
HINTS = {
    **dict.fromkeys(("batch_size", "batch_count", "n_iter", "n_samples"), "use n, the number of images"),
    **dict.fromkeys(("generator", "manual_seed", "subseed", "variation_seed"), "use seed"),
    **dict.fromkeys(("scheduler", "schedule_type", "sampler_index"), "use sampler"),
    **dict.fromkeys(("timestep_spacing", "sigma_schedule", "use_karras_sigmas"), "use spacing"),
    **dict.fromkeys(("denoising_strength", "image_strength", "prompt_strength"), "use strength, which only vary has"),
    "temperature": "use prior_temperature, which only the autoregressive prior has",
    "top_p": "use prior_top_p, which only the autoregressive prior has",
    **dict.fromkeys(("aspect_ratio", "ar", "resolution", "image_size"), "use size"),
    **dict.fromkeys(("init_images", "images", "reference_image"), "use image, or sources to interpolate"),
    **dict.fromkeys(("image_embeds", "image_embeddings", "prompt_embeds"), "use embedding, a file of `unclip embed`"),
    **dict.fromkeys(("model", "model_name", "model_hash", "checkpoint", "sd_model_name"), "use the option --model"),
    **dict.fromkeys(("prompts", "text", "caption"), "use prompt"),
    **dict.fromkeys(("clip_skip", "lora", "eta", "hires_fix", "restore_faces", "tiling"), "nothing here does the same"),
}
"""Names whose meaning differs, or is not a field's: the end of a message about them."""
SAMPLERS = {
    **dict.fromkeys(("dpm++ 2m", "dpm++_2m", "dpmpp_2m", "dpmsolver++", "dpmsolvermultistepscheduler"), "dpmpp-2m"),
    **dict.fromkeys(("dpm++ 3m", "dpm++_3m", "dpmpp_3m"), "dpmpp-3m"),
    **dict.fromkeys(("unipc", "uni_pc", "unipcmultistepscheduler"), "unipc"),
    **dict.fromkeys(("ddim", "ddimscheduler"), "ddim"),
    **dict.fromkeys(("ddpm", "ddpmscheduler"), "ddpm"),
    **dict.fromkeys(("unclipscheduler",), "unclip"),
}
"""Names of samplers in lower case: ours."""


_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_WEIGHT = re.compile(  # matches or fails in linear time
    rf"\([^()]*[^()\d\s]\s*:\s*{_NUMBER}\s*\)|\[[^\[\]:]*:[^\[\]:]*:\s*{_NUMBER}\]|(?<=\S)::-?\d|\(\([^()]*\)\)"
)
"""(a cat:1.3), [cat:dog:0.5], a cat::2, ((a cat))"""


def plain_name(name: str) -> str:
    """A name as fields are spelt: in lower case, with underscores for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_readable(name: str) -> bool:
    """Whether a plain name is another tool's for a field, or for a side of the size."""
    return name in SAME or name in SIDES


def typed_as(name: str) -> str:
    """The field whose types the values of a name have: a side of the size is a whole number, as n is."""
    return "n" if name in SIDES else SAME.get(name, name)


def rename_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by their names in a request; the names given are plain ones.

    Raises RequestError for a field that is given by two names, and for a width without a height.
    """
    renamed = {name: value for name, value in fields.items() if name not in SAME and name not in SIDES}
    sides = [name for name in SIDES if name in fields]
    if len(sides) == 1:
        raise RequestError(f"{sides[0]} is only one side of the size; give width and height, or size such as 64x64")
    size = {"size": tuple(fields[name] for name in sides)} if sides else {}
    same = [(name, SAME[name], value) for name, value in fields.items() if name in SAME]
    for name, field, value in (*same, *(("width", *item) for item in size.items())):
        if field in renamed:
            raise RequestError(f"{name} is another name of {field}, which is given too: leave out one of them")
        renamed[field] = value
    if isinstance(sampler := renamed.get("sampler"), str):
        renamed["sampler"] = SAMPLERS.get(sampler.strip().lower(), sampler)
    return renamed


def hint(name: str) -> str | None:
    """The end of an error message about a name of another tool, which names ours; None for any other name."""
    plain = plain_name(name)
    if plain in SIDES:
        return "use size, such as 64x64"
    return f"did you mean {SAME[plain]!r}?" if plain in SAME else HINTS.get(plain)


def describe_names(names: Iterable[str]) -> list[str]:
    """A note for each plain name that is read as a field."""
    sides = ["'width' and 'height' are read as size"] if SIDES[0] in (names := list(names)) else []
    return [f"{show(name)} is read as {SAME[name]}" for name in names if name in SAME] + sides


def check_no_weights(name: str, text: str, fix: str = "") -> None:
    """Raise RequestError for a text with the weights of other tools, which would be read as words.

    name: of the field. fix: what else can be done about it, for the end of the message.
    """
    if found := _WEIGHT.search(text):
        raise RequestError(
            f"{name} has a weight, {show(found[0])}, and weights are not read: leave it out, and name what to avoid in "
            f"negative_prompt{fix}"
        )
