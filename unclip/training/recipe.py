"""A recipe: one TOML file that says what each stage is, on what it is trained, and for how long.

`[data]` names the pictures (unclip.training.data); `[clip]`, `[prior]`, `[decoder]` and `[upsampler]` hold one stage
each, with a table `data` (what this stage is shown otherwise than `[data]` says), `model` (the sizes of its network),
`task` (what is drawn and dropped in training), `fit` (the optimisation) and `sampling` (the defaults of the finished
model).
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import RecipeError, nearest

STAGES = ("clip", "prior", "decoder", "upsampler")
INFINITE = float("inf")


def within(default: float, low: float, high: float) -> Any:
    """A number that `build` takes from `low` to `high` only."""
    return field(default=default, metadata={"low": low, "high": high})


def one_of(default: str, choices: tuple[str, ...]) -> Any:
    """A name that `build` takes from `choices` only."""
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a stage is optimised. Rates are per step; `decay` is the last share of the run, over which lr falls to 0."""

    batch_size: int = within(32, 1, INFINITE)
    steps: int = within(1000, 1, INFINITE)
    lr: float = within(4e-4, 0, 1)
    warmup: int = within(100, 0, INFINITE)
    decay: float = within(0.3, 0, 1)
    weight_decay: float = within(0.01, 0, 1)
    beta2: float = within(0.99, 0, 0.999999)
    clip_norm: float = within(1.0, 1e-6, INFINITE)  # 0 would leave nothing of any gradient
    ema: float = within(0.999, 0, 1)
    compile: bool = False
    workers: int = within(1, 0, 1024)
    save_minutes: float = within(5.0, 0, INFINITE)
    sample_minutes: float = within(10.0, 0, INFINITE)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The defaults that the finished checkpoint samples a stage with; they do not touch its training."""

    sampler: str = one_of("ddim", SAMPLER_NAMES)
    steps: int = within(25, 1, 1000)
    guidance: float = within(1.0, 0, 1000)


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One stage: the sizes of its network, its task's options, its optimisation, its defaults when it is used."""

    source: str = "recipe"  # the file, for messages
    data: Mapping[str, Any] = field(default_factory=dict)  # what this stage is shown otherwise than the recipe says
    model: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    task: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit = field(default_factory=Fit)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole model's training, as read from a file."""

    source: str = "recipe"
    name: str
    data: Mapping[str, Any]
    seed: int = 0
    stages: Mapping[str, StageRecipe] = field(default_factory=dict)

    def stage(self, name: str) -> StageRecipe:
        if name not in self.stages:
            raise RecipeError(f"{self.source} has no table [{name}]; add one, or use a preset: {', '.join(presets())}")
        return self.stages[name]


def presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.toml"))


def load_recipe(source: str | Path) -> Recipe:
    """A preset's name or a TOML file -> Recipe. Raises RecipeError for a missing file, bad TOML or unknown keys."""
    path = Path(source)
    if path.suffix != ".toml":
        path = Path(__file__).parent / "recipes" / f"{source}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(presets())
        raise RecipeError(f"no recipe {str(source)!r}; give a .toml file or a preset: {known}") from None
    except ValueError as error:  # of TOML, of UTF-8, or a path that cannot be one
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    where = str(path)
    check_keys(table, ("name", "data", "seed", *STAGES), where)
    check_type(where, "name", table.get("name", path.stem), str)
    check_type(where, "seed", table.get("seed", 0), int)
    if not 0 <= table.get("seed", 0) < 2**31:
        raise RecipeError(f"{where}: seed = {table['seed']} should be from 0 to {2**31 - 1}")
    if "data" not in table:
        raise RecipeError(f'{where} has no [data] table; add one such as kind = "folder", path = "pictures"')
    return Recipe(
        source=where,
        name=table.get("name", path.stem),
        data=subtable(table, "data", where),
        seed=table.get("seed", 0),
        stages={name: stage_recipe(subtable(table, name, where), name, where) for name in STAGES if name in table},
    )


def stage_recipe(table: Mapping[str, Any], name: str, source: str) -> StageRecipe:
    """The table of the stage `name` -> StageRecipe."""
    where = f"{source} [{name}]"
    tables = ("data", "model", "fit") if name == "clip" else ("data", "model", "task", "fit", "sampling")
    check_keys(table, tables, where)
    parts = {key: subtable(table, key, where) for key in table}
    return StageRecipe(
        source=source,
        data=parts.get("data", {}),
        model=parts.get("model", {}),
        task=parts.get("task", {}),
        fit=build(Fit, parts.get("fit", {}), f"{source} [{name}.fit]"),
        sampling=build(Sampling, parts.get("sampling", {}), f"{source} [{name}.sampling]"),
    )


def subtable(table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """The table under `key`, its lists as tuples."""
    check_type(where, key, table[key], dict)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table[key].items()}


def build(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """A table -> a config dataclass; unknown keys, wrong types and values out of range are named, and where."""
    check_keys(table, [f.name for f in fields(cls)], where)
    for f in fields(cls):
        if f.name not in table:
            continue
        value, limits = table[f.name], f.metadata
        check_type(where, f.name, value, f.type)
        if "low" in limits and not limits["low"] <= value <= limits["high"]:
            bounds = f"from {limits['low']} to {limits['high']}"
            raise RecipeError(f"{where}: {f.name} = {value} should be {bounds.replace(' to inf', ' up')}")
        if "choices" in limits and value not in limits["choices"]:
            raise RecipeError(f"{where}: {f.name} = {value!r} should be one of {', '.join(limits['choices'])}")
    return cls(**table)


def check_type(where: str, key: str, value: Any, wanted: type) -> None:
    """Raise RecipeError unless `value` is of type `wanted`; an int is a float, but a bool is no int."""
    right = isinstance(value, (int, float) if wanted is float else wanted)
    if not right or isinstance(value, bool) != (wanted is bool):
        name = "a table" if wanted is dict else f"of type {wanted.__name__}"
        raise RecipeError(f"{where}: {key} = {value!r} should be {name}")


def check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise RecipeError for a key of `table` that is not known, naming the nearest one that is."""
    for key in table:
        if key not in known:
            near = nearest(key, known)
            hint = f"; did you mean {near!r}?" if near else f"; known keys: {', '.join(known)}"
            raise RecipeError(f"{where}: unknown key {key!r}{hint}")
