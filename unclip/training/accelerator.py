"""accelerate's part in a run: devices, processes, precision."""

import os
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs

from unclip.errors import RecipeError
from unclip.system.device import has_native_bfloat16
from unclip.system.processes import Processes

PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
"""accelerate's names of the mixed precisions. Weights, average and moments stay in float32."""
UNSUPPORTED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""What a configuration of accelerate may ask for, by its environment variable."""
TIMEOUT = timedelta(hours=1)
"""For which processes wait for one another, for example while the main one samples images or writes a state."""


def connect(device: torch.device) -> Processes:
    """The processes of this run, after they have met. Raises RecipeError if accelerate counts others."""
    _set_device(device)
    processes = Processes.current()
    processes.check()
    if processes.count > 1:
        AcceleratorState._reset_state(reset_partial_state=True)
        state = PartialState(cpu=device.type == "cpu", **InitProcessGroupKwargs(timeout=TIMEOUT).to_kwargs())
        _check_count(state.num_processes, processes)
    return processes


def new_accelerator(device: torch.device, dtype: torch.dtype | None, processes: Processes) -> Accelerator:
    """The accelerator of a run. dtype: as in `loop.Session`."""
    _set_device(device)
    if dtype is None:
        dtype = torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run in this process had another precision
    warnings.filterwarnings("ignore", ".*all_gather is deprecated", FutureWarning)  # of open_clip's loss
    if chosen := next((name for variable, name in UNSUPPORTED.items() if os.environ.get(variable) == "true"), None):
        raise RecipeError(
            f"{chosen} is not supported: the losses use weights outside of the network's forward pass, which are in "
            "parts there; every process holds all weights here: configure accelerate for plain multi-GPU"
        )
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=PRECISIONS.get(dtype, "no"),
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the loop divides batches
        kwargs_handlers=[
            # Of some networks not all weights take part, or take part outside of `forward`. Buffers are constant.
            DistributedDataParallelKwargs(static_graph=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=TIMEOUT),
        ],
    )
    _check_count(accelerator.num_processes, processes)
    return accelerator


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


def _set_device(device: torch.device) -> None:
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
