"""unclip: text to image the DALL-E 2 way, with a diffusion prior over CLIP embeddings and a pixel decoder.

The names below load on first use, so that `import unclip` costs nothing and does not import torch.
"""

TYPE_CHECKING = False  # `typing` is not imported: the command line must handle interrupts before anything takes time
if TYPE_CHECKING:
    from typing import Any

    from unclip.errors import CheckpointError, DataError, InputError, RecipeError, RequestError, UnclipError
    from unclip.images.result import Result
    from unclip.inference.callbacks import Watcher
    from unclip.pipeline import Unclip
    from unclip.requests.request import Request
    from unclip.version import __version__


__all__ = [
    "CheckpointError",
    "DataError",
    "InputError",
    "RecipeError",
    "Request",
    "RequestError",
    "Result",
    "Unclip",
    "UnclipError",
    "Watcher",
    "__version__",
]

_HOME = {
    "__version__": "unclip.version",
    "Unclip": "unclip.pipeline",
    "Request": "unclip.requests.request",
    "Result": "unclip.images.result",
    "Watcher": "unclip.inference.callbacks",
}


def __getattr__(name: str) -> "Any":  # PEP 562
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "unclip.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
