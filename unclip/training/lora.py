"""LoRA layers: added to a frozen network, trained, and saved in a small file that loads with the checkpoint.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685). The layers are peft's.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as serialize
from torch import nn

from unclip.errors import InputError, RecipeError
from unclip.requests.values import show
from unclip.system.files import write_atomic

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
"""The layers that LoRA changes by default, as in diffusers' examples for Kandinsky: those of the attention."""


@dataclass(frozen=True)
class LoraSettings:
    """rank: of the changes. alpha: they are scaled by alpha / rank. targets: the ends of the layers' names."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = ATTENTION


def check_lora(rank: int) -> None:
    """Raise InputError for a rank below 1, or if peft is not installed."""
    if rank < 1:
        raise InputError(f"--lora {rank}: the rank must be at least 1, such as --lora 8")
    if importlib.util.find_spec("peft") is None:
        raise InputError("LoRA needs peft: pip install 'unclip[lora]', or train without --lora")


def add_lora(network: nn.Module, settings: LoraSettings, where: str) -> None:
    """Add LoRA layers, which change nothing yet, to a frozen network. Their weights are float32 and have gradients.

    where: the recipe's file and table, for messages. Raises RecipeError for targets that the network does not have.
    """
    from peft import LoraConfig, inject_adapter_in_model

    kinds = nn.Linear | nn.Conv2d
    layers = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    for target in settings.targets:
        if settings.targets != ATTENTION and not any(f".{name}".endswith(f".{target}") for name in layers):
            raise RecipeError(
                f"{where}: no linear layer or convolution of the network ends with {show(target)} in targets"
            )
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets))  # pyright: ignore[reportArgumentType]
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def save_lora(network: nn.Module, path: Path, prefix: str, settings: LoraSettings, metadata: Mapping[str, str]) -> None:
    """Write the LoRA layers of a network as safetensors, with the names of diffusers and peft.

    prefix: "unet" or "prior", before the names of modules. metadata: further entries of the file's own.
    """
    from peft.utils import get_peft_model_state_dict

    found = get_peft_model_state_dict(network)
    tensors = {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in found.items()}
    modules = sorted({name.partition(".lora_")[0] for name in tensors})
    tensors |= {f"{module}.alpha": torch.tensor(float(settings.alpha)) for module in modules}
    write_atomic(path, serialize(tensors, metadata={"format": "pt", **metadata, **_adapter(prefix, settings, modules)}))


def _adapter(prefix: str, settings: LoraSettings, modules: Sequence[str]) -> dict[str, str]:
    """The metadata from which diffusers makes peft's config."""
    targets = [module.removeprefix(f"{prefix}.") for module in modules]
    config = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": targets,
        "bias": "none",
        "rank_pattern": {},  # diffusers 0.37 looks for it
        "alpha_pattern": {},
    }
    return {"lora_adapter_metadata": json.dumps({f"{prefix}.{key}": value for key, value in config.items()})}
