"""The pipelines whose stages are measured: this project's and diffusers'."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unclip.benchmark.settings import PROMPT
from unclip.checkpoints.families import PRIORS, is_kandinsky, is_native, is_stable_unclip, kandinsky_version
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.prior_repository import find_prior
from unclip.errors import InputError
from unclip.system.files import read_json

LIBRARIES = ("unclip", "diffusers")


@dataclass(frozen=True)
class StageBenchmark:
    """The settings of a measurement.

    Attributes:
        library: The library that runs the model; diffusers runs as its `from_pretrained` sets it up.
        folder: The checkpoint.
        batch_size: Images generated at a time.
        steps: Timed steps of each stage, at least two; the first is slower, since it has no memory to reuse.
        device, dtype, memory, prior: As in `Unclip.from_pretrained`.
    """

    library: str
    folder: str
    batch_size: int = 1
    steps: int = 7
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    prior: str | None = None


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline that is ready to be measured.

    Attributes:
        networks: Stage -> network. The small text encoder that a decoder has beside CLIP's is not among them.
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
    if is_native(index):
        raise InputError("diffusers runs published checkpoints only: give one with --model")
    if is_kandinsky(index) and "Inpaint" in str(index.get("_class_name")):
        raise InputError("the benchmark generates from text: give the decoder without inpainting inputs")
    if not is_kandinsky(index) and "prior" not in index:
        raise InputError("the benchmark generates from text: give a checkpoint with a prior")
    if find_spec("transformers") is None:
        raise InputError("diffusers needs transformers for this: pip install transformers")


def _load_unclip(settings: StageBenchmark) -> LoadedPipeline:
    """Load this project's pipeline."""
    from unclip.diffusion.codecs import Latents
    from unclip.modes.resolve import model_defaults
    from unclip.pipeline import Unclip
    from unclip.requests.request import Request

    pipe = Unclip.from_pretrained(
        settings.folder, settings.device, settings.dtype, settings.memory, prior=settings.prior
    )
    model: Any = pipe.model
    prior, defaults = model.require_prior(), model_defaults(model)
    networks = {"text": model.clip.text, "prior": prior.stage.network.transformer}
    steps = {"text": 2, "prior": defaults["prior_steps"], "decoder": defaults["steps"]}
    if model.decoder.network.guided_by_embedding:  # the image encoder makes the embedding to steer away from
        networks["image encoder"], steps["image encoder"] = model.clip.visual, 1
    networks["decoder"] = model.decoder.network.unet
    if isinstance(codec := model.decoder.codec, Latents):
        networks["autoencoder"], steps["autoencoder"] = codec.autoencoder.network.decoder, 1
    for stage in model.upsamplers[:1]:  # the default size; others run only where it is asked for
        networks[stage.name], steps[stage.name] = stage.network.unet, stage.steps
        if stage.last_network is not None:
            networks[f"{stage.name}, last"], steps[f"{stage.name}, last"] = stage.last_network.unet, 1
            steps[stage.name] -= 1

    def generate(count: int) -> None:
        request = Request(
            prompt=PROMPT, n=settings.batch_size, seed=0, steps=count, prior_steps=count, upsampler_steps=count
        )
        pipe.generate(request, batch_size=settings.batch_size)

    return LoadedPipeline(networks, steps, generate, model.decoder.dtype, model.device)


def _load_diffusers(settings: StageBenchmark) -> LoadedPipeline:
    """Load diffusers' pipeline for a published layout, as its users get it."""
    import torch

    from unclip.system.device import pick_device

    index = read_json(Path(settings.folder) / INDEX)
    load = _load_kandinsky if is_kandinsky(index) else _load_stable_unclip if is_stable_unclip(index) else _load_karlo
    dtype = torch.float32 if settings.dtype == "auto" else getattr(torch, settings.dtype)
    return load(settings, pick_device(settings.device), dtype)


def _load_karlo(settings: StageBenchmark, device: Any, dtype: Any) -> LoadedPipeline:
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    diffusers: Any = import_module("diffusers")
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
    pipe = _placed(diffusers.UnCLIPPipeline(**components), device, dtype)
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
            generator=_generators(settings),
            prior_num_inference_steps=count,
            decoder_num_inference_steps=count,
            super_res_num_inference_steps=count,
        )

    return LoadedPipeline(networks, steps, generate, dtype, device)


def _load_kandinsky(settings: StageBenchmark, device: Any, dtype: Any) -> LoadedPipeline:
    diffusers: Any = import_module("diffusers")
    folder = Path(settings.folder)
    version = kandinsky_version(read_json(folder / INDEX))
    kind = {"2.1": "Kandinsky", "2.2": "KandinskyV22"}[version]
    prior_folder = find_prior(folder, PRIORS[version], settings.prior)
    prior = _placed(getattr(diffusers, f"{kind}PriorPipeline").from_pretrained(prior_folder), device, dtype)
    cls = getattr(diffusers, f"{kind}Pipeline")
    parts = {}
    if version == "2.1":  # not every release of diffusers finds the class by its index
        texts = import_module(f"{cls.__module__.rpartition('.')[0]}.text_encoder")
        parts["text_encoder"] = texts.MultilingualCLIP.from_pretrained(folder / "text_encoder")
    decoder = _placed(cls.from_pretrained(folder, **parts), device, dtype)
    networks = {
        "text": prior.text_encoder,
        "prior": prior.prior,
        "image encoder": prior.image_encoder,
        "decoder": decoder.unet,
        "autoencoder": decoder.movq.decoder,
    }
    steps = {"text": 2, "prior": 25, "image encoder": 1, "decoder": 100, "autoencoder": 1}
    side = decoder.unet.config.sample_size * decoder.movq_scale_factor

    def generate(count: int) -> None:
        prompts = [PROMPT] * settings.batch_size
        embeds = prior(prompts, num_inference_steps=count, generator=_generators(settings))
        decoder(
            *([prompts] if version == "2.1" else []),
            **{name: embeds[name] for name in ("image_embeds", "negative_image_embeds")},
            height=side,
            width=side,
            num_inference_steps=count,
            generator=_generators(settings),
        )

    return LoadedPipeline(networks, steps, generate, dtype, device)


def _load_stable_unclip(settings: StageBenchmark, device: Any, dtype: Any) -> LoadedPipeline:
    diffusers: Any = import_module("diffusers")
    pipe = _placed(diffusers.StableUnCLIPPipeline.from_pretrained(settings.folder), device, dtype)
    # The PNDM of the published configs evaluates the network once more than it has steps, which a step's time must not.
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    networks = {
        "text": pipe.prior_text_encoder,
        "prior": pipe.prior,
        "decoder": pipe.unet,
        "autoencoder": pipe.vae.decoder,
    }
    steps = {"text": 2, "prior": 25, "decoder": 20, "autoencoder": 1}

    def generate(count: int) -> None:
        pipe(
            [PROMPT] * settings.batch_size,
            generator=_generators(settings),
            prior_num_inference_steps=count,
            num_inference_steps=count,
        )

    return LoadedPipeline(networks, steps, generate, dtype, device)


def _placed(pipe: Any, device: Any, dtype: Any) -> Any:
    """Move the pipeline to a device and one precision; transformers keeps the precision of the files."""
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device, dtype)


def _generators(settings: StageBenchmark) -> list[Any]:
    import torch

    return [torch.Generator("cpu").manual_seed(i) for i in range(settings.batch_size)]
