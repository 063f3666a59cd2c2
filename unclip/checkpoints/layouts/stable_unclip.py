"""The layout of Stable unCLIP: Stable Diffusion 2.1 conditioned on CLIP image embeddings, as diffusers saves it.

A repository of image variations has no prior. Text to image has one inside its repository ("prior_..."), or takes
Karlo's from another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.layouts.kandinsky import check_classes, latent_side
from unclip.checkpoints.layouts.karlo import check_config
from unclip.checkpoints.settings import FIX
from unclip.checkpoints.transformers_clip import find_clip, prepare_clip, prepare_text_encoder, read_pad_token
from unclip.diffusion.codecs import Latents
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.inference.encoder import DecoderText
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.speeds import STABLE_UNCLIP
from unclip.inference.stage import Stage
from unclip.models.autoencoder import Autoencoder
from unclip.models.clip import Clip
from unclip.models.prior import Prior
from unclip.models.stable_unclip_decoder import LATENT_CHANNELS, ImageNormalizer, StableUnclipDecoder
from unclip.models.tokenizer import Tokenizer
from unclip.system.files import read_json

SCHEDULERS = (
    *("PNDMScheduler", "DDIMScheduler", "DDPMScheduler"),
    *("DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"),
)
CLASSES = {
    "image_normalizer": ("StableUnCLIPImageNormalizer",),
    "image_noising_scheduler": SCHEDULERS,
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "scheduler": SCHEDULERS,
}
PRIOR_CLASSES = {
    "prior": ("PriorTransformer",),
    "prior_text_encoder": ("CLIPTextModelWithProjection",),
    "prior_tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
IMAGE_CLASSES = {"image_encoder": ("CLIPVisionModelWithProjection",)}

# Published defaults: the pipelines of diffusers.
PRIOR = {"steps": 25, "guidance": 4.0, "sampler": "ddpm"}
DECODER = {"steps": 20, "guidance": 10.0}
SAMPLER = "dpmpp-2m"
"""The published configs name PNDM, which needs one more evaluation and is less exact at these few steps."""


def load_stable_unclip(
    index: Mapping[str, Any], loader: ComponentLoader, prior: ComponentLoader | None, name: str, revision: str | None
) -> UnclipModel:
    """Load a checkpoint of this layout. Raises CheckpointError for missing, damaged or mismatched components.

    prior: of the repository of Karlo's prior, for a checkpoint without one; None for image variations only.
    """
    check_classes(index, CLASSES, loader)
    images = loader.folder if "image_encoder" in index else None
    if images is not None:
        check_classes(index, IMAGE_CLASSES, loader)
    text, prefix = (None if prior is None else prior.folder), ""
    if "prior" in index:
        check_classes(index, PRIOR_CLASSES, loader)
        text, prefix, prior = loader.folder, "prior_", loader
    if text is None and images is None:
        raise CheckpointError(f"{loader.folder / INDEX} lists neither a prior nor an image_encoder; {FIX}")
    clip = loader.load_clip(*prepare_clip(find_clip(text, images, prefix), loader.device, loader.dtype))
    return UnclipModel(
        name,
        clip,
        None if prior is None else load_prior(prior, clip),
        load_decoder(loader, clip),
        (),
        loader.device,
        revision=revision,
        folder=loader.folder,
        decoder_text=load_decoder_text(loader),
        speeds=STABLE_UNCLIP,
    )


def load_prior(loader: ComponentLoader, clip: Clip) -> DiffusionPrior:
    """Karlo's prior, sampled as Stable unCLIP's own pipeline does: by DDPM, on leading timesteps."""
    dim = clip.config.embed_dim
    transformer = loader.load_network("prior", PriorTransformer)
    sizes = {"embedding_dim": dim, "num_embeddings": clip.config.context_length, "additional_embeddings": 4}
    check_config(loader, "prior", transformer, sizes)
    schedule = loader.load_schedule("prior_scheduler", Schedule.from_ddpm_config)
    return DiffusionPrior(Stage("prior", Prior(transformer), schedule, (dim,), **PRIOR), best_of=1)


def load_decoder(loader: ComponentLoader, clip: Clip) -> Stage:
    """The decoder's stage, in the space of its autoencoder."""
    autoencoder = Autoencoder(loader.load_network("vae", AutoencoderKL))
    if autoencoder.channels != LATENT_CHANNELS:
        raise CheckpointError(f"{loader.folder / 'vae'}: it has {autoencoder.channels} latent channels, not 4; {FIX}")
    unet = loader.load_network("unet", UNet2DConditionModel)
    normalizer = loader.load_network("image_normalizer", ImageNormalizer, small=True)
    dim = clip.config.embed_dim
    check_config(loader, "unet", unet, {"in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS})
    check_config(loader, "unet", unet, {"class_embed_type": "projection"})
    check_config(loader, "unet", unet, {"projection_class_embeddings_input_dim": 2 * dim})
    if normalizer.mean.shape[1] != dim:
        path = loader.folder / "image_normalizer"
        raise CheckpointError(f"{path}: it is for embeddings of {normalizer.mean.shape[1]} values, not {dim}; {FIX}")
    if not normalizer.std.is_meta and not (normalizer.std > 0).all():
        raise CheckpointError(f"{loader.folder / 'image_normalizer'}: its std has values that are not above 0; {FIX}")
    noising = loader.load_schedule("image_noising_scheduler", Schedule.from_ddpm_config)
    side = latent_side(loader, unet)
    return Stage(
        "decoder",
        StableUnclipDecoder(normalizer, unet, noising.alphas_cumprod()),
        loader.load_schedule("scheduler", Schedule.from_ddpm_config),
        (LATENT_CHANNELS, side, side),
        Latents(autoencoder, autoencoder.factor),
        sampler=SAMPLER,
        any_size=True,
        **DECODER,
    )


def load_decoder_text(loader: ComponentLoader) -> DecoderText:
    """The decoder's text encoder and tokenizer."""
    folder: Path = loader.folder / "text_encoder"
    encoder, read = prepare_text_encoder(folder, loader.device, loader.dtype)
    tokenizer = loader.folder / "tokenizer"
    length = read_json(folder / "config.json").get("max_position_embeddings", 77)
    return DecoderText(loader.load_prepared(encoder, read), Tokenizer(length, True, read_pad_token(tokenizer)))
