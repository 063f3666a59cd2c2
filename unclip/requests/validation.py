"""The rules between the fields of a request. Each takes a mapping of checked fields and raises RequestError."""

from collections.abc import Mapping
from typing import Any

from unclip.errors import RequestError, did_you_mean
from unclip.requests.fields import (
    CANVAS_MODES,
    FIELDS_OF,
    MAX_SEED,
    MODES,
    OLD_NAMES,
    PRIOR_FIELDS_OF,
    SIDE_PROMPTS,
    SIDES,
    foreign_fields,
)
from unclip.requests.other_tools import hint
from unclip.requests.sources import source_kind
from unclip.requests.values import choice, show

Fields = Mapping[str, Any]


def rename_old_fields(fields: Fields) -> dict[str, Any]:
    """The fields by their present names. Raises RequestError for a field that is given by both its names."""
    renamed = dict(fields)
    for old, new in OLD_NAMES.items():
        if old in renamed:
            if new in renamed:
                raise RequestError(f"{old} is the old name of {new}, and both are given: leave out {old}")
            renamed[new] = renamed.pop(old)
    return renamed


def check_keys(fields: Mapping[Any, Any]) -> None:
    """Raise RequestError for a key that is not text, which cannot be a keyword."""
    for name in fields:
        if not isinstance(name, str):
            raise RequestError(f"{show(name)} is not a field of a request; names of fields are text")


def check_names(fields: Fields, known: tuple[str, ...]) -> None:
    """Raise RequestError for an unknown field, with the one that it means, or the closest known one."""
    for name in fields:
        if name not in known:
            fix = hint(name) or did_you_mean(name[:80], known)
            raise RequestError(f"{show(name)} is not a field of a request; {fix}")


def check_fields(fields: Fields) -> None:
    """Apply all rules."""
    check_mode(fields)
    if fields["mode"] == "interpolate":
        check_interpolation(fields)
    if fields["frames"] is not None and fields["fraction"] is not None:
        raise RequestError("fraction is for one image, and frames for a sequence: give one of them")
    if fields["mode"] in CANVAS_MODES:
        check_canvas(fields)
    check_prior(fields)
    check_prompts(fields)
    check_candidates(fields)
    check_seed(fields)
    check_inversion(fields)


def check_mode_name(mode: Any) -> None:
    """Raise RequestError for an unknown mode."""
    choice("mode", mode, MODES)


def check_mode(fields: Fields) -> None:
    """The fields that only other modes have are not given, and an image is given where the mode needs one."""
    mode = fields["mode"]
    for name in foreign_fields(mode):
        if fields[name] is not None:
            *some, last = (other for other, names in FIELDS_OF.items() if name in names)
            modes = f"{', '.join(some)} and {last}" if some else last
            raise RequestError(f"{name} is a field of {modes}, and this request's mode is {mode}: leave it out")
    if "image" in FIELDS_OF[mode] and fields["image"] is None:
        raise RequestError(f"image is missing; name the image to {mode}")


def check_interpolation(fields: Fields) -> None:
    """There are sources, with one weight each; two sources need no weights."""
    sources, weights = fields["sources"], fields["weights"]
    if sources is None:
        raise RequestError("sources must be two or more images or prompts to interpolate; name them")
    if weights is None:
        if len(sources) > 2:
            raise RequestError("weights are missing; give the weight of each, for more than two sources")
        return
    if len(weights) != len(sources) or not any(weights):
        raise RequestError(f"weights must be one for each of {len(sources)} sources, and not all 0")
    if fields["frames"] is not None or fields["fraction"] is not None:
        raise RequestError("weights are for one image; leave out frames and fraction")


