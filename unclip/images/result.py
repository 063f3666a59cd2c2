"""A finished image with the request and model that made it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from unclip.images.metadata import pixel_hash
from unclip.requests.request import Request
from unclip.requests.values import size_text
from unclip.version import __version__

if TYPE_CHECKING:
    from PIL import Image

MAX_CELL = 256  # pixels; side of an image on the sheet of a notebook


def record(result: Result) -> dict[str, Any]:
    """The record of a result, as JSON values."""
    return {
        "version": __version__,
        "model": result.model,
        "revision": result.revision,
        **({"image_encoder": result.image_encoder} if result.image_encoder is not None else {}),
        **({"prior": result.prior} if result.prior is not None else {}),
        **({"loras": list(result.loras)} if result.loras else {}),
        "dtype": result.dtype,
        "seed": result.seed,
        "request": result.request.to_dict(),
        **({"inputs": result.inputs} if result.inputs else {}),
        "score": result.score,
        **({"ranked": list(result.ranked)} if result.ranked else {}),
        "notes": list(result.notes),
        **({"resized": size_text(result.image.size)} if result.is_resized else {}),
        "pixels": pixel_hash(result.image),
    }


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished image, and how it was made.

    image          PIL image: RGB, or RGBA for an edit that keeps transparency. In sRGB, or in the colour profile of the
                   edited image, which is then `image.info["icc_profile"]`
    request        of this image: n = 1, its own seed, every default filled in
    seed           of this image
    model          name of the model
    revision       commit of a model from the hub, or None
    score          CLIP similarity of the image and its prompt, or without one, of the image and its embedding; None
                   without an image encoder. It says what is shown, not how well it is drawn
    timings        seconds by stage
    notes          messages for the user, such as that the prompt was cut
    dtype          precision of the denoisers, such as "bfloat16"; None if unknown
    ranked         for an image chosen among candidates: the scores of all, best first
    image_encoder  name of the checkpoint that the image encoder is from, if it is another one
    inputs         hash of each input by field, as `images.inputs.input_hashes` gives them
    prior          name of the checkpoint that the prior is from, if another one than the model's own was given
    loras          names of the LoRA files that were added to the model, with their scales
    is_resized     the image has another size than the request says: see `resized`
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
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    prior: str | None = None
    loras: tuple[str, ...] = ()
    is_resized: bool = False

    def resized(self, size: tuple[int, int]) -> Result:
        """The result with its image scaled to cover (width, height) in pixels and cropped to it around its middle."""
        from PIL import Image, ImageOps

        if size == self.image.size:
            return self
        image = ImageOps.fit(self.image, size, Image.Resampling.LANCZOS)
        image.info = dict(self.image.info)  # the colour profile
        note = f"made as {size_text(self.image.size)} and resized to {size_text(size)}"
        return dataclasses.replace(self, image=image, notes=(*self.notes, note), is_resized=True)

    def to_bytes(self, format: str = "png", quality: int | None = None) -> bytes:
        """The bytes of a "png", "jpg" or "webp" file, with the record. quality: as `images.metadata.image_bytes`."""
        from unclip.images import metadata

        return metadata.image_bytes(self.image, record(self), format, quality)

    def save(self, path: str | Path) -> Path:
        """Write the image and its record to a file, atomically; an existing file is replaced.

        The suffix .png, .jpg, .jpeg or .webp selects the format; any other gives PNG. Returns the path.
        """
        from unclip.images import metadata
        from unclip.system.files import write_atomic

        suffix = Path(path).suffix.lower().removeprefix(".")
        return write_atomic(path, self.to_bytes(suffix if suffix in metadata.FORMATS else "png"))

    def _repr_png_(self) -> bytes:
        """The image as a notebook shows it, with the record."""
        return self.to_bytes("png")


class Results(list[Result]):
    """A list of Results that a notebook shows as a sheet, with the prompt and the seed of each."""

    def _repr_png_(self) -> bytes | None:
        """The sheet; None, so that the notebook shows text, for no images or too many of them."""
        from unclip.errors import InputError
        from unclip.images.contact_sheet import layout, sheet

        if len(self) < 2:
            return self[0].to_bytes("png") if self else None
        cell = tuple(min(MAX_CELL, max(result.image.size[side] for result in self)) for side in (0, 1))
        try:
            plan = layout(len(self), (cell[0], cell[1]), labels=True)
        except InputError:
            return None
        return sheet([(result.image, f"{result.seed} {result.request.prompt}") for result in self], plan)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Result | Results:
        """A result, or a part of the list that shows as a sheet too."""
        return Results(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)
