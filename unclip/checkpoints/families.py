"""The families of published checkpoints, told apart by their model_index.json. Reads no weights."""

from collections.abc import Mapping
from typing import Any

from unclip.errors import CheckpointError

PRIORS = {"2.1": "kandinsky-community/kandinsky-2-1-prior", "2.2": "kandinsky-community/kandinsky-2-2-prior"}
"""The prior of Kandinsky's published decoders by version, for a model card that names none."""


def is_native(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is of this project's own layout."""
    return "stages" in index


def is_karlo(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is of Karlo's layout."""
    own = {"text_encoder", "super_res_first", "super_res_last"}
    return not is_native(index) and "unet" not in index and bool(own & index.keys())


def is_kandinsky(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is of a decoder of Kandinsky's layout."""
    return {"unet", "movq"} <= index.keys()


def kandinsky_version(index: Mapping[str, Any]) -> str:
    """The version of a decoder of Kandinsky's layout, "2.1" or "2.2"."""
    return "2.1" if "text_encoder" in index else "2.2"


def is_kandinsky_prior(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is of a prior of Kandinsky's layout, which is no model of its own."""
    return "prior" in index and not {"decoder", "unet", "super_res_first", "stages"} & index.keys()


def is_stable_unclip(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is of Stable unCLIP's layout."""
    return "image_normalizer" in index


def default_prior(index: Mapping[str, Any]) -> str | None:
    """The hub id of the prior that a checkpoint takes from another repository; None if it takes none by itself."""
    return PRIORS[kandinsky_version(index)] if is_kandinsky(index) else None


def takes_prior(index: Mapping[str, Any]) -> bool:
    """Whether a checkpoint takes a prior from another repository."""
    return is_kandinsky(index) or (is_stable_unclip(index) and "prior" not in index)


def check_no_prior(index: Mapping[str, Any], name: str) -> None:
    """Raise CheckpointError for a prior alone, which is no model."""
    if is_kandinsky_prior(index):
        raise CheckpointError(f"{name} is a prior without a decoder: give a decoder, which finds its prior by itself")


def describe_family(index: Mapping[str, Any], inpainting_inputs: bool = False) -> str:
    """The family of a checkpoint in words, such as "Kandinsky 2.2, decoder with inpainting inputs"."""
    inputs = " with inpainting inputs" if inpainting_inputs else ""
    if is_kandinsky(index):
        return f"Kandinsky {kandinsky_version(index)}, decoder{inputs}"
    if is_kandinsky_prior(index):
        return "Kandinsky, prior only"
    if is_stable_unclip(index):
        return f"Stable unCLIP, {'text to image' if 'prior' in index else 'image variations'}"
    if is_karlo(index):
        return f"Karlo, {'text to image' if 'prior' in index else 'image variations'}"
    return f"unclip{inputs}"
