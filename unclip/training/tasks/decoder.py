"""What CLIP, the prior and the decoder train: a network, its loss, and a picture of its progress, each a Task.

The one loop is in `loop.py`, the upsampler's task in `upsampling.py`.
"""

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.noise import make_generators
from unclip.diffusion.samplers import DRAFT
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.inference.stage import Stage
from unclip.models.clip import Clip
from unclip.models.decoder import Decoder
from unclip.models.projection import TextProjection, TextProjectionConfig
from unclip.models.text_encoder import TextEncoderConfig, TransformerTextEncoder
from unclip.training.augmentation import is_bare, with_drafts, with_known
from unclip.training.losses import draw_noise, velocity_error
from unclip.training.recipe import StageRecipe, build
from unclip.training.samples import to_picture
from unclip.training.tasks.base import Examples, Loss, check_multiple, coarsest, new_part
from unclip.training.tasks.frozen_clip import FrozenClip, leave_out
from unclip.training.tasks.options import DecoderOptions, decoder_size


class DecoderTask:
    """The decoder's objective: the velocity's error, from the embedding, the text and GLIDE's inpainting inputs."""

    def __init__(self, recipe: StageRecipe, clip: FrozenClip, examples: Examples):
        self.options = build(DecoderOptions, recipe.task, f"{recipe.source} [decoder.task]")
        self.clip = clip
        self.codec = PixelUnshuffle(self.options.patch)
        self.sampling = recipe.sampling
        where = f"{recipe.source} [decoder.model]"
        self.size = self.output_size = decoder_size(recipe)
        check_multiple(where, "size", self.size, self.options.patch)
        shape = self.codec.latent_shape(self.size, self.size)
        mask_channels = self.options.patch**2
        unet = new_part(
            "UNet2DConditionModel",
            {
                "resnet_time_scale_shift": "scale_shift",
                "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
                **{key: value for key, value in recipe.model.items() if key != "size"},
            },
            {
                "sample_size": shape[1],
                "in_channels": 2 * shape[0] + mask_channels,
                "out_channels": shape[0],
                "class_embed_type": "identity",
            },
            where,
        )
        check_multiple(where, "size", self.size, coarsest(self.options.patch, unet))
        projection = TextProjectionConfig(
            clip_embeddings_dim=clip.clip.config.embed_dim,
            time_embed_dim=4 * unet.config.block_out_channels[0],
            cross_attention_dim=unet.config.cross_attention_dim,
        )
        own_text = own_text_encoder(clip.clip) if self.options.own_text else None
        self.network = Decoder(TextProjection(projection), unet, shape[0], own_text).to(clip.device)
        self._see_all_directions(*examples(self.size, 512))
        self.predicts = self.options.prediction
        self.schedule = Schedule(prediction_type=self.predicts, clip=1.0)
        self.shape = shape
        self.examples = examples

    def loss(self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator) -> Loss:
        options = self.options
        drop_embed, drop_text = torch.rand(2, len(images), generator=generator).to(images.device)
        shown, known, window = with_known(
            images, options.known, options.moved, options.beside, options.views, generator
        )
        shown, drafted = with_drafts(shown, known, options.drafts, generator)
        # A decoder that is trained on windows: where something is known and more is to be painted, that is always told,
        # a window always by the text; where nothing is told, nothing is. Whether a picture shows already what a prompt
        # names, CLIP tells better than a decoder (see `shown_above`). A draft tells, too.
        given = known.flatten(1).any(1) & bool(options.moved)
        silent, blind = drop_text < options.text_drop, drop_embed < options.embed_drop
        nothing = is_bare(shown, known) & (window | (given | drafted) & (drop_text < 0.5))
        read = self.clip.text if self.network.text_encoder is None else self.clip.tokens
        text = read(leave_out(captions, nothing | silent & ~window & ~(given & blind)))
        gone = (nothing | blind)[:, None]
        # The embedding is of the whole picture, as the prior's of its caption is, whatever a window shows of it.
        embed = torch.where(gone, self.network.projection.null_embed, self.clip.image(images))
        x0 = self.codec.encode(shown)  # b c h w
        t, noise = draw_noise(x0, self.schedule, generator, options.noise_shift)
        t = torch.where(drafted, (DRAFT * t).long(), t)
        heard = (torch.rand(len(images), generator=generator) >= options.pooled_drop).to(x0)
        conditioning = self.network.condition(embed, text, x0, self.codec.encode_mask(known), pooled=heard)
        x_t = add_noise(x0, noise, t, self.schedule)
        return velocity_error(network(x_t, t, **conditioning), x_t, x0, t, self.schedule), {}

    def _see_all_directions(self, images: Tensor, captions: list[str]) -> None:
        """Scale the projection's initial weights so that they pass on every direction of what CLIP says alike.

        A contrastive embedding spends nearly all of its length on a few directions (here the dozen that tell the
        backgrounds apart) and says what is shown in others, ten to a hundred times shorter, which fresh weights would
        all but hide from the decoder.
        """
        projection, parts = self.network.projection, list(zip(images.split(64), range(0, len(images), 64), strict=True))
        texts = [self.clip.text(captions[i : i + len(part)]) for part, i in parts]
        if self.network.text_encoder is not None:
            with torch.no_grad():
                texts = [self.network.text_encoder(text) for text in texts]
        embeds = torch.cat([self.clip.image(part) for part, _ in parts])
        whiten_(projection.clip_image_embeddings_project_to_time_embeddings, embeds, 0.3)
        whiten_(projection.clip_extra_context_tokens_proj, embeds, 0.3)
        whiten_(projection.embedding_proj, torch.cat([text.embed for text in texts]), 0.3)
        whiten_(projection.encoder_hidden_states_proj, torch.cat([text.states[text.mask] for text in texts]), 0.1)

    def stage(self) -> Stage:
        sampler, steps, guidance = self.sampling.sampler, self.sampling.steps, self.sampling.guidance
        return Stage("decoder", self.network, self.schedule, self.shape, self.codec, sampler, steps, guidance)

    @torch.no_grad()
    def grid(self) -> Image.Image:
        images, captions = self.examples(self.size)
        cond = self.network.condition(self.clip.image(images), self.clip.text(captions))
        null = self.network.projection.null_embed.expand(len(images), -1)
        uncond = self.network.condition(null, self.clip.text([""] * len(images)))
        drawn = self.stage().run(cond, uncond, make_generators(range(len(images))))
        return to_picture(torch.cat([images[:8], drawn[:8], images[8:], drawn[8:]]), 8)

    def networks(self) -> dict[str, nn.Module]:
        own = {} if self.network.text_encoder is None else {"decoder_text": self.network.text_encoder}
        return {"decoder": self.network.unet, "text_proj": self.network.projection, **own}


