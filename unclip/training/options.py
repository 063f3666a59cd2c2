"""The options of a training run, and what runs of all kinds check."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unclip.errors import CheckpointError, InputError, TrainingError, is_out_of_memory
from unclip.system.device import own_device, pick_dtype
from unclip.system.processes import Processes
from unclip.training.state import PORTABLE, has_state

CONFIGURED = {"bf16": "bfloat16", "fp16": "float16"}
"""Precisions that a configuration of accelerate names; its "no" says nothing, since it is the default."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of a training run.

    steps, minutes: length of each stage's run, resumed parts included; by default, the recipe's steps.
    resume: continue the runs in the output folder.
    init: a model whose weights the stages start from, and whose CLIP is used if none has been trained here. A published
        model, or one with `lora`, is fine-tuned (`training.fine_tuning`).
    lora: the rank of LoRA layers to fine-tune `init` with; None trains all weights.
    distill: "guidance" or "consistency": train a copy of a stage of `teacher` that samples with fewer evaluations
        (`training.distillation`).
    teacher: the model whose stage is distilled.
    data: a folder of images or tar shards, in the place of the recipe's; for a distillation, also a file of prompts.
    prior, image_encoder: of a published model that lacks them, as for `Unclip.from_pretrained`.
    skip_bad: train without the images that cannot be read; otherwise, they are an error.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    dtype: precision of the activations, and of frozen networks in fine-tuning: "auto", "float32", "bfloat16", or on a
        GPU "float16", whose loss is scaled. "auto" follows a configuration of accelerate that names a half precision.
    accumulation: parts of a batch that each process computes one after the other, with the memory of one. The result
        does not depend on it.
    shard: divide the weights, their gradients and moments among the processes (FSDP).
    quiet: show no progress bar and no notes.
    """

    steps: int | None = None
    minutes: float | None = None
    resume: bool = False
    init: str | Path | None = None
    lora: int | None = None
    distill: str | None = None
    teacher: str | Path | None = None
    data: str | Path | None = None
    prior: str | Path | None = None
    image_encoder: str | Path | None = None
    skip_bad: bool = False
    device: str = "auto"
    dtype: str = "auto"
    accumulation: int = 1
    shard: bool = False
    quiet: bool = False

    def pick_device(self) -> torch.device:
        """The device; of several processes, each has a GPU of its own. Raises InputError if there is none."""
        return own_device(self.device, Processes.current())

    def precision(self, device: torch.device) -> torch.dtype:
        """The precision on a device. Raises InputError for one that training does not run in there."""
        configured = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        dtype = CONFIGURED.get(configured, "auto") if self.dtype == "auto" else self.dtype
        if dtype == "float16" and device.type != "cuda":
            raise InputError("training in float16 needs a GPU with CUDA: use --dtype bfloat16 or float32")
        return pick_dtype(dtype, device)

    def for_process(self, processes: Processes) -> "TrainingOptions":
        """These options for one of several processes: only the main one prints.

        Raises InputError if a process that is alone should share its weights.
        """
        if self.shard and processes.count == 1:
            raise InputError("--shard-weights divides them among processes: add --processes N, or leave it out")
        return self if processes.is_main else replace(self, quiet=True)


@contextmanager
def explained_memory_errors(stage: str, smaller: str = "use a smaller network") -> Iterator[None]:
    """Raise TrainingError in the place of an error that says that the memory is used up. smaller: a further remedy."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fix = f"lower batch_size, or {smaller}, in the recipe"
        raise TrainingError(f"the {stage} ran out of memory: {fix}") from error


def check_no_state(stages: Sequence[str], out: Path) -> None:
    """Raise InputError if a stage has a state in the output folder: a new run would replace it."""
    if existing := [out / name for name in stages if has_state(out / name)]:
        raise InputError(f"{existing[0]} holds a run already: add --resume to continue, or choose another --out")


def stages_to_resume(stages: Sequence[str], out: Path) -> list[str]:
    """The stages that have a state; an interrupted run of all stages may not have reached the later ones.

    Raises CheckpointError if none has.
    """
    found = [name for name in stages if has_state(out / name)]
    if not found:
        folders = " or ".join(str(out / name) for name in stages)
        raise CheckpointError(f"nothing to resume in {folders}: leave out --resume, or copy a {PORTABLE} there")
    return found
