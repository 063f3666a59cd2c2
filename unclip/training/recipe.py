"""A recipe: one TOML file that says what each stage is, on what it is trained, and for how long.

`[data]` names the pictures; `[clip]`, `[prior]`, `[decoder]` and `[upsampler]` hold one stage each, with a table
`model` (the sizes of its network), `task` (what is drawn and dropped in training), `fit` (the optimisation) and
`sampling` (the defaults of the finished model).
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unclip.errors import RecipeError

STAGES = ("clip", "prior", "decoder", "upsampler")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a stage is optimised. Rates are per step; `decay` is the last share of the run, over which lr falls to 0."""

    batch_size: int = 32
    steps: int = 1000
    lr: float = 4e-4
    warmup: int = 100
    decay: float = 0.3
    weight_decay: float = 0.01
    beta2: float = 0.99
    clip_norm: float = 1.0
    ema: float = 0.999
    compile: bool = False
    workers: int = 1
    save_minutes: float = 5.0
    sample_minutes: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The defaults that the finished checkpoint samples a stage with; they do not touch its training."""

    sampler: str = "ddim"
    steps: int = 25
    guidance: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One stage: the sizes of its network, its task's options, its optimisation, its defaults when it is used."""

    model: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    task: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit = field(default_factory=Fit)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole model's training, as read from a file."""

    name: str
    data: Mapping[str, Any]
    seed: int = 0
    stages: Mapping[str, StageRecipe] = field(default_factory=dict)

    def stage(self, name: str) -> StageRecipe:
        if name not in self.stages:
            raise RecipeError(f"recipe {self.name!r} has no table [{name}]; add one, or see the presets {presets()}")
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
        raise RecipeError(f"no recipe {str(source)!r}; give a .toml file or one of {presets()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    check_keys(table, ("name", "data", "seed", *STAGES), f"{path}")
    if "data" not in table:
        raise RecipeError(f'{path} has no [data] table; add one such as kind = "folder", path = "pictures"')
    stages = {}
    for name in STAGES:
        if name in table:
            check_keys(table[name], ("model", "task", "fit", "sampling"), f"{path} [{name}]")
            stages[name] = StageRecipe(
                model=table[name].get("model", {}),
                task=table[name].get("task", {}),
                fit=build(Fit, table[name].get("fit", {}), f"{path} [{name}.fit]"),
                sampling=build(Sampling, table[name].get("sampling", {}), f"{path} [{name}.sampling]"),
            )
    return Recipe(name=table.get("name", path.stem), data=table["data"], seed=table.get("seed", 0), stages=stages)


def build(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """A table -> a config dataclass; unknown keys and wrong types are RecipeErrors that say where."""
    check_keys(table, [f.name for f in fields(cls)], where)
    for f in fields(cls):
        value = table.get(f.name)
        wanted = {int: int, float: (int, float), bool: bool, str: str}.get(f.type)
        wrong = wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (f.type is bool))
        if f.name in table and wrong:
            raise RecipeError(f"{where}: {f.name} = {value!r} should be of type {f.type.__name__}")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def check_keys(table: Mapping[str, Any], known: list[str] | tuple[str, ...], where: str) -> None:
    """Raise RecipeError for a key of `table` that is not known, naming the nearest one that is."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
            raise RecipeError(f"{where}: unknown key {key!r}{hint}")
