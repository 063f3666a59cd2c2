"""The layout of kakaobrain/karlo-v1-alpha and its image variation repository, as diffusers saves them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.index import INDEX, component_classes
from unclip.checkpoints.open_clip_image_encoder import OpenClipImageEncoder
from unclip.checkpoints.settings import FIX
from unclip.checkpoints.transformers_clip import find_clip, prepare_clip
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.speeds import KARLO
from unclip.inference.stage import Stage
from unclip.models.clip import Clip
from unclip.models.config import diffusers_config
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.projection import TextProjection
from unclip.models.upsampler import Upsampler
from unclip.requests.fields import MAX_SIDE
from unclip.requests.values import show

CLASSES = {
    "prior": "PriorTransformer",
    "text_proj": "UnCLIPTextProjModel",
    "decoder": "UNet2DConditionModel",
    "super_res_first": "UNet2DModel",
    "super_res_last": "UNet2DModel",
    "text_encoder": "CLIPTextModelWithProjection",
    "image_encoder": "CLIPVisionModelWithProjection",
}
OPTIONAL = ("prior", "image_encoder")  # each repository has one of them

# Published defaults: Lee et al. 2022, "Karlo-v1.0.alpha on COYO-100M and CC15M".
PRIOR = {"steps": 25, "guidance": 4.0}
DECODER = {"steps": 25, "guidance": 8.0}
UPSAMPLER = {"steps": 7}


def load_karlo(
    index: dict[str, Any],
    loader: ComponentLoader,
    name: str,
    revision: str | None,
    image_encoder: Path | OpenClipImageEncoder | None = None,
) -> UnclipModel:
    """Load a checkpoint of this layout. Raises CheckpointError for missing, damaged or mismatched components.

    image_encoder: from another checkpoint, or of open_clip, for a checkpoint that has none.
    """
    components = check_components(index, loader.folder / INDEX)
    if "image_encoder" in components:
        image_encoder = loader.folder
    clip = loader.load_clip(*prepare_clip(find_clip(loader.folder, image_encoder), loader.device))
    prior = load_prior(loader, clip) if "prior" in components else None
    decoder = load_decoder(loader, clip)
    return UnclipModel(
        name,
        clip,
        prior,
        decoder,
        (load_upsampler(loader),),
        loader.device,
        revision=revision,
        folder=loader.folder,
        speeds=KARLO,
    )


def check_components(index: dict[str, Any], path: Path) -> dict[str, str]:
    """The components of a model_index.json and their classes. Raises CheckpointError for missing or other ones."""
    components = component_classes(index)
    for component, cls in CLASSES.items():
        if component not in components and component not in OPTIONAL:
            raise CheckpointError(f"{path} lists no {component}; {FIX}")
        if (found := components.get(component, cls)) != cls:
            raise CheckpointError(f"{path}: the {component} is a {found[:80]}, not a {cls}; {FIX}")
    if not set(OPTIONAL) & components.keys():
        raise CheckpointError(f"{path} lists neither a prior nor an image_encoder; {FIX}")
    return components


def load_prior(loader: ComponentLoader, clip: Clip) -> DiffusionPrior:
    """The prior. It samples one embedding, as other software does: the same seed gives the same image."""
    dim = clip.config.embed_dim
    transformer = loader.load_network("prior", PriorTransformer)
    sizes = {"embedding_dim": dim, "num_embeddings": clip.config.context_length, "additional_embeddings": 4}
    check_config(loader, "prior", transformer, sizes)
    stage = build_stage("prior", Prior(transformer), loader.load_schedule("prior_scheduler"), (dim,), **PRIOR)
    return DiffusionPrior(stage, best_of=1)


def load_decoder(loader: ComponentLoader, clip: Clip) -> Stage:
    """The decoder's stage."""
    projection = loader.load_network("text_proj", TextProjection, small=True)
    unet = loader.load_network("decoder", UNet2DConditionModel)
    dim = clip.config.embed_dim
    if projection.config.clip_embeddings_dim != dim or clip.config.text_width != dim:
        raise CheckpointError(f"{loader.folder}: text_encoder and text_proj have different widths; {FIX}")
    schedule = loader.load_schedule("decoder_scheduler")
    sizes = {"cross_attention_dim": projection.config.cross_attention_dim, "in_channels": 3}
    check_config(loader, "decoder", unet, {**sizes, "out_channels": output_channels(schedule)})
    return build_stage("decoder", Decoder(projection, unet), schedule, image_shape(loader, "decoder", unet), **DECODER)


def load_upsampler(loader: ComponentLoader) -> Stage:
    """The upsampler's stage, whose last step has a network of its own."""
    schedule = loader.load_schedule("super_res_scheduler")
    names = ("super_res_first", "super_res_last")
    unets = [loader.load_network(name, UNet2DModel) for name in names]
    sizes = {
        "in_channels": 6,
        "sample_size": diffusers_config(unets[0]).sample_size,
        "out_channels": output_channels(schedule),
    }
    for name, unet in zip(names, unets, strict=True):
        check_config(loader, name, unet, sizes)
    first, last = map(Upsampler, unets)
    shape = image_shape(loader, "super_res_first", unets[0])
    return build_stage("upsampler", first, schedule, shape, **UPSAMPLER, last_network=last)


def build_stage(name: str, network: nn.Module, schedule: Schedule, shape: tuple[int, ...], **options: Any) -> Stage:
    """A stage whose last step gives the same numbers as diffusers (see `Schedule.last_factor`)."""
    return Stage(name, network, schedule, shape, **options, last_factor=schedule.last_factor())


def output_channels(schedule: Schedule) -> int:
    """Channels that a U-Net of pixels predicts: 3, and 3 more for a learned variance."""
    return 6 if schedule.variance_type == "learned_range" else 3


def check_config(loader: ComponentLoader, component: str, network: nn.Module, expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a component's config does not fit the other components."""
    for key, value in expected.items():
        found = diffusers_config(network)[key]
        if found != value:
            path = loader.folder / component / "config.json"
            raise CheckpointError(f"{path}: {key} is {show(found)}, and should be {show(value)}; {FIX}")


def image_shape(loader: ComponentLoader, component: str, unet: nn.Module) -> tuple[int, int, int]:
    """c, h, w of the images that a U-Net samples. Raises CheckpointError if its config has no valid size."""
    size = diffusers_config(unet).sample_size
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, tuple | list)
        or len(sides) != 2
        or not all(type(s) is int and 0 < s <= MAX_SIDE for s in sides)
    ):
        path = loader.folder / component / "config.json"
        raise CheckpointError(f"{path}: sample_size is {show(size)}, and should be a number of pixels; {FIX}")
    return 3, sides[0], sides[1]
