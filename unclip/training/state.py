"""The whole state of a run in one file: weights, their average (EMA), the optimiser's moments, and the step.

`state.safetensors` holds all of it, and a run that resumes from it ends as if it had never stopped.
`portable.safetensors` is what leaves a machine: weights and average in half precision, and the step. A run resumes from
it too, with the moments started anew.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.system.files import write_atomic
from unclip.training.budget import Progress
from unclip.training.compatibility import check_meaning
from unclip.training.recipe import Fit

FILE = "state.safetensors"
PORTABLE = "portable.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter


class State:
    """What training changes. `network` must already be on its device and in its memory format.

    meaning: what the weights mean besides their shapes (`parts.meaning`); a run resumes from no other.
    """

    def __init__(self, network: nn.Module, fit: Fit, meaning: Mapping[str, Any]):
        self.progress = Progress()
        self.meaning = meaning
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        decayed = [p for p in self.parameters.values() if p.ndim > 1]
        plain = [p for p in self.parameters.values() if p.ndim <= 1]
        groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(
            groups, lr=fit.lr, betas=(0.9, fit.beta2), weight_decay=fit.weight_decay, fused=True
        )

    def average(self, limit: float) -> None:
        """Let the average follow the weights: EMA with momentum `limit`, or less early in the run."""
        # The average must forget the start of a short run: (1 + step) / (10 + step), as is customary.
        momentum = min(limit, (1 + self.progress.step) / (10 + self.progress.step))
        weights = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.ema.values()), weights, 1 - momentum)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Run a block with the averaged weights in place of the trained ones."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.put(self.ema)
        try:
            yield
        finally:
            self.put(kept)

    @torch.no_grad()
    def put(self, weights: dict[str, Tensor]) -> None:
        """Give the network these weights."""
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def save(self, folder: Path) -> None:
        """Write state.safetensors atomically: an interrupted write leaves the old one."""
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weights.{name}"] = parameter.detach()
            tensors[f"ema.{name}"] = self.ema[name]
            for key, value in self.adam.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value)
        self.write(folder / FILE, tensors)

    def save_portable(self, folder: Path) -> None:
        """Write portable.safetensors, about a sixth of the size."""
        tensors = {f"weights.{name}": half(parameter.detach()) for name, parameter in self.parameters.items()}
        tensors |= {f"ema.{name}": half(average) for name, average in self.ema.items()}
        self.write(folder / PORTABLE, tensors)

    def write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Tensors and the progress into one file, atomically."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        metadata = {"progress": json.dumps(vars(self.progress)), "meaning": json.dumps(self.meaning)}
        write_atomic(path, serialize(tensors, metadata=metadata))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, or else what `save_portable` did; nothing is changed unless all of it fits.

        Raises CheckpointError where there is nothing to read, or it is damaged, or of another recipe.
        """
        if not has_state(folder):
            raise CheckpointError(f"nothing to resume in {folder}; leave out --resume to start")
        path = folder / (FILE if (folder / FILE).is_file() else PORTABLE)
        try:
            with safe_open(path, framework="pt") as file:
                progress = Progress(**json.loads(file.metadata()["progress"]))
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dict)
                self.check(path, shapes)
                if "meaning" in file.metadata():
                    check_meaning(path, self.meaning, json.loads(file.metadata()["meaning"]))
                elif self.meaning.get("prediction") == "difference":  # older states do not say; none of them is one
                    check_meaning(path, self.meaning, {"prediction": "sample"})
                for name, parameter in self.parameters.items():
                    with torch.no_grad():
                        parameter.copy_(file.get_tensor(f"weights.{name}"))
                    self.ema[name].copy_(file.get_tensor(f"ema.{name}"))
                    if f"exp_avg.{name}" in shapes:
                        moments = {key: file.get_tensor(f"{key}.{name}") for key in MOMENTS}
                        self.adam.state[parameter] = {key: like(parameter, value) for key, value in moments.items()}
        except CheckpointError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged or no state of a run ({error}); replace it, or leave out --resume to start anew"
            ) from None
        self.progress = progress

    def check(self, path: Path, found: dict[str, tuple[int, ...]]) -> None:
        """Raise CheckpointError, naming the first tensor at fault, unless a file's shapes are those of this run."""
        wanted: dict[str, tuple[int, ...]] = {}
        for name, parameter in self.parameters.items():
            shape = tuple(parameter.shape)
            wanted |= {f"weights.{name}": shape, f"ema.{name}": shape}
            if any(f"{key}.{name}" in found for key in MOMENTS):
                wanted |= {f"{key}.{name}": () if key == "step" else shape for key in MOMENTS}
        for key in [*wanted, *found]:
            if found.get(key) != wanted.get(key):
                there, here = (list(shapes[key]) if key in shapes else "missing" for shapes in (found, wanted))
                raise CheckpointError(
                    f"{path} does not fit this recipe: tensor {key} is {there} in the file and {here} in the recipe; "
                    "resume with the recipe it came from"
                )


def like(parameter: Tensor, moment: Tensor) -> Tensor:
    """A moment on its parameter's device and laid out as the parameter is (channels_last): AdamW walks raw memory."""
    if moment.ndim == 0:  # the count of steps
        return moment.to(parameter.device)
    return torch.empty_like(parameter).copy_(moment)


def has_state(folder: Path) -> bool:
    """Whether there is something to resume a run in `folder` from."""
    return (folder / FILE).is_file() or (folder / PORTABLE).is_file()


def half(tensor: Tensor) -> Tensor:
    """In float16, which keeps three bits more than bfloat16, unless a value lies beyond its range."""
    small = tensor.to(torch.float16)
    return small if small.isfinite().all() else tensor.to(torch.bfloat16)
