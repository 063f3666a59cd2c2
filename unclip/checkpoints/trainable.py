"""Open one stage of a checkpoint of any layout for training, with the networks that condition it and no others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from unclip.checkpoints.additions import Additions
from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.families import is_kandinsky_prior
from unclip.checkpoints.hub_files import snapshot_identity
from unclip.checkpoints.index import INDEX, check_pipeline, model_name
from unclip.checkpoints.layouts.kandinsky import load_prior_repository
from unclip.checkpoints.layouts.native import load_decoder_alone
from unclip.checkpoints.load import build_model, find_prior_folders
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.networks import ReadTensors, load_weights
from unclip.checkpoints.tensors import read_tensors
from unclip.diffusion.codecs import Latents
from unclip.errors import CheckpointError
from unclip.inference.encoder import Encoder
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.stage import Stage
from unclip.models.decoder import Decoder
from unclip.models.kandinsky_decoder import KandinskyDecoder
from unclip.system.files import read_json

STAGES = ("prior", "decoder")
"""The stages that can be fine-tuned."""
DISTILLABLE = ("prior", "decoder", "upsampler")
"""The stages that can be distilled."""


class DeferredStore:
    """Leaves networks without weights until `load` reads them: fine-tuning a stage needs a part of a checkpoint."""

    def __init__(self) -> None:
        self._readers: dict[nn.Module, tuple[ReadTensors, torch.device | str]] = {}

    def add(self, network: nn.Module, read: ReadTensors, device: torch.device | str) -> nn.Module:
        """Take an empty network, whose weights `read` reads; returns the network."""
        self._readers[network] = read, device
        return network

    def load(self, network: nn.Module) -> None:
        """Read the weights of a network. They are not packed for sampling, so that gradients pass through them."""
        read, device = self._readers[network]
        load_weights(network, read, device)


@dataclass(frozen=True)
class TrainableStage:
    """A stage of a checkpoint, and what conditions it. `load` reads the weights.

    name        of the checkpoint
    folder      of the repository that contains the stage; a prior may have one of its own
    stage       the network, its schedule and its codec
    encoder     CLIP, and the decoder's own text encoder if it has one
    components  the networks of the stage, by the names of their folders
    reads_text  whether the stage is conditioned on text
    has_prior   whether the checkpoint has a prior of any kind
    """

    name: str
    folder: Path
    stage: Stage
    encoder: Encoder
    components: Mapping[str, nn.Module]
    reads_text: bool
    store: DeferredStore
    has_prior: bool = True
    others: tuple[Path, ...] = ()

    @property
    def backbone(self) -> nn.Module:
        """The U-Net or the transformer."""
        return next(iter(self.components.values()))

    def load(self, whole: bool) -> None:
        """Read the weights of the stage and of the encoders that it needs, all of them without gradients.

        whole: read those of the stage in float32 and into memory of their own, to train all of them.
        """
        clip, own = self.encoder.clip, self.encoder.decoder_text
        frozen = [clip.visual, clip.text, own.encoder if own is not None and self.reads_text else None]
        if isinstance(self.stage.codec, Latents):
            frozen.append(self.stage.codec.autoencoder.network)
        for network in frozen:
            if network is not None:
                self.store.load(network)
        if whole:
            self.load_components()
            return
        for network in self.components.values():
            if any(parameter.is_meta for parameter in network.parameters()):
                self.store.load(network)

    def load_components(self) -> None:
        """Read the weights of the stage in float32, and into memory of their own, to train all of them."""
        for component, network in self.components.items():
            read = partial(read_tensors, self.folder / component, self.encoder.device, torch.float32)
            load_weights(network, read, self.encoder.device)
            for parameter in network.parameters():
                parameter.data = parameter.data.clone()  # it may be a view of the file


def open_trainable(
    name: str | Path,
    stage: str,
    device: torch.device,
    dtype: torch.dtype,
    prior: str | Path | None = None,
    image_encoder: str | Path | None = None,
    images: bool = True,
) -> TrainableStage:
    """A stage of a checkpoint, as its configs describe it; its large networks have no weights yet.

    name: a folder, a bundled model, or a hub id, which is downloaded if it is not in the cache. prior, image_encoder:
    as in `load.Additions`. images: whether it learns from images, not only from a teacher. Raises CheckpointError if
    the checkpoint is missing, damaged or mismatched, or cannot be trained, and RequestError if it lacks an image
    encoder that images need.
    """
    folder = find_checkpoint(name, download=True)
    index, store = read_json(folder / INDEX), DeferredStore()
    if is_kandinsky_prior(index):
        if stage != "prior":
            raise CheckpointError(f"{name} is a prior without a decoder: give the repository of a decoder")
        origin = (snapshot_identity(folder) or (model_name(index, folder), None))[0]
        clip, own_prior = load_prior_repository(ComponentLoader(folder, device, dtype, store))
        return _of_prior(origin, folder, own_prior, Encoder(origin, clip, device), store)
    check_pipeline(index, folder / INDEX)
    folders = [folder, *find_prior_folders(folder, index, Additions(prior=prior).prior_model)]
    loader, *others = (ComponentLoader(each, device, dtype, store) for each in folders)
    model = build_model(index, loader, others, image_encoder)
    if images:
        model.encoder.require_image_encoder()
    if stage == "prior":
        if not isinstance(model.prior, DiffusionPrior):
            raise CheckpointError(f"{model.name} has no diffusion prior to train: give a checkpoint that has one")
        return replace(
            _of_prior(model.name, folders[-1], model.prior, model.encoder, store), others=tuple(folders[:-1])
        )
    if stage == "upsampler":
        return _of_upsampler(model, folder, store)
    network = model.decoder.network
    if images and isinstance(network, KandinskyDecoder) and network.has_inpainting_inputs:
        raise CheckpointError(
            f"{model.name} has an inpainting U-Net, which is trained on masks: fine-tune the decoder of the same "
            "version; its LoRA loads for this U-Net too"
        )
    reads_text = getattr(network, "reads_text", True)
    if not reads_text or model.decoder_text is not None:
        model.clip.text = None  # not used: it need not be loaded
    parts = {"unet" if "unet" in index else "decoder": network.unet}
    if isinstance(network, Decoder):
        parts["text_proj"] = network.projection
        if network.text_encoder is not None:
            parts["decoder_text"] = network.text_encoder
    has_prior = bool(model.priors)
    others = tuple(folders[1:])
    return TrainableStage(model.name, folder, model.decoder, model.encoder, parts, reads_text, store, has_prior, others)


def open_decoder(model: Path, device: torch.device, weights: bool = True) -> Stage:
    """The decoder of a checkpoint folder of this project, whose other stages may not be trained yet, in float32.

    weights: read those of the U-Net too; if not, they are on the meta device. Raises CheckpointError if it is damaged.
    """
    store = DeferredStore()
    decoder = load_decoder_alone(ComponentLoader(model, device, torch.float32, store))
    if weights:
        store.load(decoder.network.unet)
        for parameter in decoder.network.parameters():
            parameter.data = parameter.data.clone()  # it may be a view of the file
    return decoder


def _of_upsampler(model: UnclipModel, folder: Path, store: DeferredStore) -> TrainableStage:
    if not model.upsamplers or model.upsamplers[0].last_network is not None:
        found = "another network for its last step" if model.upsamplers else "no upsampler"
        raise CheckpointError(f"{model.name} has {found}: give a model of `unclip train` with an upsampler")
    stage = model.upsamplers[0]
    parts, has_prior = {"upsampler": stage.network.unet}, bool(model.priors)
    return TrainableStage(model.name, folder, stage, model.encoder, parts, False, store, has_prior)


def _of_prior(name: str, folder: Path, prior: DiffusionPrior, encoder: Encoder, store: DeferredStore) -> TrainableStage:
    components = {"prior": prior.stage.network.transformer}
    only_clip = Encoder(name, encoder.clip, encoder.device)
    return TrainableStage(name, folder, prior.stage, only_clip, components, True, store)
