"""The pipelines whose stages are measured: this project's and diffusers'."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from unclip.benchmark.settings import PROMPT
from unclip.errors import InputError

LIBRARIES = ("unclip", "diffusers")


@dataclass(frozen=True)
class StageBenchmark:
    """The settings of a measurement.

    Attributes:
        library: The library that runs the model; diffusers runs as its `from_pretrained` sets it up.
        folder: The checkpoint.
        batch_size: Images generated at a time.
        steps: Timed steps of each stage, at least two; the first is slower, since it has no memory to reuse.
        device, dtype, memory: As in `Unclip.from_pretrained`.
    """

    library: str
    folder: str
    batch_size: int = 1
    steps: int = 7
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline that is ready to be measured.

    Attributes:
        networks: Stage -> network.
        steps: Stage -> the model's default number of steps.
        generate: Generates a batch with the given number of steps in every stage.
        dtype: The precision of the networks.
        device: The device of the networks.
    """

    networks: Mapping[str, Any]
    steps: Mapping[str, int]
    generate: Callable[[int], None]
    dtype: Any
    device: Any


def load_pipeline(settings: StageBenchmark) -> LoadedPipeline:
    """Load the checkpoint with the chosen library."""
    return _load_unclip(settings) if settings.library == "unclip" else _load_diffusers(settings)


def check_library(index: Mapping[str, Any]) -> None:
    """Raise InputError unless diffusers can run the model with this model_index.json."""
    if index.get("_class_name") != "UnCLIPPipeline":
        raise InputError("diffusers runs published checkpoints only: give one with --model")
    if find_spec("transformers") is None:
        raise InputError("diffusers needs transformers for this: pip install transformers")


def _load_unclip(settings: StageBenchmark) -> LoadedPipeline:
    """Load this project's pipeline."""
    from unclip.modes.resolve import model_defaults
    from unclip.pipeline import Unclip
    from unclip.requests.request import Request

    pipe = Unclip.from_pretrained(settings.folder, settings.device, settings.dtype, settings.memory)
    model: Any = pipe.model
    prior, defaults = model.require_prior(), model_defaults(model)
    networks = {
        "text": model.clip.text,
        "prior": prior.stage.network.transformer,
        "decoder": model.decoder.network.unet,
    }
    steps = {"text": 2, "prior": defaults["prior_steps"], "decoder": defaults["steps"]}
    for stage in model.upsamplers:
        networks[stage.name], steps[stage.name] = stage.network.unet, stage.steps
        if stage.last_network is not None:
            networks[f"{stage.name}, last"], steps[f"{stage.name}, last"] = stage.last_network.unet, 1
            steps[stage.name] -= 1

    def generate(count: int) -> None:
        request = Request(
            prompt=PROMPT, n=settings.batch_size, seed=0, steps=count, prior_steps=count, upsampler_steps=count
        )
        pipe.generate(request, batch_size=settings.batch_size)

    dtype = model.decoder.network.projection.null_embed.dtype
    return LoadedPipeline(networks, steps, generate, dtype, model.device)


def _load_diffusers(settings: StageBenchmark) -> LoadedPipeline:
    """Load diffusers' pipeline for the published layout, as its users get it."""
    import torch
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    from unclip.system.device import pick_device

    diffusers: Any = import_module("diffusers")
    device = pick_device(settings.device)
    dtype = torch.float32 if settings.dtype == "auto" else getattr(torch, settings.dtype)
    classes: dict[str, Any] = {
        "prior": diffusers.PriorTransformer,
        "decoder": diffusers.UNet2DConditionModel,
        "text_encoder": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "text_proj": sys.modules[diffusers.UnCLIPPipeline.__module__].UnCLIPTextProjModel,
        "super_res_first": diffusers.UNet2DModel,
        "super_res_last": diffusers.UNet2DModel,
        **{f"{stage}_scheduler": diffusers.UnCLIPScheduler for stage in ("prior", "decoder", "super_res")},
    }
    # Components are loaded one by one, since not every release of diffusers finds the class of text_proj by its index.
    components = {name: cls.from_pretrained(settings.folder, subfolder=name) for name, cls in classes.items()}
    pipe = diffusers.UnCLIPPipeline(**components).to(device, dtype)  # transformers would keep the file's precision
    pipe.set_progress_bar_config(disable=True)
    networks = {
        "text": pipe.text_encoder,
        "prior": pipe.prior,
        "decoder": pipe.decoder,
        "upsampler": pipe.super_res_first,
        "upsampler, last": pipe.super_res_last,
    }
    steps = {"text": 2, "prior": 25, "decoder": 25, "upsampler": 6, "upsampler, last": 1}

    def generate(count: int) -> None:
        pipe(
            [PROMPT] * settings.batch_size,
            generator=[torch.Generator("cpu").manual_seed(i) for i in range(settings.batch_size)],
            prior_num_inference_steps=count,
            decoder_num_inference_steps=count,
            super_res_num_inference_steps=count,
        )

    return LoadedPipeline(networks, steps, generate, dtype, device)
