"""The `data` tables of a recipe: one model per kind of training data."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from unclip.errors import DataError, did_you_mean
from unclip.requests.values import show
from unclip.training.tables import Table, read_table


def _as_tuple(value: Any) -> Any:
    """A single string as a tuple of one; a list as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class SceneTable(Table):
    """Scenes of the bundled model's domain. Fractions are 0 .. 1.

    An option that is left out takes the default of `stickers.compose.SceneOptions`.
    """

    kind: Literal["scenes"] = "scenes"
    split: Literal["train", "held_out"] = Field(
        default="train", description="Combinations of objects and backgrounds: for training, or held out."
    )
    singles: float | None = Field(default=None, ge=0, le=1, description="Fraction of scenes with a single object.")
    alike: int | None = Field(
        default=None, ge=1, description="Consecutive scenes that share a background, so that objects tell them apart."
    )
    nouns: tuple[str, ...] | None = Field(default=None, strict=False, description="Objects to show; by default, all.")
    spread: int | None = Field(
        default=None, ge=0, description="Largest offset of an object from its place's centre, in steps of 1/16 side."
    )
    hard_pairs: bool | None = Field(
        default=None, description="Follow every scene of two objects with the same scene in which they are exchanged."
    )
    counts: float | None = Field(
        default=None, ge=0, le=1, description="Fraction of the other scenes that show several of one object."
    )
    styles: Annotated[tuple[str, ...] | None, BeforeValidator(_as_tuple)] = Field(
        default=None,
        min_length=1,
        description="Styles of the sprites: noto, flat, cartoon. With several, captions mention them; one that is "
        "named twice is twice as likely.",
    )
    vary: bool | None = Field(
        default=None, description="Show objects also as mirror images, and larger or smaller by a step."
    )
    layouts: bool | None = Field(
        default=None,
        description="Tell the decoder what captions leave open: places, sizes, mirror images. At generation, they are "
        "random. Only in [decoder.data], in [upsampler.data] for an upsampler with `redrawn`, and for a distillation.",
    )
    crop: int | None = Field(
        default=None,
        ge=1,
        description="Render only a random square part of so many pixels, as upsamplers need of large images.",
    )

    @field_validator("nouns")
    @classmethod
    def _check_nouns(cls, nouns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if nouns is not None and len(set(nouns)) < 2:
            raise ValueError("a list of two nouns or more")
        return nouns

    def given(self) -> dict[str, Any]:
        """The arguments of `stickers.compose.SceneOptions` that the table sets."""
        return self.model_dump(exclude={"kind", "crop"}, exclude_none=True)


class FolderTable(Table):
    """A folder of images with captions (`data.folder`)."""

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="The folder; a relative path starts at the current folder.")


class ShardTable(Table):
    """Webdataset tar shards (`data.webdataset`)."""

    kind: Literal["webdataset"] = "webdataset"
    shards: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1, description="A path, a glob or a brace range of local .tar files, or a list of these."
    )


class PromptTable(Table):
    """Prompts without images (`data.prompts`), for distillation."""

    kind: Literal["prompts"] = "prompts"
    path: str = Field(min_length=1, description="A text file with a prompt on each line.")


DataOptions = SceneTable | FolderTable | ShardTable | PromptTable
KINDS: dict[str, type[SceneTable] | type[FolderTable] | type[ShardTable] | type[PromptTable]] = {
    "scenes": SceneTable,
    "folder": FolderTable,
    "webdataset": ShardTable,
    "prompts": PromptTable,
}


def read_data_options(table: Mapping[str, Any]) -> DataOptions:
    """The options of a recipe's data table. Raises DataError for an unknown kind or key, or a bad value."""
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"data kind {show(kind)} is unknown; {did_you_mean(show(kind), KINDS)}")
    return read_table(KINDS[kind], table, f"data of kind {kind!r}", DataError)
