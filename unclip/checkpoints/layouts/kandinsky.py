"""The layout of Kandinsky: a decoder repository, and the repository of its prior with both CLIP encoders.

The decoder of version 2.1 is conditioned on text too, and has a text encoder of its own.

Razzhigaev et al. 2023, "Kandinsky: an Improved Text-to-Image Synthesis with Image Prior and Latent Diffusion"
(arXiv:2310.03502).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.families import kandinsky_version
from unclip.checkpoints.index import INDEX, component_classes
from unclip.checkpoints.layouts.karlo import build_stage, check_config
from unclip.checkpoints.settings import FIX
from unclip.checkpoints.transformers_clip import find_clip, prepare_clip
from unclip.checkpoints.transformers_xlm_roberta import prepare_xlm_roberta
from unclip.diffusion.codecs import Latents
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.inference.encoder import DecoderText
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.speeds import KANDINSKY
from unclip.inference.stage import Stage
from unclip.models.autoencoder import Autoencoder
from unclip.models.clip import Clip
from unclip.models.config import diffusers_config
from unclip.models.kandinsky_decoder import LATENT_CHANNELS, KandinskyDecoder
from unclip.models.prior import Prior
from unclip.models.xlm_roberta import XlmRobertaConfig, XlmRobertaTextEncoder, XlmRobertaTokenizer
from unclip.requests.values import show
from unclip.system.files import read_json

DECODER_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "movq": ("VQModel",),
    "scheduler": ("DDPMScheduler", "DDIMScheduler"),
}
TEXT_CLASSES = {  # of a decoder of version 2.1
    "text_encoder": ("MultilingualCLIP",),
    "tokenizer": ("XLMRobertaTokenizerFast", "XLMRobertaTokenizer"),
}
PRIOR_CLASSES = {
    "prior": ("PriorTransformer",),
    "image_encoder": ("CLIPVisionModelWithProjection",),
    "text_encoder": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": ("UnCLIPScheduler",),
}
CONTEXT_LENGTH = 77
"""Tokens of a prompt that the decoder's text encoder reads."""

# Published defaults: the pipelines of diffusers.
PRIOR = {"steps": 25, "guidance": 4.0}
DECODER = {"steps": 100, "guidance": 4.0}
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}


def load_kandinsky(
    index: Mapping[str, Any], loader: ComponentLoader, prior_loader: ComponentLoader, name: str, revision: str | None
) -> UnclipModel:
    """Load a checkpoint of this layout. Raises CheckpointError for missing, damaged or mismatched components.

    index: of the decoder's repository. loader, prior_loader: of the two repositories.
    """
    reads_text = kandinsky_version(index) == "2.1"
    check_classes(index, DECODER_CLASSES | (TEXT_CLASSES if reads_text else {}), loader)
    clip, prior = load_prior_repository(prior_loader)
    text = load_decoder_text(loader) if reads_text else None
    return UnclipModel(
        name,
        clip,
        prior,
        load_decoder(loader, clip, None if text is None else text.encoder.config),
        (),
        loader.device,
        revision=revision,
        folder=loader.folder,
        decoder_text=text,
        speeds=KANDINSKY,
    )


def load_prior_repository(loader: ComponentLoader) -> tuple[Clip, DiffusionPrior]:
    """Both encoders of CLIP, and the prior. Raises CheckpointError as `load_kandinsky` does."""
    check_classes(read_json(loader.folder / INDEX), PRIOR_CLASSES, loader)
    clip = loader.load_clip(*prepare_clip(find_clip(loader.folder, loader.folder), loader.device, loader.dtype))
    return clip, load_prior(loader, clip)


def check_classes(index: Mapping[str, Any], classes: Mapping[str, tuple[str, ...]], loader: ComponentLoader) -> None:
    """Raise CheckpointError for a model_index.json that lacks a component, or has another class of it."""
    path, components = loader.folder / INDEX, component_classes(dict(index))
    for component, allowed in classes.items():
        if (found := components.get(component)) is None:
            raise CheckpointError(f"{path} lists no {component}; {FIX}")
        if found not in allowed:
            raise CheckpointError(f"{path}: the {component} is a {show(found)}, not a {' or '.join(allowed)}; {FIX}")


