"""Fine-tuning the decoder or the prior of a loaded checkpoint, as training tasks."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.prior_transformer import PriorTransformer
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unclip.checkpoints.trainable import TrainableStage
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import add_noise
from unclip.errors import RecipeError, RequestError
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.text import TextEncoding, tokens_only
from unclip.training.batch import Batch
from unclip.training.losses import network_target, sample_noise, velocity_loss
from unclip.training.samples import contact_sheet
from unclip.training.tasks.base import Examples, Loss
from unclip.training.tasks.frozen_clip import FrozenEncoder, drop_captions
from unclip.training.tasks.options import FineTuningOptions, PriorOptions
from unclip.training.tasks.prior import PriorTask


class FineTunedDecoder:
    """The error of what the decoder predicts: the noise, x0 or the velocity, in the space of its codec.

    It is conditioned on CLIP's embedding of the image and, if it reads text, on the caption. A fraction of the examples
    has neither, as guidance needs it. A learned variance is not trained: its channels have no part in the loss.
    """

    def __init__(self, part: TrainableStage, options: FineTuningOptions, examples: Examples):
        self.options = options
        self.examples = examples
        self.part = part
        self.stage = part.stage
        self.network = part.stage.network
        self.schedule = part.stage.schedule
        self.predicts = self.schedule.prediction_type
        self.encoder = FrozenEncoder(part.encoder)
        self.side = self.stage.size[0] if options.size is None else options.size
        # A decoder of small images is conditioned on embeddings of large ones.
        self.size = max(self.side, self.encoder.clip.config.image_size)

    def fit_to_data(self) -> None:
        """Nothing: the weights are those of the checkpoint."""

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The mean squared error of the network's output; of the velocity, for a decoder that predicts x0."""
        images, captions = batch.images, batch.captions
        drop = batch.rand() < self.options.drop
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            x0 = self.stage.codec.encode(self.resized(images)).float()  # b c h w
        levels: int | Tensor = 0
        if hasattr(self.network, "augment"):  # all levels, as in the training of the published networks
            levels = batch.randint(0, self.network.noise_levels)
        conditioning = self.condition(images, drop_captions(captions, drop), drop, batch, levels)
        t, noise = sample_noise(x0, self.schedule, batch)
        x_t = add_noise(x0, noise, t, self.schedule)
        output = network(x_t.to(self.stage.dtype), t, **conditioning)[:, : x0.shape[1]].float()
        if self.predicts == "sample":
            return velocity_loss(output, x_t, x0, t, self.schedule), {}
        return F.mse_loss(output, network_target(x0, noise, t, self.schedule)), {}

    def condition(
        self,
        images: Tensor,
        captions: list[str],
        drop: Tensor,
        batch: Batch,
        levels: int | Tensor = 0,
    ) -> dict[str, Tensor]:
        """The network's inputs for images `b 3 h w`. drop: bool `b`, True for examples without an embedding.

        batch: draws the noise of decoders that add it to embeddings. levels: of that noise, `b` or one for all.
        """
        drop = drop.to(images.device)[:, None]  # b 1
        embed = self.encoder.encode_images(images)
        if hasattr(self.network, "augment"):
            noise = batch.randn_like(embed)
            embed = self.network.augment(embed, noise, levels).masked_fill(drop, 0.0)
        else:
            embed = torch.where(drop, self.null_embed().to(embed), embed)
        dtype = self.stage.dtype
        conditioning = self.network.condition(embed, self.encode_text(captions))
        return {key: value.to(dtype if value.is_floating_point() else None) for key, value in conditioning.items()}

    def null_embed(self) -> Tensor:
        """The embedding `d` of no image, from which guidance steers away."""
        return self.encoder.zero_embed() if self.network.guided_by_embedding else self.network.null_embed

    def encode_text(self, captions: list[str]) -> TextEncoding:
        """The encoded captions; empty ones for a decoder that reads no text."""
        if self.part.reads_text:
            return self.encoder.encode_text(captions)
        return tokens_only(torch.zeros(len(captions), 1, dtype=torch.long))

    def resized(self, images: Tensor) -> Tensor:
        """Images `b 3 H W` at the decoder's size, in [-1, 1]."""
        if images.shape[-1] == self.side:
            return images
        return F.interpolate(images, size=(self.side, self.side), mode="bicubic", antialias=True).clamp(-1, 1)

    @torch.no_grad()
    def sample_grid(self) -> Image.Image | None:
        """A row of originals above samples from their embeddings and captions."""
        count = self.options.samples
        if count == 0:
            return None
        images, captions = self.examples(self.size, count)
        batch = Batch(images, captions, torch.Generator().manual_seed(0))
        none = torch.zeros(count, dtype=torch.bool)
        cond = self.condition(images, captions, none, batch)
        uncond = self.condition(images, [""] * count, ~none, batch)
        options = StageOptions(self.options.sample_steps, size=(self.side, self.side))
        samples = self.stage.run(StageInputs(cond, uncond), make_generators(range(count)), options)
        return contact_sheet(torch.cat([self.resized(images), samples.to(images)]), count)

    def networks(self) -> dict[str, nn.Module]:
        """The networks of the decoder."""
        return dict(self.part.components)

    def stage_config(self) -> dict[str, Any]:
        """Empty: the checkpoint keeps its own."""
        return {}


class FineTunedPrior(PriorTask):
    """The prior's objective, with the statistics of embeddings that the checkpoint has."""

    def __init__(self, part: TrainableStage, options: FineTuningOptions, examples: Examples):
        self.options = PriorOptions(text_drop=options.drop)
        self.examples = examples
        self.network = part.stage.network
        self.schedule = part.stage.schedule
        self.predicts = self.schedule.prediction_type
        self.clip = FrozenEncoder(part.encoder)
        self.size = self.clip.clip.config.image_size

    def fit_to_data(self) -> None:
        """Nothing: the weights are those of the checkpoint."""

    def stage_config(self) -> dict[str, Any]:
        """Empty: the checkpoint keeps its own."""
        return {}


def check_size(part: TrainableStage, options: FineTuningOptions, where: str) -> None:
    """Raise RecipeError for a size that a decoder does not generate. where: the recipe's file and table."""
    stage, size = part.stage, options.size
    if size is None or len(stage.shape) == 1:
        return
    if not stage.any_size and (size, size) != stage.size:
        raise RecipeError(f"{where}: {part.name} generates images of {stage.size[0]} pixels only; leave size out")
    try:
        stage.codec.latent_shape(size, size)
    except RequestError as error:
        raise RecipeError(f"{where}: {error}") from None


def checkpoint_activations(network: nn.Module) -> None:
    """Let a U-Net or a prior's transformer compute activations again in the backward pass, and not store them."""
    if not isinstance(network, PriorTransformer):
        network.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        return
    for block in network.transformer_blocks:  # diffusers has no checkpointing for this class
        block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
