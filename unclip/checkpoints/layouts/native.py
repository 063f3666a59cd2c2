"""This project's own checkpoint layout, as `unclip train` writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.decoder_copy import NAME as INPAINTING
from unclip.checkpoints.decoder_copy import open_copy
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.networks import build_empty_network, class_name, parameter_shapes
from unclip.checkpoints.settings import (
    FIX,
    AutoregressiveSettings,
    DecoderSettings,
    ImageStageSettings,
    InpaintingDecoderSettings,
    SecondUpsamplerSettings,
    StageSettings,
    UpsamplerSettings,
    Vocabulary,
    validate,
)
from unclip.checkpoints.tensors import check_shapes, read_tensors, tensor_shapes
from unclip.diffusion.codecs import Identity
from unclip.errors import CheckpointError, RequestError
from unclip.inference.encoder import Encoder
from unclip.inference.model import UnclipModel
from unclip.inference.priors import AutoregressivePrior, DiffusionPrior
from unclip.inference.speeds import NATIVE
from unclip.inference.stage import Stage
from unclip.models.autoregressive_prior import AutoregressiveTransformer, clip_sizes
from unclip.models.clip import Clip, ClipConfig
from unclip.models.config import diffusers_config
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.projection import TextProjection
from unclip.models.restorer import FeedForwardUpsampler, Restorer
from unclip.models.text_encoder import TransformerTextEncoder
from unclip.models.upsampler import Upsampler
from unclip.requests.values import size_text
from unclip.system.files import read_json

STAGES: dict[str, type[StageSettings] | type[AutoregressiveSettings]] = {
    "prior": StageSettings,
    "autoregressive_prior": AutoregressiveSettings,
    "decoder": DecoderSettings,
    INPAINTING: InpaintingDecoderSettings,
    "upsampler": UpsamplerSettings,
    "second_upsampler": SecondUpsamplerSettings,
}


def load_native(index: Mapping[str, Any], loader: ComponentLoader, name: str, revision: str | None) -> UnclipModel:
    """Load a checkpoint of this layout. index: its model_index.json. Raises CheckpointError if it is damaged."""
    path = loader.folder / INDEX
    listed = {*index, *(index["stages"] if isinstance(index["stages"], dict) else ())}
    prior_settings = autoregressive_settings = None
    if "prior" in listed or "autoregressive_prior" not in listed:  # one of the two suffices
        prior_settings = read_stage(index, "prior", path)
    if "autoregressive_prior" in listed:
        autoregressive_settings = read_stage(index, "autoregressive_prior", path)
    decoder_settings = read_stage(index, "decoder", path)
    assert isinstance(decoder_settings, DecoderSettings)

    clip = load_clip(loader)
    prior = autoregressive_prior = None
    if isinstance(prior_settings, StageSettings):
        network = Prior(loader.load_network("prior", PriorTransformer))
        prior = DiffusionPrior(build_stage(loader, "prior", network, prior_settings, (clip.config.embed_dim,)))
    if isinstance(autoregressive_settings, AutoregressiveSettings):
        autoregressive_prior = load_autoregressive_prior(loader, autoregressive_settings, clip.config)
    decoder = load_decoder(loader, decoder_settings, has_text_encoder="decoder_text" in index)
    share_token_embedding(decoder.network.text_encoder, clip)
    inpainting_decoder, shown_above = None, decoder_settings.shown_above
    if INPAINTING in listed:
        settings = read_stage(index, INPAINTING, path)
        assert isinstance(settings, InpaintingDecoderSettings)
        inpainting_decoder, shown_above = load_inpainting_decoder(loader, decoder, settings), settings.shown_above
    words = read_vocabulary(loader.folder)
    upsamplers = ()
    if "upsampler" in index["stages"]:
        upsamplers = (load_upsampler(loader, index),)
    if "second_upsampler" in index["stages"]:
        upsamplers = (*upsamplers, load_second_upsampler(loader, index, upsamplers))
    return UnclipModel(
        name,
        clip,
        prior,
        decoder,
        upsamplers,
        loader.device,
        vocabulary=None if words is None else frozenset(words.words),
        styles=() if words is None else tuple(words.styles),
        shown_above=shown_above,
        revision=revision,
        folder=loader.folder,
        autoregressive_prior=autoregressive_prior,
        speeds=NATIVE,
        inpainting_decoder=inpainting_decoder,
    )


def load_clip(loader: ComponentLoader) -> Clip:
    """CLIP with both encoders, in float32."""
    folder = loader.folder / "clip"
    clip = build_empty_network(folder)
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{folder} holds a {class_name(clip)}, not a Clip; {FIX}")
    check_shapes(folder, parameter_shapes(clip), tensor_shapes(folder))
    return loader.load_clip(clip, partial(read_tensors, folder, loader.device, torch.float32))


def load_autoregressive_prior(
    loader: ComponentLoader, settings: AutoregressiveSettings, clip: ClipConfig
) -> AutoregressivePrior:
    """The autoregressive prior. Raises CheckpointError if it does not fit CLIP."""
    network = loader.load_network("autoregressive_prior", AutoregressiveTransformer)
    for key, value in clip_sizes(clip).items():
        if (found := getattr(network.config, key)) != value:
            where = loader.folder / "autoregressive_prior" / "config.json"
            raise CheckpointError(f"{where}: {key} is {found}, and CLIP's is {value}; {FIX}")
    return AutoregressivePrior(
        network,
        guidance=settings.guidance,
        temperature=settings.temperature,
        top_p=settings.top_p,
        dot_from=settings.dot_from,
    )


def load_decoder(loader: ComponentLoader, settings: DecoderSettings, has_text_encoder: bool) -> Stage:
    """The decoder's stage. has_text_encoder: whether the decoder has a text encoder of its own."""
    unet = loader.load_network("decoder", UNet2DConditionModel)
    shape = check_channels(loader, "decoder", unet, settings)
    projection = loader.load_network("text_proj", TextProjection, small=True)
    text_encoder = None
    if has_text_encoder:
        text_encoder = loader.load_network("decoder_text", TransformerTextEncoder, small=True)
    return build_stage(loader, "decoder", Decoder(projection, unet, shape[0], text_encoder), settings, shape)


