"""The decoder as a training task."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.noise import make_generators
from unclip.diffusion.samplers import DRAFT_NOISE
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs
from unclip.models.clip import Clip
from unclip.models.decoder import Decoder
from unclip.models.layout import LAYOUT_SIZE, MAP_CHANNELS
from unclip.models.projection import TextProjection, TextProjectionConfig
from unclip.models.text_encoder import TextEncoderConfig, TransformerTextEncoder
from unclip.stickers.compose import SceneOptions
from unclip.training.augmentation import add_draft_windows, add_known_regions, is_unknown_uniform, random_known_masks
from unclip.training.batch import Batch
from unclip.training.losses import contrast_weights, sample_noise, velocity_loss
from unclip.training.recipe import StageRecipe, image_size
from unclip.training.recipe_tables import Sampling
from unclip.training.samples import contact_sheet
from unclip.training.tasks.base import Examples, Loss, build_network, check_multiple, coarsest_cell
from unclip.training.tasks.frozen_clip import FrozenClip, drop_captions
from unclip.training.tasks.options import DecoderOptions


class DecoderTask:
    """The decoder's objective: the velocity error, conditioned on the embedding, the text and GLIDE's known pixels."""

    def __init__(self, recipe: StageRecipe, clip: FrozenClip, examples: Examples):
        assert isinstance(recipe.sampling, Sampling) and isinstance(recipe.task, DecoderOptions)
        self.options = recipe.task
        self.sampling = recipe.sampling
        self.examples = examples
        self.clip = clip
        self.codec = PixelUnshuffle(self.options.patch)
        self.size = image_size(recipe)
        self.predicts = self.options.prediction
        where = f"{recipe.source} [decoder.model]"
        check_multiple(where, "size", self.size, self.options.patch)
        self.shape = self.codec.latent_shape(self.size, self.size)
        scenes = recipe.scenes
        self._has_layouts = scenes is not None and bool(scenes.layouts)
        unet = self._build_unet(recipe, where)
        check_multiple(where, "size", self.size, coarsest_cell(self.options.patch, unet))
        distribution = SceneOptions() if scenes is None else SceneOptions(**scenes.given())
        projection = TextProjectionConfig(
            clip_embeddings_dim=clip.clip.config.embed_dim,
            time_embed_dim=4 * unet.config.block_out_channels[0],
            cross_attention_dim=unet.config.cross_attention_dim,
            layout_size=LAYOUT_SIZE if self._has_layouts else 0,
            layout_spread=distribution.spread,
            layout_vary=distribution.vary,
        )
        own_text = copy_text_encoder(clip.clip) if self.options.own_text else None
        self.network = Decoder(TextProjection(projection), unet, self.shape[0], own_text).to(clip.device)
        self.schedule = Schedule(prediction_type=self.predicts, clip=1.0)

    def _build_unet(self, recipe: StageRecipe, where: str) -> Any:
        defaults = {
            "resnet_time_scale_shift": "scale_shift",
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        }
        computed = {
            "sample_size": self.shape[1],
            # Noisy image, known image, mask, and the coordinates of a layout.
            "in_channels": 2 * self.shape[0] + self.options.patch**2 + (MAP_CHANNELS if self._has_layouts else 0),
            "out_channels": self.shape[0],
            "class_embed_type": "identity",
        }
        settings = {key: value for key, value in recipe.model.items() if key != "size"}
        return build_network("UNet2DConditionModel", {**defaults, **settings}, computed, where)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The velocity error of a batch, after augmentation and with parts of the conditioning left out."""
        options = self.options
        drop_embed, drop_text = batch.rand_columns(2).to(batch.images.device)
        target, known, is_window, is_draft = self.augment(batch)

        # With `moved`, the conditioning depends on the known part. Where nothing is left to generate, windows have
        # neither text nor embedding, so that nothing is added. Windows with something to generate always have the
        # text, and other images with a known part have the text or the embedding. CLIP tells better than a decoder
        # whether the known part already shows the prompt (see `shown_above`).
        has_known = known.flatten(1).any(1) & bool(options.moved)
        no_text, no_embed = drop_text < options.text_drop, drop_embed < options.embed_drop
        unconditional = is_unknown_uniform(target, known) & (is_window | (has_known | is_draft) & (drop_text < 0.5))
        no_text = unconditional | no_text & ~is_window & ~(has_known & no_embed)
        no_embed = (unconditional | no_embed)[:, None]

        read = self.clip.encode_text if self.network.text_encoder is None else self.clip.tokenize
        text = read(drop_captions(batch.captions, no_text))
        # The embedding describes the whole image even for a window, as the prior's describes the whole caption.
        embed = torch.where(no_embed, self.network.projection.null_embed, self.clip.encode_images(batch.images))
        x0 = self.codec.encode(target)  # b c h w
        t, noise = sample_noise(x0, self.schedule, batch, options.noise_shift)
        t = torch.where(is_draft, (DRAFT_NOISE * t).long(), t)
        pooled = (batch.rand() >= options.pooled_drop).to(x0)  # b
        layouts = batch.layouts
        if layouts is not None:  # open where pixels are known or moved, as in edits
            told = (batch.rand() >= options.layout_drop).to(x0.device)
            told = told & ~known.flatten(1).any(1) & ~is_window & ~is_draft
            layouts = layouts.to(x0.device) * told[:, None]
        conditioning = self.network.condition(
            embed, text, x0, self.codec.encode_mask(known), pooled=pooled, layout=layouts
        )
        x_t = add_noise(x0, noise, t, self.schedule)
        weights = contrast_weights(target, options.contrast_weight) if options.contrast_weight else None
        return velocity_loss(network(x_t, t, **conditioning), x_t, x0, t, self.schedule, weights), {}

    def augment(self, batch: Batch) -> tuple[Tensor, ...]:  # b 3 s s, b 1 s s, b, b
        """Target images, masks of their known pixels, which are windows, and which are draft windows."""
        options, images = self.options, batch.images
        if not (options.moved or options.drafts):
            side, none = images.shape[-1], torch.zeros(len(images), dtype=torch.bool, device=images.device)
            masks = batch.once(lambda generator: random_known_masks(batch.count, side, options.known, generator))
            return images, batch.own_rows(masks).to(images), none, none
        whole = batch.all_images()  # some windows show other images of the batch

        def make(generator: torch.Generator) -> tuple[Tensor, ...]:
            target, known, is_window = add_known_regions(
                whole, generator, known=options.known, moved=options.moved, beside=options.beside, views=options.views
            )
            target, is_draft = add_draft_windows(target, known, options.drafts, generator)
            return target, known, is_window, is_draft

        return tuple(map(batch.own_rows, batch.once(make)))

    def fit_to_data(self) -> None:
        """Scale the projection's initial weights so that every direction of CLIP's outputs passes with equal variance.

        A contrastive embedding has most of its length in a few directions (here the dozen that tell the backgrounds
        apart). It encodes the objects in other directions, ten to a hundred times shorter, which new random weights
        would all but hide from the decoder.
        """
        images, captions = self.examples(self.size, 512)
        projection = self.network.projection
        parts = list(zip(images.split(64), range(0, len(images), 64), strict=True))
        texts = [self.clip.encode_text(captions[i : i + len(part)]) for part, i in parts]
        if self.network.text_encoder is not None:
            with torch.no_grad():
                texts = [self.network.text_encoder(text) for text in texts]
        embeds = torch.cat([self.clip.encode_images(part) for part, _ in parts])
        whiten_inputs_(projection.clip_image_embeddings_project_to_time_embeddings, embeds, 0.3)
        whiten_inputs_(projection.clip_extra_context_tokens_proj, embeds, 0.3)
        whiten_inputs_(projection.embedding_proj, torch.cat([text.embed for text in texts]), 0.3)
        states = torch.cat([text.states[text.mask] for text in texts])  # n d
        whiten_inputs_(projection.encoder_hidden_states_proj, states, 0.1)

    def stage(self) -> Stage:
        """The stage as the finished model samples it."""
        return Stage(
            name="decoder",
            network=self.network,
            schedule=self.schedule,
            shape=self.shape,
            codec=self.codec,
            sampler=self.sampling.sampler,
            steps=self.sampling.steps,
            guidance=self.sampling.guidance,
        )

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Rows of eight: originals above samples from their embeddings and captions, twice."""
        images, captions = self.examples(self.size)
        layouts = self.network.random_layouts(range(len(images))) if self.network.has_layouts else None
        embed = self.clip.encode_images(images)
        cond = self.network.condition(embed, self.clip.encode_text(captions), layout=layouts)
        uncond = self.network.condition(None, self.clip.encode_text([""] * len(images)), layout=layouts)
        samples = self.stage().run(StageInputs(cond, uncond), make_generators(range(len(images))))
        return contact_sheet(torch.cat([images[:8], samples[:8], images[8:], samples[8:]]), 8)

    def networks(self) -> dict[str, nn.Module]:
        """The components "decoder", "text_proj" and, with its own text encoder, "decoder_text"."""
        own = {} if self.network.text_encoder is None else {"decoder_text": self.network.text_encoder}
        return {"decoder": self.network.unet, "text_proj": self.network.projection, **own}

    def stage_config(self) -> dict[str, Any]:
        """The sampling defaults, the size, the codec and `shown_above`."""
        sizes = {"size": [self.size] * 2, "codec": self.codec.to_config()}
        return {**self.sampling.model_dump(), **sizes, "shown_above": self.options.shown_above}


def copy_text_encoder(clip: Clip) -> TransformerTextEncoder:
    """A text encoder for the decoder, initialised with CLIP's weights. Its token embedding stays frozen."""
    assert clip.text is not None, "this CLIP has no text encoder"
    config = clip.config
    encoder = TransformerTextEncoder(
        TextEncoderConfig(
            width=config.text_width,
            layers=config.text_layers,
            heads=config.text_heads,
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            mlp_ratio=config.text_mlp_ratio,
            quick_gelu=config.quick_gelu,
        )
    )
    weights = {name: value for name, value in clip.text.state_dict().items() if name != "text_projection"}
    encoder.transformer.load_state_dict(weights)
    # Any distinct vectors suffice, and a dense gradient for 49,408 tokens, few of which occur, slows every step down.
    encoder.transformer.token_embedding.requires_grad_(False)
    return encoder


@torch.no_grad()
def whiten_inputs_(linear: nn.Linear, inputs: Tensor, floor: float) -> None:
    """Fold a whitening of the inputs `n d` into a new linear layer: each direction gets equal variance.

    floor: fraction of the inputs' root mean square; quieter directions count as noise and are not raised to it.
    The outputs get unit variance.
    """
    variance, directions = torch.linalg.eigh(inputs.T @ inputs / len(inputs))  # d; d d, in columns
    scale = (variance.clamp(min=0) + floor**2 * inputs.square().mean()).rsqrt()
    linear.weight.copy_(linear.weight @ (directions * scale @ directions.T))
    linear.weight.div_((inputs @ linear.weight.T).std())
