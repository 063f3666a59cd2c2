"""The state of a run in one file: weights, averaged (EMA) weights, optimiser moments, and the step.

`state.safetensors` holds all of it: a run that resumes from it ends exactly like an uninterrupted one.
`portable.safetensors` holds the weights and the average in half precision, and the step: a small file to copy to
another machine. A run that resumes from it starts with new optimiser moments.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from unclip.errors import CheckpointError, RecipeError
from unclip.system.files import write_atomic
from unclip.training.budget import Progress
from unclip.training.compatibility import check_weight_settings
from unclip.training.muon import Muon, muon_groups
from unclip.training.recipe_tables import Fit
from unclip.training.sharding import is_sharded, local, part_of, whole

FILE = "state.safetensors"
PORTABLE = "portable.safetensors"
MOMENTS = {
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "muon": ("step", "exp_avg", "exp_avg_sq"),
    "adamw8bit": ("step", "state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2"),
}
"""The optimisers' state of a parameter. In 8 bits, small parameters have no maps (qmap, absmax). Of a matrix that Muon
makes orthogonal, exp_avg_sq is a single 0."""


class _DamagedError(CheckpointError):
    """A file of a state is cut off, or is something else."""


class State:
    """Everything that training changes.

    network: already on its device and in its memory format, or sharded. The average and the moments are sharded like
        the weights; files hold whole tensors, which all processes gather together.
    settings: what decides the meaning of the weights (`compatibility.weight_settings`). A run resumes only from a state
        with the same settings.
    is_main: whether this is the process that writes files and, without shards, keeps the average.
    """

    def __init__(self, network: nn.Module, fit: Fit, settings: Mapping[str, Any], is_main: bool = True):
        self.is_main = is_main
        self.progress = Progress()
        self.is_whole = True
        self.settings = settings
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.is_sharded = any(map(is_sharded, self.parameters.values()))
        self.keeps_average = is_main or self.is_sharded
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()} if self.keeps_average else {}
        self.optimizer = fit.optimizer
        self.moments = MOMENTS[fit.optimizer]
        self.adam = new_optimizer(self.parameters, fit)

    def step(self, make: Callable[[], bool], ema: float) -> None:
        """Let the optimiser make a step, count it, and update the average, unless `make` returns that it made none.

        If it fails halfway, the weights belong to no step, and `is_whole` stays False: the state must not be saved.
        """
        self.is_whole = False
        made = make()
        self.progress.step += 1  # a step that is passed over, too: the next one has other data
        if made:
            self.update_average(ema)
        self.is_whole = True

    def update_average(self, limit: float) -> None:
        """Move the average towards the weights: an EMA with momentum `limit`, and less early in the run."""
        if not self.keeps_average:
            return
        # The usual warm-up, (1 + step) / (10 + step), lets the average forget the initial weights.
        momentum = min(limit, (1 + self.progress.step) / (10 + self.progress.step))
        weights = [local(p.detach()) for p in self.parameters.values()]
        averages = [local(average) for average in self.ema.values()]
        torch._foreach_lerp_(averages, weights, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within the block, the network has the averaged weights, in a process that keeps them."""
        if not self.keeps_average:
            yield
            return
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.set_weights(self.ema)
        try:
            yield
        finally:
            self.set_weights(kept)

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Copy weights, by parameter name, into the network."""
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def save(self, folder: Path) -> None:
        """Write state.safetensors atomically: an interrupted write leaves the previous file. The main process does."""
        if not self.keeps_average:
            return
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weights.{name}"] = parameter.detach()
            tensors[f"ema.{name}"] = self.ema[name]
            for key, value in self.adam.state.get(parameter, {}).items():
                value = torch.as_tensor(value)
                # The maps of 8 bits are one tensor for all parameters, which safetensors does not write.
                tensors[f"{key}.{name}"] = value.clone() if key.startswith("qmap") else value
        self._write(folder / FILE, tensors)

    def save_portable(self, folder: Path) -> None:
        """Write portable.safetensors, about a sixth of the size of the full state. The main process does."""
        if not self.keeps_average:
            return
        tensors = {f"weights.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        tensors |= {f"ema.{name}": average for name, average in self.ema.items()}
        self._write(folder / PORTABLE, tensors, to_half)

    def _write(
        self, path: Path, tensors: dict[str, Tensor], convert: Callable[[Tensor], Tensor] = Tensor.contiguous
    ) -> None:
        """Write whole tensors, converted, the progress and the settings into one file, atomically."""
        # To the CPU one by one: the device may have run out of memory.
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        tensors = {name: convert(tensor.cpu().contiguous()) for name, tensor in gathered if self.is_main}
        if not self.is_main:
            return
        progress = {key: value for key, value in vars(self.progress).items() if value is not None}
        metadata = {"progress": json.dumps(progress), "meaning": json.dumps(self.settings)}
        write_atomic(path, serialize(tensors, metadata=metadata))

    def load(self, folder: Path) -> str | None:
        """Read state.safetensors, or portable.safetensors if the first is missing or damaged.

        Nothing changes unless all of a file fits. Returns a note if a damaged file was passed over. Raises
        CheckpointError if there is no state, if all are damaged, or if one was made with another recipe.
        """
        paths = [folder / name for name in (FILE, PORTABLE) if (folder / name).is_file()]
        if not paths:
            raise CheckpointError(f"nothing to resume in {folder}; leave out --resume to start")
        damaged: list[str] = []
        for path in paths:
            try:
                self._read(path)
            except _DamagedError as error:
                self.adam.state.clear()
                damaged.append(str(error))
                continue
            if not damaged:
                return None
            step = self.progress.step
            return f"{damaged[0]}: the run resumes from step {step} of {PORTABLE}, with new optimiser moments"
        files = f"{FILE} or {PORTABLE}"
        raise CheckpointError(f"{damaged[0]}; copy an intact {files} there, or delete {folder} to start again")

    def _read(self, path: Path) -> None:
        """Read a file. Raises _DamagedError if it is damaged, CheckpointError if it was made with another recipe."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                progress = Progress(**json.loads(metadata["progress"]))
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dict)
                self._check_shapes(path, shapes)
                if "meaning" in metadata:
                    check_weight_settings(path, self.settings, json.loads(metadata["meaning"]))
                elif self.settings.get("prediction") == "difference":  # states without settings are older than this
                    check_weight_settings(path, self.settings, {"prediction": "sample"})
                for name, parameter in self.parameters.items():
                    with torch.no_grad():
                        parameter.copy_(part_of(file.get_tensor(f"weights.{name}"), parameter))
                    if self.keeps_average:
                        self.ema[name].copy_(part_of(file.get_tensor(f"ema.{name}"), parameter))
                    found = [key for key in self.moments if f"{key}.{name}" in shapes]
                    if found:
                        self.adam.state[parameter] = {
                            key: matching_layout(parameter, file.get_tensor(f"{key}.{name}")) for key in found
                        }
        except CheckpointError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _DamagedError(f"{path} is damaged or not a training state ({' '.join(str(error).split())})") from None
        self.progress = progress

    def _check_shapes(self, path: Path, found: dict[str, tuple[int, ...]]) -> None:
        """Raise CheckpointError, naming the first wrong tensor, unless a file's shapes are the run's."""
        wanted: dict[str, tuple[int, ...]] = {}
        for name, parameter in self.parameters.items():
            shape = tuple(parameter.shape)
            wanted |= {f"weights.{name}": shape, f"ema.{name}": shape}
            moments = [key for key in self.moments if f"{key}.{name}" in found]
            if moments and self.moments == MOMENTS["adamw"]:
                moments = self.moments
            is_orthogonal = found.get(f"exp_avg_sq.{name}") == () and self.optimizer == "muon"
            own = {"step": ()} | dict.fromkeys(("exp_avg", "exp_avg_sq", "state1", "state2"), shape)
            own |= {"exp_avg_sq": ()} if is_orthogonal else {}
            wanted |= {f"{key}.{name}": own.get(key, found.get(f"{key}.{name}", ())) for key in moments}
        for key in [*wanted, *found]:
            if found.get(key) != wanted.get(key):
                theirs, ours = (list(shapes[key]) if key in shapes else "missing" for shapes in (found, wanted))
                raise CheckpointError(
                    f"{path} does not fit this recipe: tensor {key} is {theirs} in the file and {ours} in the recipe; "
                    "resume with the recipe it was trained with"
                )