def check_canvas(fields: Fields) -> None:
    """An outpainting has either margins or a size; keep_style has something to mix with."""
    prompted = prompts(fields) or fields["embedding"] is not None
    if fields["keep_style"] is not None and fields["keep_style"] < 1 and not prompted:
        raise RequestError("keep_style below 1 mixes the image's style with a prompt's: give a prompt, or leave it out")
    if fields["mode"] == "inpaint":
        if fields["size"] is not None:
            raise RequestError("size is not for inpainting, whose result is as large as the image: leave it out")
        return
    margins = any(fields[side] for side in SIDES)
    if margins == (fields["size"] is not None):
        raise RequestError("say how far to outpaint: by left, right, top or bottom, or else by a size")
    if fields["anchor"] is not None and fields["size"] is None:
        raise RequestError("anchor needs size; with left, right, top or bottom, the position is already given")


def check_prior(fields: Fields) -> None:
    """Fields of one kind of prior are given for that kind only."""
    given = {kind: [name for name in names if fields[name] is not None] for kind, names in PRIOR_FIELDS_OF.items()}
    if fields["prior"] is None:
        if all(given.values()):
            first, second = (names[0] for names in given.values())
            raise RequestError(
                f"{first} belongs to the diffusion prior and {second} to the autoregressive one: leave one out"
            )
        return
    for kind, names in given.items():
        if names and kind != fields["prior"]:
            raise RequestError(
                f"{names[0]} belongs to the {kind} prior, and this request's prior is {fields['prior']}: leave it "
                f"out, or set prior to {kind}"
            )


def check_prompts(fields: Fields) -> None:
    """Something guides the image, and a text diff goes towards a prompt or an embedding, not both."""
    mode, prompt, embedding = fields["mode"], fields["prompt"], fields["embedding"]
    if mode in ("generate", "edit") and embedding is None and not prompt.strip():
        raise RequestError("prompt is empty; say what the image should show, or give an embedding")
    if mode == "edit" and embedding is not None and (prompt + (fields["from_prompt"] or "")).strip():
        raise RequestError("embedding is the target of the text diff, in the place of a text: leave out the prompts")


def check_candidates(fields: Fields) -> None:
    """best_of has at least n candidates, of single images, that can be ranked."""
    best_of = fields["best_of"]
    if best_of is None:
        return
    if fields["n"] > best_of:
        raise RequestError(f"best_of must be at least n, the number of images that are kept, not {best_of}")
    if fields["frames"] is not None or len(fields["components"] or ()) > 1:
        raise RequestError("best_of ranks single images, not sequences; leave one out")
    if fields["mode"] in CANVAS_MODES and not fields["prompt"].strip():
        raise RequestError("best_of ranks by how well an image shows the prompt; give one")


def check_seed(fields: Fields) -> None:
    """The seeds of all images and candidates are in range."""
    seed, count = fields["seed"], max(fields["n"], fields["best_of"] or 1)
    if seed is not None and seed + count - 1 > MAX_SEED:
        raise RequestError(
            f"seed {seed} is too large for n = {count}: image i has seed + i, at most {MAX_SEED}; use a seed up to "
            f"{MAX_SEED - count + 1}"
        )


def check_inversion(fields: Fields) -> None:
    """A request that inverts an image samples by DDIM, in two steps at least."""
    if not inverts(fields):
        return
    if fields["sampler"] not in (None, "ddim"):
        raise RequestError(
            f"sampler {fields['sampler']} cannot start from an image's own noise; use ddim, or leave it out"
        )
    if fields["steps"] == 1:
        raise RequestError("steps must be at least 2 for an image's own noise: the noisiest step is left out")


def prompts(fields: Fields) -> list[str]:
    """The prompts of the content to generate: the main one and the prompts of sides, without empty ones."""
    return [prompt for name in ("prompt", *SIDE_PROMPTS) if (prompt := fields[name] or "").strip()]


def inverts(fields: Fields) -> bool:
    """Whether sampling starts from the noise of an image, found by inversion, and not from new noise."""
    mode = fields["mode"]
    if mode == "vary":
        return fields["strength"] is not None and fields["strength"] < 1
    if mode == "interpolate":
        return not fields["same_noise"] and any(source_kind(one) == "image" for one in fields["sources"])
    return mode == "edit" or (mode == "reconstruct" and fields["components"] is None)
