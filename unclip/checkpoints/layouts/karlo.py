"""The layout of the published checkpoints, kakaobrain/karlo-v1-alpha and its repository for variations of pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from unclip.checkpoints.index import INDEX, components
from unclip.checkpoints.loader import Loader
from unclip.checkpoints.open_clip_tower import OpenClipTower
from unclip.checkpoints.transformers_clip import load_towers
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.stage import Stage
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.projection import TextProjection
from unclip.models.upsampler import Upsampler

CLASSES = {
    "prior": "PriorTransformer",
    "text_proj": "UnCLIPTextProjModel",
    "decoder": "UNet2DConditionModel",
    "super_res_first": "UNet2DModel",
    "super_res_last": "UNet2DModel",
    "text_encoder": "CLIPTextModelWithProjection",
    "image_encoder": "CLIPVisionModelWithProjection",
}
OPTIONAL = ("prior", "image_encoder")  # a repository has one of them
# What the model was published with: Lee et al. 2022, "Karlo-v1.0.alpha on COYO-100M and CC15M".
PRIOR = {"steps": 25, "guidance": 4.0}
DECODER = {"steps": 25, "guidance": 8.0}
UPSAMPLER = {"steps": 7}


def is_karlo(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is of this layout."""
    return "stages" not in index and bool({"text_encoder", "super_res_first", "super_res_last"} & index.keys())


def load_karlo(
    index: Mapping[str, Any],
    loader: Loader,
    name: str,
    revision: str | None,
    images: Path | OpenClipTower | None = None,
) -> UnclipModel:
    """Read a checkpoint of this layout. Raises CheckpointError for what is missing, damaged or does not fit.

    images: the folder of a checkpoint whose image tower is used, or one of open_clip, where this one has none.
    """
    where = loader.folder / INDEX
    parts = components(index)
    for part, cls in CLASSES.items():
        if part not in parts and part not in OPTIONAL:
            raise CheckpointError(f"{where} lists no {part}; get the checkpoint anew")
        if parts.get(part, cls) != cls:
            raise CheckpointError(f"{where}: the {part} is a {parts[part]}, not a {cls}; get the checkpoint anew")
    if not set(OPTIONAL) & parts.keys():
        raise CheckpointError(f"{where} lists neither a prior nor an image_encoder; get the checkpoint anew")

    if "image_encoder" in parts:
        images = loader.folder
    clip = loader.clip(*load_towers(loader.folder, loader.device, images))
    dim, prior = clip.config.embed_dim, None
    if "prior" in parts:
        transformer = loader.network("prior", PriorTransformer)
        of_prior = {"embedding_dim": dim, "num_embeddings": clip.config.context_length}
        check_config(loader, "prior", transformer, {**of_prior, "additional_embeddings": 4})
        # best_of 1, as these checkpoints are run everywhere: the same seed gives the same image.
        prior = DiffusionPrior(stage("prior", Prior(transformer), loader.schedule("prior"), (dim,), **PRIOR), best_of=1)

    projection = loader.network("text_proj", TextProjection, small=True)
    unet = loader.network("decoder", UNet2DConditionModel)
    if projection.config.clip_embeddings_dim != dim or clip.config.text_width != dim:
        raise CheckpointError(f"{loader.folder}: text_encoder and text_proj are not of one width; get it anew")
    of_unet = {"cross_attention_dim": projection.config.cross_attention_dim, "in_channels": 3}
    check_config(loader, "decoder", unet, of_unet)
    schedule = loader.schedule("decoder")
    outputs(loader, "decoder", unet, 6 if schedule.variance_type == "learned_range" else 3)
    decoder = stage("decoder", Decoder(projection, unet), schedule, picture(loader, "decoder", unet), **DECODER)

    schedule = loader.schedule("super_res")
    unets = [loader.network(part, UNet2DModel) for part in ("super_res_first", "super_res_last")]
    for part, unet in zip(("super_res_first", "super_res_last"), unets, strict=True):
        check_config(loader, part, unet, {"in_channels": 6, "sample_size": unets[0].config.sample_size})
        outputs(loader, part, unet, 6 if schedule.variance_type == "learned_range" else 3)
    first, last = map(Upsampler, unets)
    shape = picture(loader, "super_res_first", unets[0])
    upsampler = stage("upsampler", first, schedule, shape, **UPSAMPLER, last_network=last)
    return UnclipModel(name, clip, prior, decoder, (upsampler,), loader.device, revision=revision, folder=loader.folder)


def stage(name: str, network: nn.Module, schedule: Schedule, shape: tuple[int, ...], **more: Any) -> Stage:
    """A stage that ends on the very numbers of diffusers."""
    return Stage(name, network, schedule, shape, **more, last_factor=schedule.last_factor())


def check_config(loader: Loader, part: str, network: nn.Module, wanted: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a component's config does not fit the others."""
    for key, value in wanted.items():
        found = network.config[key]
        if found != value:
            path = loader.folder / part / "config.json"
            raise CheckpointError(f"{path}: {key} is {found}, where {value} is needed; get the checkpoint anew")


def outputs(loader: Loader, part: str, unet: nn.Module, channels: int) -> None:
    """Raise CheckpointError where a U-Net does not predict what its schedule says."""
    check_config(loader, part, unet, {"out_channels": channels})


def picture(loader: Loader, part: str, unet: nn.Module) -> tuple[int, int, int]:
    """c, h, w of what a U-Net draws."""
    size = unet.config.sample_size
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, tuple | list) or len(sides) != 2 or not all(isinstance(s, int) and s > 0 for s in sides):
        path = loader.folder / part / "config.json"
        raise CheckpointError(f"{path} is damaged: sample_size is {size!r}; get the checkpoint anew")
    return 3, *sides