def load_prior(loader: ComponentLoader, clip: Clip) -> DiffusionPrior:
    """The prior. It samples one embedding, as other software does: the same seed gives the same image."""
    dim = clip.config.embed_dim
    transformer = loader.load_network("prior", PriorTransformer)
    sizes = {"embedding_dim": dim, "num_embeddings": clip.config.context_length, "additional_embeddings": 4}
    check_config(loader, "prior", transformer, sizes)
    schedule = loader.load_schedule("scheduler")
    return DiffusionPrior(build_stage("prior", Prior(transformer), schedule, (dim,), **PRIOR), best_of=1)


def load_decoder_text(loader: ComponentLoader) -> DecoderText[XlmRobertaTextEncoder]:
    """The text encoder of a decoder of version 2.1, with its tokenizer."""
    tokenizer = XlmRobertaTokenizer(loader.folder / "tokenizer" / "tokenizer.json", CONTEXT_LENGTH)
    folder = loader.folder / "text_encoder"
    encoder, read = prepare_xlm_roberta(folder, loader.device, loader.dtype)
    check_tokens(folder / "config.json", encoder.config, tokenizer)
    return DecoderText(loader.load_prepared(encoder, read), tokenizer)


def check_tokens(path: Path, text: XlmRobertaConfig, tokenizer: XlmRobertaTokenizer) -> None:
    """Raise CheckpointError for a text encoder that does not know its tokenizer's tokens. path: of its config."""
    positions = CONTEXT_LENGTH + tokenizer.pad + 1  # RoBERTa's positions begin after the id of the pad token
    if text.pad != tokenizer.pad:
        found, expected = f"pad_token_id is {text.pad}", f"{tokenizer.pad}, as the tokenizer has it"
    elif text.vocab_size < tokenizer.vocab_size:
        found, expected = f"vocab_size is {text.vocab_size}", f"at least the tokenizer's {tokenizer.vocab_size}"
    elif text.positions < positions:
        found, expected = f"max_position_embeddings is {text.positions}", f"at least {positions}"
    else:
        return
    raise CheckpointError(f"{path}: {found}, and should be {expected}; {FIX}")


def load_decoder(loader: ComponentLoader, clip: Clip, text: XlmRobertaConfig | None) -> Stage:
    """The decoder's stage, in the space of its autoencoder. text: of its text encoder, for version 2.1."""
    autoencoder = Autoencoder(loader.load_network("movq", VQModel))
    if autoencoder.channels != LATENT_CHANNELS:
        raise CheckpointError(f"{loader.folder / 'movq'}: it has {autoencoder.channels} latent channels, not 4; {FIX}")
    unet = loader.load_network("unet", UNet2DConditionModel)
    config = diffusers_config(unet)
    dim = clip.config.embed_dim
    if text is None:
        sizes = {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": dim}
    else:
        sizes = {"encoder_hid_dim_type": "text_image_proj", "encoder_hid_dim": text.width, "cross_attention_dim": dim}
        if text.embed_dim != dim:
            path = loader.folder / "text_encoder" / "config.json"
            raise CheckpointError(f"{path}: numDims is {text.embed_dim}, and should be {dim}; {FIX}")
    check_config(loader, "unet", unet, {"out_channels": 2 * LATENT_CHANNELS, **sizes})
    if config.in_channels not in (LATENT_CHANNELS, 2 * LATENT_CHANNELS + 1):
        raise CheckpointError(f"{loader.folder / 'unet'}: in_channels is {config.in_channels}, not 4 or 9; {FIX}")
    network = KandinskyDecoder(unet)
    multiple = autoencoder.factor * 2 ** (len(config.block_out_channels) - 1)  # 8 x 8 pixels
    codec = Latents(autoencoder, multiple, shrinks_known=network.has_inpainting_inputs)
    side = latent_side(loader, unet)
    return Stage(
        "decoder",
        network,
        loader.load_schedule("scheduler", Schedule.from_ddpm_config),
        (LATENT_CHANNELS, side, side),
        codec,
        sampler=SAMPLERS[component_classes(read_json(loader.folder / INDEX))["scheduler"]],
        any_size=True,
        # Version 2.1 replaces the known part of x0 at each step, with new noise, as this project does.
        freezes_known_noise=network.has_inpainting_inputs and text is None,
        **DECODER,
    )


def latent_side(loader: ComponentLoader, unet: UNet2DConditionModel) -> int:
    """Latent positions along a side of the images that a U-Net samples by default. Raises CheckpointError."""
    side = diffusers_config(unet).sample_size
    if not isinstance(side, int) or side < 1:
        path = loader.folder / "unet" / "config.json"
        raise CheckpointError(f"{path}: sample_size is {show(side)}, and should be a number of latent positions; {FIX}")
    return side