def matching_layout(parameter: Tensor, moment: Tensor) -> Tensor:
    """A moment on its parameter's device, sharded and in a memory format like it: fused AdamW works on raw memory."""
    if moment.shape != parameter.shape:  # the number of steps, or a map of 8 bits
        return moment.to(parameter.device)
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(part_of(moment, parameter))


def new_optimizer(parameters: Mapping[str, nn.Parameter], fit: Fit) -> torch.optim.Optimizer:
    """The recipe's optimiser of named parameters. Raises RecipeError if bitsandbytes is needed and not installed."""
    options: dict[str, Any] = {"lr": fit.lr, "betas": (0.9, fit.beta2), "weight_decay": fit.weight_decay}
    if fit.optimizer == "muon":
        return Muon(muon_groups(parameters), **options)
    decayed = [p for p in parameters.values() if p.ndim > 1]
    plain = [p for p in parameters.values() if p.ndim == 1]
    scalars = [p for p in parameters.values() if p.ndim == 0]  # never sharded, and so apart from those that may be
    undecayed = [{"params": group, "weight_decay": 0.0} for group in (plain, scalars) if group]
    groups: list[dict[str, Any]] = [{"params": decayed}, *undecayed]
    if fit.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **options)
    try:
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise RecipeError('optimizer = "adamw8bit" needs bitsandbytes: pip install bitsandbytes') from None
    return AdamW8bit(groups, **options)


def has_state(folder: Path) -> bool:
    """Whether `folder` holds a state from which a run can resume."""
    return (folder / FILE).is_file() or (folder / PORTABLE).is_file()


def to_half(tensor: Tensor) -> Tensor:
    """A tensor in float16, which has three bits more than bfloat16, or in bfloat16 if a value exceeds its range."""
    small = tensor.to(torch.float16)
    return small if small.isfinite().all() else tensor.to(torch.bfloat16)
