"""The sampling defaults of a checkpoint, from its model_index.json alone."""

from pathlib import Path
from typing import Any

from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.errors import UnclipError
from unclip.requests.fields import PRIOR_BEST_OF
from unclip.requests.values import size_text
from unclip.system.files import read_json

_FIELDS = {  # field: (stage, key)
    "steps": ("decoder", "steps"),
    "guidance": ("decoder", "guidance"),
    "sampler": ("decoder", "sampler"),
    "upsampler_steps": ("upsampler", "steps"),
    "prior_steps": ("prior", "steps"),
    "prior_guidance": ("prior", "guidance"),
    "prior_sampler": ("prior", "sampler"),
}


def sampling_defaults(name: str | Path, edits: bool = False) -> dict[str, str]:
    """The defaults of a model for the fields of a request, as texts. edits: of a request that edits an image.

    Empty for a model that is not here, and for a published layout, whose defaults are not in its files.
    """
    try:
        index: Any = read_json(find_checkpoint(name) / INDEX)
    except UnclipError:
        return {}
    stages = index.get("stages") if isinstance(index, dict) else None
    if not isinstance(stages, dict):
        return {}
    tables = {name: stage for name, stage in stages.items() if isinstance(stage, dict)}
    if edits and "inpainting_decoder" in tables:
        tables["decoder"] = {**tables.get("decoder", {}), **tables["inpainting_decoder"]}
    found = {field: tables.get(stage, {}).get(key) for field, (stage, key) in _FIELDS.items()}
    sizes: list[Any] = [tables.get(stage, {}).get("size") for stage in ("upsampler", "decoder")]
    found["size"] = next((size_text(size) for size in sizes if isinstance(size, list) and len(size) == 2), None)
    found["prior_best_of"] = PRIOR_BEST_OF if "prior" in tables else None
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in found.items() if value}