def share_token_embedding(encoder: TransformerTextEncoder | None, clip: Clip) -> None:
    """Let the decoder's text encoder use the memory of CLIP's token embedding if the two are equal.

    They are not while CLIP is offloaded, and if they differ in device or precision.
    """
    if encoder is None or clip.text is None:
        return
    own, theirs = encoder.transformer.token_embedding, clip.text.token_embedding
    same_kind = own.weight.device == theirs.weight.device and own.weight.dtype == theirs.weight.dtype
    if same_kind and torch.equal(own.weight, theirs.weight):
        own.weight = theirs.weight


def load_inpainting_decoder(loader: ComponentLoader, decoder: Stage, settings: InpaintingDecoderSettings) -> Stage:
    """The stage of the fine-tuned copy of a loaded decoder. It shares the memory of what they have in common."""
    copy, base = open_copy(loader.folder), decoder.network
    text_encoder = base.text_encoder
    if text_encoder is not None:
        text_encoder = loader.load_copy("decoder_text", text_encoder, copy, small=True)
    unet = loader.load_copy("decoder", base.unet, copy)
    projection = loader.load_copy("text_proj", base.projection, copy, small=True)
    loader.on_loaded()
    return replace(
        decoder,
        network=Decoder(projection, unet, base.channels, text_encoder),
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=settings.guidance,
    )


def load_decoder_alone(loader: ComponentLoader) -> Stage:
    """The decoder's stage of a checkpoint whose other stages may not be trained yet.

    Raises CheckpointError if it is damaged, or has no decoder.
    """
    path = loader.folder / INDEX
    index = read_json(path)
    settings = read_stage(index, "decoder", path)
    assert isinstance(settings, DecoderSettings)
    return load_decoder(loader, settings, has_text_encoder="decoder_text" in index)


def load_decoder_and_encoder(loader: ComponentLoader) -> tuple[Stage, Encoder]:
    """The decoder's stage, and CLIP, of a checkpoint whose other stages may not be trained yet.

    Raises CheckpointError if it is damaged, or has no decoder.
    """
    decoder = load_decoder_alone(loader)
    return decoder, Encoder(loader.folder.name, load_clip(loader), loader.device)


