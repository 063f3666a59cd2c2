"""accelerate's part in a run: processes, their devices, and the configuration of `accelerate launch`."""

import os
import warnings
from datetime import timedelta

import torch
from accelerate.state import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from torch.distributed.fsdp import CPUOffloadPolicy

from unclip.errors import RecipeError
from unclip.system.processes import Processes, without_greetings
from unclip.training.sharding import Sharding

UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed is not supported: use FSDP with fsdp_version 2, or plain multi-GPU",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM is not supported: use FSDP with fsdp_version 2, or plain multi-GPU",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism_config is not supported: use FSDP with fsdp_version 2",
}
"""What a configuration of accelerate may ask for, by its environment variable, and what to do instead."""
TIMEOUT = timedelta(hours=1)
"""For which processes wait for one another, for example while the main one samples images or writes a state."""


def connect(device: torch.device) -> Processes:
    """The processes of this run, after they have met. Raises RecipeError if accelerate counts others."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    warnings.filterwarnings("ignore", ".*all_gather is deprecated", FutureWarning)  # of open_clip's loss
    warnings.filterwarnings("ignore", ".*broadcast_buffers. is deprecated", FutureWarning)  # from torch 2.14 on
    _check_configuration()
    processes = Processes.current()
    processes.check()
    if processes.count > 1 and not torch.distributed.is_initialized():
        PartialState._reset_state()
        with without_greetings():
            state = PartialState(cpu=device.type == "cpu", **InitProcessGroupKwargs(timeout=TIMEOUT).to_kwargs())
        _check_count(state.num_processes, processes)
    return processes


def _check_configuration() -> None:
    """Raise RecipeError if accelerate's configuration asks for what this project does not do."""
    found = [text for name, text in UNSUPPORTED.items() if os.environ.get(name) == "true"]
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        found.append("dynamo_backend is not supported: set compile = true in the recipe")
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp8":
        found.append("mixed_precision: fp8 is not supported: use bf16 or fp16")
    if found:
        raise RecipeError(f"accelerate's configuration: {found[0]}")


def find_sharding(asked: bool, processes: Processes) -> Sharding | None:
    """How weights are divided among processes: as accelerate's configuration says, or by blocks if it was `asked` for.

    None keeps all weights in every process; a single one has all in any case. Raises RecipeError for a configuration
    that is not supported.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return Sharding() if asked and processes.count > 1 else None
    plugin = FullyShardedDataParallelPlugin()
    unsupported = {
        "fsdp_version: 1 is not supported: set fsdp_version: 2": plugin.fsdp_version != 2,
        "fsdp_offload_params is not supported: leave it out": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_activation_checkpointing is not supported: where a recipe has `checkpointing`, set it there": (
            plugin.activation_checkpointing
        ),
        "fsdp_ignored_modules is not supported: leave it out": plugin.ignored_modules is not None,
    }
    if message := next((text for text, found in unsupported.items() if found), None):
        raise RecipeError(f"accelerate's configuration: {message}")
    if processes.count == 1:
        return None
    return Sharding(
        classes=tuple(plugin.transformer_cls_names_to_wrap or ()),
        least=plugin.min_num_params or 0,
        reshard=bool(plugin.reshard_after_forward),
    )


def _check_count(found: int, processes: Processes) -> None:
    if found != processes.count:
        raise RecipeError(
            f"accelerate counts {found} processes, and the environment {processes.count}: start them by --processes, "
            "torchrun or accelerate launch"
        )


def check_division(batch_size: int, processes: Processes, accumulation: int, where: str = "the recipe") -> None:
    """Raise RecipeError unless a batch divides into equal parts. where: the recipe's file and table, for messages."""
    parts = processes.count * accumulation
    if batch_size % parts:
        smaller = batch_size // parts * parts
        fitting = f"{smaller} or {smaller + parts}" if smaller else f"{parts}"
        who = f"{processes.count} processes" if processes.count > 1 else "one process"
        division = who if accumulation == 1 else f"{who} in {accumulation} parts each"
        raise RecipeError(
            f"{where}: batch_size = {batch_size} is the whole batch, which {division} cannot divide equally: "
            f"set it to {fitting}, or use other numbers"
        )