def own_text_encoder(clip: Clip) -> TransformerTextEncoder:
    """A text encoder for a decoder of its own, which starts with CLIP's weights and keeps CLIP's vectors for tokens."""
    config = clip.config
    sizes = {"layers": config.text_layers, "heads": config.text_heads, "context_length": config.context_length}
    encoder = TransformerTextEncoder(TextEncoderConfig(width=config.text_width, vocab_size=config.vocab_size, **sizes))
    weights = {name: value for name, value in clip.text.state_dict().items() if name != "text_projection"}
    encoder.transformer.load_state_dict(weights)
    # Any vectors that differ will do, and a dense gradient for 49,408 tokens, of which few occur, slows down each step.
    encoder.transformer.token_embedding.requires_grad_(False)
    return encoder


@torch.no_grad()
def whiten_(linear: nn.Linear, inputs: Tensor, floor: float) -> None:
    """Put before a fresh linear map the one that gives its inputs `n d` equal variance in each direction.

    Directions whose root mean square is below `floor` of the inputs' own are taken for noise, and not raised to it. The
    outputs come to have unit variance.
    """
    variance, directions = torch.linalg.eigh(inputs.T @ inputs / len(inputs))  # d; d d, in columns
    scale = (variance.clamp(min=0) + floor**2 * inputs.square().mean()).rsqrt()
    linear.weight.copy_(linear.weight @ (directions * scale @ directions.T))
    linear.weight.div_((inputs @ linear.weight.T).std())
