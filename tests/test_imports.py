"""Imports point down the layers of the design: a module imports its own package and lower layers only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "unclip"

# A module imports its own package and lower layers only. There are no exceptions.
LAYERS = [
    {"errors", "version"},
    {"system", "models", "diffusion"},
    {"requests", "embeddings"},
    {"images", "stickers"},
    {"inference"},
    {"checkpoints", "modes"},
    {"pipeline"},
    {"training", "evaluation", "benchmark", "batch", "server"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

HEAVY = {"torch", "torchvision", "diffusers", "open_clip", "transformers", "accelerate", "numpy", "huggingface_hub"}
LIGHT = {"__init__", "errors", "version", "diffusion.sampler_names", "inference.callbacks"}
LIGHT |= {"system.choices", "system.files", "system.resources", "system.allocator"}
LIGHT |= {"checkpoints.hub", "checkpoints.locate", "checkpoints.index", "checkpoints.identity"}
LIGHT |= {"images.metadata", "images.result", "images.compare", "images.contact_sheet"}


def sources() -> dict[str, Path]:
    """Every module of the package by its dotted name below `unclip`; the package itself is `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0].startswith("_bundled"):
            continue
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = path
    return found


SOURCES = sources()


def imported(node: ast.AST, path: Path) -> list[str]:
    """Absolute dotted names that an import statement may refer to (`from a import b`: a.b)."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = ("unclip", *path.relative_to(PACKAGE).parent.parts)
            package = package[: len(package) - node.level + 1]
            base = ".".join([*package, *([base] if base else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


def own_imports(path: Path) -> set[str]:
    """Top-level parts of unclip that a file imports anywhere in it, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in imported(node, path):
            parts = name.split(".")
            if parts[0] == "unclip" and len(parts) > 1:
                # a public name of the package (`from unclip import __version__`) is nobody's module
                names.add(parts[1] if parts[1] in {s.split(".")[0] for s in SOURCES} else "__init__")
    return names


def module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when a module is imported: not those in functions or under TYPE_CHECKING."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def test_every_module_has_its_place() -> None:
    unplaced = {name.split(".")[0] for name in SOURCES} - RANK.keys() - {"__init__"}
    assert not unplaced, f"give {sorted(unplaced)} a place in LAYERS"


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "__init__"])
def test_imports_point_downwards(name: str) -> None:
    own = name.split(".")[0]
    for other in own_imports(SOURCES[name]) - {own, "__init__"}:
        assert RANK[other] < RANK[own], f"unclip.{name} imports unclip.{other}"


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] == "diffusion"])
def test_diffusion_knows_nothing_but_errors(name: str) -> None:
    assert own_imports(SOURCES[name]) <= {"diffusion", "errors"}


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] == "models"])
def test_models_never_meet_diffusion(name: str) -> None:
    assert "diffusion" not in own_imports(SOURCES[name])


@pytest.mark.parametrize("name", list(SOURCES))
def test_nothing_comes_from_the_pipelines_of_diffusers(name: str) -> None:
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        for other in imported(node, SOURCES[name]):
            assert not other.startswith("diffusers.pipelines"), other


def is_light(name: str) -> bool:
    package = SOURCES[name].name == "__init__.py"
    return package or name in LIGHT or name.split(".")[0] in ("cli", "batch", "requests")


@pytest.mark.parametrize("name", list(filter(is_light, SOURCES)))
def test_light_modules_import_nothing_heavy(name: str) -> None:
    path = SOURCES[name]
    for node in module_level(ast.parse(path.read_text(encoding="utf-8"))):
        for other in imported(node, path):
            assert other.split(".")[0] not in HEAVY, f"{path.name} imports {other} as it loads"


def test_what_is_light_stays_light_when_it_is_really_imported() -> None:
    light = [f"unclip.{name}".removesuffix(".__init__") for name in filter(is_light, SOURCES)]
    code = f"import sys, {', '.join(light)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert run.stdout.split() == []
