"""This project's own layout: as `unclip train` writes it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from unclip.checkpoints.index import INDEX
from unclip.checkpoints.loader import Loader
from unclip.checkpoints.networks import empty_network, shapes_of
from unclip.checkpoints.tensors import check_fit, read_tensors, tensor_shapes
from unclip.diffusion.codecs import codec_from_config
from unclip.errors import CheckpointError, RequestError
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.stage import Stage
from unclip.models.clip import Clip
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.projection import TextProjection
from unclip.models.text_encoder import TextEncoder
from unclip.models.upsampler import Upsampler
from unclip.requests.request import Request
from unclip.requests.values import parse_size
from unclip.system.files import read_json


def load_own(index: Mapping[str, Any], loader: Loader, name: str, revision: str | None) -> UnclipModel:
    """Read a checkpoint of this layout. Raises CheckpointError for what is missing or damaged."""
    folder = loader.folder
    stages = {part: settings(folder, index, part) for part in ("prior", "decoder")}
    if "upsampler" in index["stages"]:
        stages["upsampler"] = settings(folder, index, "upsampler")

    def stage(part: str, module: nn.Module, **shape: Any) -> Stage:
        defaults = {key: stages[part][key] for key in ("sampler", "steps", "guidance")}
        return Stage(part, module, loader.schedule(part), **shape, **defaults)

    def pictures(part: str, unet: nn.Module) -> dict[str, Any]:
        space, shape = stages[part]["codec"], stages[part]["shape"]
        if unet.config.out_channels not in (shape[0], 2 * shape[0]):  # twice as many with a learned variance
            channels = unet.config.out_channels
            raise CheckpointError(f"{folder / INDEX}: the codec of the {part} does not fit its {channels} channels")
        return {"shape": shape, "codec": space}

    clip = load_clip(loader)
    prior_network = Prior(loader.network("prior", PriorTransformer))
    prior = DiffusionPrior(stage("prior", prior_network, shape=(clip.config.embed_dim,)))
    unet = loader.network("decoder", UNet2DConditionModel)
    drawn = pictures("decoder", unet)
    projection = loader.network("text_proj", TextProjection, small=True)
    own_text = loader.network("decoder_text", TextEncoder, small=True) if "decoder_text" in index else None
    decoder = stage("decoder", Decoder(projection, unet, drawn["shape"][0], own_text), **drawn)
    upsamplers = []
    if "upsampler" in stages:
        unet = loader.network("upsampler", UNet2DModel)
        drawn, difference = pictures("upsampler", unet), stages["upsampler"]["difference"]
        upsampler = stage("upsampler", Upsampler(unet, difference), **drawn)
        says = upsampler.schedule.prediction_type, unet.config.out_channels
        if difference and says != ("sample", upsampler.shape[0]):
            raise CheckpointError(
                f"{folder / INDEX}, upsampler: difference needs a scheduler that predicts sample and a network without "
                "a variance; get the checkpoint anew"
            )
        upsamplers.append(upsampler)
    words, shown_above = read_vocabulary(folder), stages["decoder"]["shown_above"]
    return UnclipModel(
        name,
        clip,
        prior,
        decoder,
        tuple(upsamplers),
        loader.device,
        vocabulary=words,
        shown_above=shown_above,
        revision=revision,
        folder=folder,
    )


def load_clip(loader: Loader) -> Clip:
    """Both towers of CLIP, in float32."""
    folder = loader.folder / "clip"
    clip = empty_network(folder)
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{folder} holds a {type(clip).__name__}, not a Clip; get the checkpoint anew")
    check_fit(folder, shapes_of(clip), tensor_shapes(folder))
    return loader.clip(clip, partial(read_tensors, folder, loader.device, torch.float32))


def settings(folder: Path, index: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A stage's sampler, steps and guidance, and of one that draws pictures the codec and the shape in its space; of a
    decoder, from which similarity on a picture shows what a prompt says (of older ones, never); of an upsampler,
    whether it adds what it says to the picture that it was given (of older ones, none does).

    Raises CheckpointError for anything that is missing or that no stage can have.
    """
    stages = index.get("stages")
    stage = stages.get(part) if isinstance(stages, dict) else None
    if not isinstance(stage, dict):
        raise CheckpointError(f"{folder / INDEX} lists no {part}: train it, or get the checkpoint anew")
    for key in ("sampler", "steps", "guidance", *(("codec", "size") if part != "prior" else ())):
        if stage.get(key) is None:
            raise CheckpointError(f"{folder / INDEX} does not say the {key!r} of the {part}; get the checkpoint anew")
    try:
        request = Request(prompt=part, **{key: stage[key] for key in ("sampler", "steps", "guidance")})
        found = {"sampler": request.sampler, "steps": request.steps, "guidance": request.guidance}
        if part != "prior":
            width, height = parse_size(stage["size"])
            found["codec"] = codec_from_config(stage["codec"])
            found["shape"] = found["codec"].latent_shape(height, width)
        found["difference"] = stage.get("difference", False)
        if found["difference"] not in ((True, False) if part == "upsampler" else (False,)):
            raise CheckpointError(f"difference = {found['difference']!r} is nothing that it can have")
        found["shown_above"] = stage.get("shown_above", 1.0)
        if type(found["shown_above"]) not in (int, float) or not 0 <= found["shown_above"] <= 1:
            raise CheckpointError(f"shown_above = {found['shown_above']!r} should be from 0 to 1")
    except (RequestError, CheckpointError, TypeError, ZeroDivisionError) as error:  # the last two: an odd codec
        raise CheckpointError(f"{folder / INDEX}, {part}: {error}; get the checkpoint anew") from None
    return found


def read_vocabulary(folder: Path) -> frozenset[str] | None:
    """The words of the model's training captions; None where they were not a closed set."""
    path = folder / "vocabulary.json"
    if not path.exists():
        return None
    words = read_json(path).get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{path} is damaged: it holds no list of words; get the checkpoint anew")
    return frozenset(words)
