"""Import diffusers' networks and open_clip's encoders without the rest of these libraries, for the command line.

Of each library the command line runs a few modules. Their packages' `__init__` files import all others, and with them
transformers, peft, torchvision, timm, torch._dynamo and pandas: most of the time before the first image. Here the
modules in `MODULES` are imported as they are, under their own names, with three things in the place of the rest:

- *bare packages*, without their `__init__`: `diffusers.models` then has its submodules, each imported on demand;
- a *light* `diffusers.utils`, which has the names of its light submodules, and reports every optional library absent;
- *stand-ins* for what the modules name but do not need for sampling (`STAND_INS`): as a base class, an empty class; as
  a decorator, one that changes nothing. They are in `sys.modules` during the import only.

A name that a bare package lacks comes from the full library, which is imported for it. A version of a library that does
not fit is imported in the plain way. The process must belong to the command line (`allow_light_imports`): in any other,
nothing happens here, so that a program that uses unclip and diffusers has one diffusers, and all of it.
"""

import gc
import importlib
import importlib.util
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

BARE = {
    "diffusers": (
        *(
            "diffusers",
            "diffusers.hooks",
            "diffusers.models",
            "diffusers.models.autoencoders",
            "diffusers.models.transformers",
        ),
        *("diffusers.models.unets", "diffusers.schedulers"),
    ),
    "open_clip": ("open_clip",),
}
"""The bare packages of each library."""

MODULES = {
    "diffusers": (
        "diffusers.models.autoencoders.autoencoder_kl",
        "diffusers.models.autoencoders.vq_model",
        "diffusers.models.transformers.prior_transformer",
        "diffusers.models.unets.unet_2d",
        "diffusers.models.unets.unet_2d_condition",
        "diffusers.schedulers.scheduling_ddpm",
        "diffusers.schedulers.scheduling_dpmsolver_multistep",
        "diffusers.schedulers.scheduling_unclip",
        "diffusers.schedulers.scheduling_unipc_multistep",
    ),
    "open_clip": ("open_clip.transformer", "open_clip.tokenizer"),
}
"""The modules that are used of each library."""

STAND_INS = {
    "diffusers": ("diffusers.loaders", "diffusers.quantizers", "diffusers.utils.hub_utils")
    + ("diffusers.dependency_versions_check",)
    + ("accelerate", "huggingface_hub"),
    "open_clip": ("torchvision",),
}
REAL = ("diffusers.quantizers.quantization_config",)
"""Modules below STAND_INS that are imported as they are."""
ABSENT = ("torch._dynamo",)
"""Modules without which diffusers works: it only marks functions for torch.compile."""

UTILS = ("outputs", "deprecation_utils", "constants", "torch_utils", "peft_utils")
"""The submodules of `diffusers.utils` whose names are used."""

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    **{">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le},
    **{"==": operator.eq, "!=": operator.ne},
}
_allowed = False


def allow_light_imports() -> None:
    """Let `import_networks` work in this process. Only for a program of which nothing else imports these libraries."""
    global _allowed
    _allowed = True


def import_networks() -> None:
    """Import torch and `MODULES`, each library in the light way if that is allowed and it is not yet imported.

    Nothing is imported beside other threads, whose own imports would find the stand-ins.
    """
    if not _allowed or threading.active_count() > 1:
        return
    with _garbage_kept():
        for library in MODULES:
            if library not in sys.modules:
                _import_light(library)


def _import_light(library: str) -> None:
    """Import the modules of a library that are used, if its version fits; else nothing of it."""
    try:
        with _stand_ins(STAND_INS[library]):
            for package in BARE[library]:
                _BarePackage.install(package)
            if library == "diffusers":
                _Utils.install("diffusers.utils")
                for name, module in KEPT.items():
                    sys.modules[name] = module(name)
            for name in MODULES[library]:
                importlib.import_module(name)
    except Exception:  # the plain imports that follow load another version, or report what is wrong
        _forget(library)
    except BaseException:  # an interrupt
        _forget(library)
        raise


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Within this context, garbage is not collected: imports make a million objects that stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


