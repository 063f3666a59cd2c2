"""What the files of a model say of it, without its weights: sizes, parameters, schedules and card."""

import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unclip.checkpoints.families import is_kandinsky
from unclip.checkpoints.index import component_classes, find_weight_files, prediction_target
from unclip.errors import CheckpointError
from unclip.system.files import foreign_content, read_json

CARD_LINES = 12
_MAX_JSON = 100 << 20  # bytes; safetensors itself allows headers up to this


def components(folder: Path, index: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(component, number of parameters) from the headers of the weight files."""
    for component in component_classes(index):
        files = find_weight_files(folder / component)
        if files:
            yield component, sum(_parameters(file) for file in files)


def sizes(folder: Path, index: dict[str, Any]) -> list[str]:
    """The image sizes of a model, small to large, such as ["64x64", "256x256"].

    They are in the index of this project's layout, and in the U-Nets' configs of published ones. A latent U-Net samples
    any multiple of a size too.
    """
    if "unet" in index:
        return _latent_sizes(folder, index)
    stages = index.get("stages")
    if isinstance(stages, dict):
        found = [stage.get("size") for stage in stages.values() if isinstance(stage, dict)]
    else:
        configs = [folder / part / "config.json" for part in ("decoder", "super_res_last")]
        found = [read_json(config).get("sample_size") for config in configs if config.is_file()]
    return ["x".join(map(str, size if isinstance(size, list) else (size, size))) for size in found if size]


def _latent_sizes(folder: Path, index: dict[str, Any]) -> list[str]:
    """The default size of a latent U-Net, and the multiple that other sizes must be of."""
    unet, codec = (folder / part / "config.json" for part in ("unet", "movq" if is_kandinsky(index) else "vae"))
    if not (unet.is_file() and codec.is_file()):
        return []
    side, widths, levels = (
        read_json(unet).get("sample_size"),
        *(read_json(config).get("block_out_channels") for config in (unet, codec)),
    )
    if not isinstance(side, int) or not isinstance(widths, list) or not isinstance(levels, list):
        return []
    factor = 2 ** (len(levels) - 1)
    multiple = factor * 2 ** (len(widths) - 1) if is_kandinsky(index) else factor
    return [f"{side * factor}x{side * factor} and any multiple of {multiple}"]


def has_inpainting_inputs(folder: Path) -> bool:
    """Whether the U-Net of a latent decoder has inputs for a masked image and its mask."""
    path = folder / "unet" / "config.json"
    channels = read_json(path).get("in_channels") if path.is_file() else None
    return isinstance(channels, int) and channels > 4


def _parameters(file: Path) -> int:
    """The number of values in a safetensors file: 8 bytes of header length, then the header as JSON."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_JSON:
                raise ValueError("the header is too long")
            header = json.loads(stream.read(length))
        count = sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
        if not 0 <= count <= file.stat().st_size * 8:
            raise ValueError("the file is too short for its tensors")
        return count
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        reason = foreign_content(file) or "damaged: it has no safetensors header; copy it again"
        raise CheckpointError(f"{file} is {reason}") from error


def schedules(folder: Path, prefix: str = "") -> Iterator[str]:
    """One line for each schedule of a model."""
    for path in sorted(folder.glob("*scheduler/scheduler_config.json")):
        config = read_json(path)
        terms = [str(config[key]) for key in ("prediction_type", "variance_type", "beta_schedule") if config.get(key)]
        stage = path.parent.name.removesuffix("_scheduler")
        if stage != path.parent.name and prediction_target(folder, stage) == "difference":
            terms[:1] = ["difference"]
        yield f"{prefix + stage:<24}predicts {', '.join(terms) or 'unknown'}"


def licence(folder: Path) -> str | None:
    """The licence in the front matter of a model card, or None."""
    file = folder / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    front = text.split("---")[1] if text.startswith("---") else ""
    found = re.search(r"^license:[ \t]*(\S.*)$", front, re.MULTILINE)
    return found[1].strip() if found else None


def card(folder: Path) -> list[str]:
    """The first lines of the model card, without its front matter."""
    file = folder / "README.md"
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    if lines and lines[0] == "---" and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    return [*lines[:CARD_LINES], ""] if lines else []
