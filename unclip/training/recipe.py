"""Recipes: TOML files that describe the stages of a model, their training data and their optimisation.

`[data]` describes the training data (`training.data.options`). `[clip]`, `[prior]`, `[autoregressive_prior]`,
`[decoder]`, `[inpainting_decoder]` and `[upsampler]` describe one stage each, with these tables:

    data        overrides of [data] for this stage
    model       sizes of the network; not for the inpainting decoder, which is a copy of the decoder
    task        how training examples are made (`training.tasks.options`); not for CLIP
    fit         the optimisation
    sampling    sampling defaults of the finished model; not for CLIP

`[finetune]` describes the fine-tuning of a stage of another model, whose sizes and sampling defaults remain. It has the
keys of `training.tasks.options.FineTuningOptions` and the table `fit`. `[distill]` describes in the same way the
distillation of a stage, with the keys of `training.tasks.options.DistillationOptions`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unclip.errors import DataError, RecipeError
from unclip.requests.values import show
from unclip.training.data.options import DataOptions, SceneTable, read_data_options
from unclip.training.recipe_tables import (
    STAGES,
    AutoregressiveSampling,
    DistillationTable,
    FineTuningTable,
    Fit,
    RecipeFile,
    Sampling,
)
from unclip.training.tables import read_table
from unclip.training.tasks.options import (
    SecondUpsamplerOptions,
    TaskOptions,
    UpsamplerOptions,
)


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """The recipe of one stage."""

    source: str = "recipe"  # the file, for messages
    data: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    task: TaskOptions = TaskOptions()
    fit: Fit = Fit()
    sampling: Sampling | AutoregressiveSampling = Sampling()
    data_options: DataOptions = SceneTable()  # what `data` and the recipe's [data] say together

    @property
    def scenes(self) -> SceneTable | None:
        """The options of the training scenes; None for other data."""
        return self.data_options if isinstance(self.data_options, SceneTable) else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe file, read and validated."""

    source: str = "recipe"  # the file, for messages
    name: str
    data: Mapping[str, Any]
    seed: int = 0
    stages: Mapping[str, StageRecipe] = field(default_factory=dict)
    finetune: FineTuningTable = FineTuningTable()
    distill: DistillationTable = DistillationTable()

    def stage(self, name: str) -> StageRecipe:
        """The recipe of a stage. Raises RecipeError if the file has no table for it."""
        if name not in self.stages:
            raise RecipeError(f"{self.source} has no table [{name}]; add one, or use a preset: {', '.join(presets())}")
        return self.stages[name]

    def data_table(self, stage: str | None = None) -> dict[str, Any]:
        """The table [data]; with a stage, overridden by the stage's own table."""
        return {**self.data, **(self.stage(stage).data if stage else {})}

    def data_source(self, stage: str | None = None) -> str:
        """The file and the tables that describe the training data, for messages."""
        return f"{self.source} " + (f"[data] and [{stage}.data]" if stage and self.stage(stage).data else "[data]")

    def decoder_size(self) -> int:
        """Side of the decoder's images in pixels."""
        return image_size(self.stage("decoder"))


def presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.toml"))