class _BarePackage(ModuleType):
    """A package without its `__init__`. A name that it lacks comes from the full library."""

    @classmethod
    def install(cls, name: str) -> "_BarePackage":
        """Put the package into `sys.modules`, beside its submodules."""
        parent, _, own = name.rpartition(".")
        if parent:
            folder = Path(sys.modules[parent].__path__[0]) / own
        else:
            spec = importlib.util.find_spec(name)
            assert spec is not None and spec.origin is not None, f"{name} is not installed"
            folder = Path(spec.origin).parent
        package = cls(name)
        package.__spec__ = ModuleSpec(name, None, is_package=True)
        package.__path__ = [str(folder)]
        package.__file__ = str(folder / "__init__.py")
        sys.modules[name] = package
        if parent:
            setattr(sys.modules[parent], own, package)
        elif name == "diffusers":
            package.__dict__["__version__"] = version(name)
        return package

    def __getattr__(self, name: str) -> Any:
        # A submodule is not an attribute until it is imported; `from package import submodule` asks for both.
        if name.startswith("__") or (Path(self.__path__[0]) / f"{name}.py").is_file():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            _forget(self.__name__.partition(".")[0])
        return getattr(importlib.import_module(self.__name__), name)


class _Utils(_BarePackage):
    """`diffusers.utils` with the names of its light submodules, and stand-ins for all others."""

    def __getattr__(self, name: str) -> Any:
        folder = Path(self.__path__[0])
        if name.startswith("__") or (folder / f"{name}.py").is_file():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for module in UTILS:
            if (folder / f"{module}.py").is_file():
                names = vars(importlib.import_module(f"{self.__name__}.{module}"))
                if name in names:
                    return names[name]
        return getattr(sys.modules[f"{self.__name__}.import_utils"], name)  # `_ImportUtils`


class _StandIn(ModuleType):
    """A module that has every name, for code that names things but does not use them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value: Any = type(name, (), {"__module__": self.__name__})
        if name.isupper():
            value = ""
        elif name.startswith("is_"):
            value = _no
        elif name.islower():
            value = _unchanged
        setattr(self, name, value)
        return value


class _StandInFinder:
    """Finds the modules of the libraries `names` as stand-ins, and those in ABSENT not at all."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in ABSENT:
            raise ModuleNotFoundError(f"{name} is not imported", name=name)
        if name in REAL:
            return None  # the next finder's
        found = any(name == known or name.startswith(f"{known}.") for known in self.names)
        return ModuleSpec(name, self, is_package=True) if found else None  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _StandIn(spec.name)
        if spec.name.startswith("diffusers."):
            parent, _, own = spec.name.rpartition(".")
            module.__path__ = [str(Path(sys.modules[parent].__path__[0]) / own)]  # where REAL modules are
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def _stand_ins(names: tuple[str, ...]) -> Iterator[None]:
    """Within this context, those of the modules `names` that are not imported yet are stand-ins."""
    finder: Any = _StandInFinder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in [(name, module) for name, module in sys.modules.items() if type(module) is _StandIn]:
            del sys.modules[name]
            parent, _, own = name.rpartition(".")
            if vars(sys.modules.get(parent, finder)).get(own) is module:
                delattr(sys.modules[parent], own)


class _ImportUtils(_StandIn):
    """`diffusers.utils.import_utils` without its search for some fifty optional libraries, which takes 0.4 s.

    It finds torch and no other. It stays in `sys.modules`.
    """

    ENV_VARS_TRUE_VALUES = frozenset({"1", "ON", "YES", "TRUE"})

    @staticmethod
    def is_torch_available() -> bool:
        return True

    @staticmethod
    def is_torch_version(operation: str, other: str) -> bool:
        from packaging.version import parse

        installed = parse(parse(version("torch")).base_version)
        return _COMPARE[operation](installed, parse(other))


class _GroupOffloading(_StandIn):
    """`diffusers.hooks.group_offloading` for networks that are not offloaded so. It stays in `sys.modules`.

    Networks ask it whenever they move to a device, and it imports torch._dynamo.
    """

    @staticmethod
    def _is_group_offload_enabled(network: object) -> bool:
        return False

    @staticmethod
    def _get_group_onload_device(network: object) -> None:
        raise ValueError("the network is not offloaded in groups")


KEPT = {
    "diffusers.utils.import_utils": _ImportUtils,
    "diffusers.hooks.group_offloading": _GroupOffloading,
}


def _forget(library: str) -> None:
    """Drop a library from `sys.modules`, so that the next import loads all of it."""
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        del sys.modules[name]


def _no(*_args: object, **_options: object) -> bool:
    return False


def _unchanged(function: Any = None, *_args: object, **_options: object) -> Any:
    """A decorator that returns the function itself."""
    return function
