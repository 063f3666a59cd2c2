"""A finished image with the request and model that made it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.images.metadata import pixel_hash
from unclip.requests.request import Request
from unclip.version import __version__

if TYPE_CHECKING:
    from PIL import Image


def record(result: Result) -> dict[str, Any]:
    """The record of a result, as JSON values."""
    return {
        "version": __version__,
        "model": result.model,
        "revision": result.revision,
        **({"image_encoder": result.image_encoder} if result.image_encoder is not None else {}),
        "dtype": result.dtype,
        "seed": result.seed,
        "request": result.request.to_dict(),
        "score": result.score,
        **({"ranked": list(result.ranked)} if result.ranked else {}),
        "notes": list(result.notes),
        "pixels": pixel_hash(result.image),
    }


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished image and what made it.

    image     PIL image, RGB
    request   the request of this image alone: n = 1, its own seed, every default filled in
    seed      the seed of this image
    model     name of the model
    revision  the commit of a model from the hub, or None
    score     CLIP similarity of image and prompt, or without one of image and embedding, the given one or that which it
              was drawn by; None where not measured
    timings   seconds by stage
    notes     what the user should know, e.g. that the prompt was cut
    dtype     the precision it was drawn in, such as "bfloat16"; None where that is not known
    ranked    of an image that was chosen among candidates: their scores, the best first, and this one's among them
    image_encoder  whose image tower the model looked with, if not with its own
    """

    image: Image.Image
    request: Request
    seed: int
    model: str
    revision: str | None = None
    score: float | None = None
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dtype: str | None = None
    ranked: tuple[float, ...] = ()
    image_encoder: str | None = None

    def to_bytes(self, format: str = "png") -> bytes:
        """The bytes of a "png", "jpg" or "webp" file, with a record of what made the image (see unclip.metadata)."""
        from unclip.images import metadata

        return metadata.image_bytes(self.image, record(self), format)

    def save(self, path: str | Path) -> Path:
        """Write the image and its record to `path`, replacing what is there in one step.

        The suffix says the format: .png, .jpg, .jpeg, .webp; anything else is written as PNG.
        """
        from unclip.images import metadata
        from unclip.system.files import write_atomic

        suffix = Path(path).suffix.lower().removeprefix(".")
        return write_atomic(path, self.to_bytes(suffix if suffix in metadata.FORMATS else "png"))