def load_recipe(source: str | Path, data: str | Path | None = None) -> Recipe:
    """Read the recipe of a preset's name or a TOML file.

    data: a folder of images, tar shards, or a file of prompts, in the place of the recipe's data tables.
    Raises RecipeError for a missing file, bad TOML, an unknown key or a bad value, DataError for a bad data table.
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = Path(__file__).parent / "recipes" / f"{source}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(presets())
        raise RecipeError(f"no recipe {str(source)!r}; give a .toml file or a preset: {known}") from None
    except RecursionError:
        raise RecipeError(f"{path} is not valid: it is nested too deeply") from None
    except ValueError as error:  # bad TOML, bad UTF-8, or a path that cannot exist
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    if data is not None:
        values = with_data(values, data_table(data))
    if "data" not in values and not values.keys() - RecipeFile.model_fields.keys():
        raise RecipeError(
            f"{path} has no [data] table; give --data FOLDER (for --distill also --data PROMPTS.txt), or add one such "
            'as kind = "folder", path = "images"'
        )
    file = read_table(RecipeFile, with_tuples(values), str(path))
    tables = {name: table for name in STAGES if (table := getattr(file, name)) is not None}
    recipe = Recipe(
        source=str(path),
        name=path.stem if file.name is None else file.name,
        data=file.data,
        seed=file.seed,
        stages={name: StageRecipe(source=str(path), **dict(table)) for name, table in tables.items()},
        finetune=file.finetune,
        distill=file.distill,
    )
    stages = {}
    for name, stage in recipe.stages.items():  # a mistake in a later stage must not show after hours of training
        try:
            stages[name] = replace(stage, data_options=read_data_options(recipe.data_table(name)))
        except DataError as error:
            raise DataError(f"{recipe.data_source(name)}: {error}") from None
    recipe = replace(recipe, stages=stages)
    check_sizes(recipe)
    check_scenes(recipe)
    return recipe


def data_table(path: str | Path) -> dict[str, Any]:
    """The data table of a path: a folder of images, tar shards (also a glob or a brace range), or a file of prompts."""
    if str(path).endswith(".txt") and not Path(path).is_dir():
        return {"kind": "prompts", "path": str(path)}
    shards = str(path).endswith(".tar") and not Path(path).is_dir()
    return {"kind": "webdataset", "shards": str(path)} if shards else {"kind": "folder", "path": str(path)}


def with_data(values: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe file with another [data] table, and without those of single stages."""
    stages = {
        name: {key: part for key, part in value.items() if key != "data"}
        for name, value in values.items()
        if name in STAGES and isinstance(value, dict)
    }
    return {**values, **stages, "data": table}


def check_sizes(recipe: Recipe) -> None:
    """Raise RecipeError unless each upsampler takes images of the sizes that the stages before it generate."""
    made: dict[str, tuple[str, int]] = {}  # of each stage, the key of the size of its images, and that size
    if "decoder" in recipe.stages:
        made["decoder"] = "[decoder.model] size", recipe.decoder_size()
    for name, table in recipe.stages.items():
        options = table.task
        if isinstance(options, UpsamplerOptions):
            made["upsampler"] = "[upsampler.task] size", options.size
            inputs = {"small": "decoder"}
        elif isinstance(options, SecondUpsamplerOptions):
            inputs = {"small": "upsampler", "smallest": "decoder"}
        else:
            continue
        for key, before in inputs.items():
            if before in made and getattr(options, key) != made[before][1]:
                source, size = made[before]
                raise RecipeError(
                    f"{recipe.source}: [{name}.task] {key} = {getattr(options, key)} must equal {source} = {size}, "
                    f"the size of the {before}'s images"
                )


def check_scenes(recipe: Recipe) -> None:
    """Raise RecipeError for layouts or crops of scenes in a stage that has no use for them."""
    for key in {"layouts", "crop"} & recipe.data.keys():  # a distillation, without stages, uses layouts
        if key == "crop" or recipe.stages:
            raise RecipeError(f"{recipe.source} [data]: {key} belongs into the data table of one stage")
    for name, stage in recipe.stages.items():
        scenes, task, where = stage.scenes, stage.task, f"{recipe.source} [{name}.data]"
        if scenes is None:
            continue
        redrawn = task.redrawn if isinstance(task, UpsamplerOptions) else 0.0
        if scenes.layouts and name not in ("decoder", "inpainting_decoder") and not redrawn:
            raise RecipeError(
                f"{where}: layouts are for the decoders, and for an upsampler with redrawn; leave them out"
            )
        if scenes.crop is None:
            continue
        if not isinstance(task, UpsamplerOptions | SecondUpsamplerOptions) or redrawn:
            raise RecipeError(f"{where}: crop is for an upsampler without redrawn; leave it out")
        if scenes.crop != task.crop:
            raise RecipeError(f"{where}: crop = {scenes.crop} must equal [{name}.task] crop = {task.crop}")


def image_size(decoder: StageRecipe) -> int:
    """Side in pixels of the images of a decoder's recipe."""
    size = decoder.model.get("size", 64)
    if not isinstance(size, int) or isinstance(size, bool):
        raise RecipeError(f"{decoder.source} [decoder.model]: size = {show(size)} should be a whole number")
    return size


def with_tuples(value: Any) -> Any:
    """A value read from TOML, its lists as tuples."""
    if isinstance(value, dict):
        return {key: with_tuples(part) for key, part in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value