def load_upsampler(loader: ComponentLoader, index: Mapping[str, Any]) -> Stage:
    """The upsampler's stage. index: the model_index.json.

    Raises CheckpointError if it is missing or damaged, or predicts differences of anything but x0.
    """
    settings = read_stage(index, "upsampler", loader.folder / INDEX)
    assert isinstance(settings, UpsamplerSettings)
    unet = loader.load_network("upsampler", UNet2DModel)
    shape = check_channels(loader, "upsampler", unet, settings)
    stage = build_stage(loader, "upsampler", Upsampler(unet, settings.difference), settings, shape)
    output = stage.schedule.prediction_type, diffusers_config(unet).out_channels
    if settings.difference and output != ("sample", shape[0]):
        raise CheckpointError(
            f"{loader.folder / INDEX}, upsampler: difference needs a scheduler that predicts sample and a network "
            f"without a learned variance; {FIX}"
        )
    return stage


def load_second_upsampler(loader: ComponentLoader, index: Mapping[str, Any], before: Sequence[Stage]) -> Stage:
    """The second upsampler's stage. before: the first one's.

    Raises CheckpointError if there is no first one, or its images are not smaller by the codec's factor.
    """
    path = loader.folder / INDEX
    settings = read_stage(index, "second_upsampler", path)
    assert isinstance(settings, SecondUpsamplerSettings)
    if not before:
        raise CheckpointError(f"{path} lists a second_upsampler, but no upsampler before it; {FIX}")
    (width, height), factor = settings.size, settings.codec.factor
    if (width, height) != tuple(factor * side for side in before[-1].size) or any(s % 2 for s in before[-1].size):
        raise CheckpointError(
            f"{path}, second_upsampler: its size {size_text(settings.size)} and its codec do not fit the upsampler's "
            f"images of {size_text(before[-1].size)}; {FIX}"
        )
    restorer = loader.load_network("second_upsampler", Restorer)
    shape = settings.latent_shape
    if restorer.config.channels != shape[0]:
        raise CheckpointError(
            f"{path}: the codec of the second_upsampler does not fit its {restorer.config.channels} channels; {FIX}"
        )
    stage = build_stage(loader, "second_upsampler", FeedForwardUpsampler(restorer), settings, shape)
    if stage.schedule.prediction_type != "sample":
        raise CheckpointError(f"{path}, second_upsampler: its scheduler needs to predict sample; {FIX}")
    return replace(stage, name="second upsampler", feed_forward=True)


def build_stage(
    loader: ComponentLoader, name: str, network: nn.Module, settings: StageSettings, shape: tuple[int, ...]
) -> Stage:
    """A stage with the schedule of the checkpoint. shape: of one item in the codec's space."""
    return Stage(
        name,
        network,
        loader.load_schedule(f"{name}_scheduler"),
        shape,
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=settings.guidance,
        codec=settings.codec if isinstance(settings, ImageStageSettings) else Identity(),
    )


def check_channels(
    loader: ComponentLoader, name: str, unet: nn.Module, settings: ImageStageSettings
) -> tuple[int, int, int]:
    """The latent shape c, h, w of a stage. Raises CheckpointError if its U-Net has other channels."""
    shape = settings.latent_shape
    channels = diffusers_config(unet).out_channels
    if channels not in (shape[0], 2 * shape[0]):  # twice as many with a learned variance
        raise CheckpointError(
            f"{loader.folder / INDEX}: the codec of the {name} does not fit its {channels} channels; {FIX}"
        )
    return shape


def read_stage(index: Mapping[str, Any], name: str, path: Path) -> StageSettings | AutoregressiveSettings:
    """The settings of a stage in model_index.json. path: of that file, for messages. Raises CheckpointError."""
    stages = index.get("stages")
    stage = stages.get(name) if isinstance(stages, dict) else None
    if not isinstance(stage, dict):
        raise CheckpointError(f"{path} lists no {name}: train it, or {FIX}")
    given = {key: value for key, value in stage.items() if value is not None}
    settings = validate(STAGES[name], given, f"{path}, {name}")
    if isinstance(settings, ImageStageSettings):
        try:
            _ = settings.latent_shape
        except RequestError as error:
            raise CheckpointError(f"{path}, {name}: {error}; {FIX}") from None
    return settings


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The words and styles of the training data; None if the checkpoint has no closed vocabulary."""
    path = folder / "vocabulary.json"
    return validate(Vocabulary, read_json(path), str(path)) if path.exists() else None
