"""The decoder: a GLIDE-like U-Net from a CLIP image embedding and the text to pixels.

Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv:2204.06125), section 2.1:
the embedding is projected into the time embedding and into four extra tokens, which are prepended to the text's.
"""

from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.models.attention import use_text_attention
from unclip.models.config import diffusers_config
from unclip.models.cpu.batch_invariance import keep_whole_blocks, needs_invariance, use_batch_invariant_layers
from unclip.models.cpu.resnet import use_in_place_blocks
from unclip.models.layout import LAYOUT_SIZE, MAP_CHANNELS, layout_map, random_layout
from unclip.models.projection import TextProjection
from unclip.models.text import TextEncoding
from unclip.models.text_encoder import TransformerTextEncoder


class Decoder(nn.Module):
    """The projection and the U-Net. `condition` runs once per image, `forward` once per denoising step."""

    def __init__(
        self,
        projection: TextProjection,
        unet: UNet2DConditionModel,
        channels: int = 3,
        text_encoder: TransformerTextEncoder | None = None,
    ):
        """channels: of the latent; the U-Net's further input channels are GLIDE's inpainting inputs, and then the
        coordinates of a layout, where `projection` knows layouts.

        text_encoder: trained with this decoder; None for a decoder conditioned on CLIP's states, as published ones are.
        Raises CheckpointError for a projection with layouts and a U-Net without inputs for their coordinates.
        """
        super().__init__()
        size, inputs = projection.config.layout_size, diffusers_config(unet).in_channels
        if size and (size != LAYOUT_SIZE or inputs < channels + MAP_CHANNELS):
            raise CheckpointError(
                f"text_proj has layout_size {size}, which needs to be {LAYOUT_SIZE}, and a decoder of at least "
                f"{channels + MAP_CHANNELS} input channels, not {inputs}: use the files of one model"
            )
        self.projection = projection
        self.unet = use_in_place_blocks(use_text_attention(unet))
        self.channels = channels
        self.text_encoder = text_encoder
        use_batch_invariant_layers(self)

    guided_by_embedding = False
    """Guidance steers away from the learned null embedding and the negative prompt's text."""

    @property
    def null_embed(self) -> Tensor:
        """The learned image embedding `d` of no image."""
        return self.projection.null_embed

    @property
    def has_inpainting_inputs(self) -> bool:
        """Whether the U-Net was trained with GLIDE's inpainting inputs."""
        return self._hint_channels > 0

    @property
    def has_layouts(self) -> bool:
        """Whether the decoder was trained with layouts (`models.layout`)."""
        return self.projection.config.layout_size > 0

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level, which has the latent's height and width."""
        return diffusers_config(self.unet).block_out_channels[0]

    def condition(
        self,
        image_embed: Tensor | None,
        text: TextEncoding,
        image: Tensor | None = None,
        known: Tensor | None = None,
        pooled: Tensor | None = None,
        layout: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The conditioning of `forward` for image embeddings `b d` and their text. None: the learned null embedding.

        image, known: clean latent `b c h w` and its mask (1 = known); None if no pixel is known. They become GLIDE's
        inpainting inputs (Nichol et al. 2021, arXiv:2112.10741, "Image Inpainting") if the U-Net was trained with them.
        pooled: for training, factors `b` of the text's pooled state in the time embedding; None keeps it.
        layout: `b l`, for a decoder that has layouts; None, or rows of zeros, leaves it open.
        """
        if self.text_encoder is not None:
            text = self.text_encoder(text)
        if pooled is not None:
            text = text._replace(embed=text.embed * pooled[:, None])
        if image_embed is None:
            image_embed = self.projection.null_embed.expand(len(text.embed), -1)
        conditioning = self.projection(image_embed, text, layout)
        side = diffusers_config(self.unet).sample_size
        if self.has_inpainting_inputs:
            if image is None or known is None:
                conditioning["hint"] = image_embed.new_zeros(len(image_embed), self._hint_channels, side, side)
            else:
                conditioning["hint"] = self.hint(image, known)
        if self.has_layouts:
            if layout is None:
                layout = image_embed.new_zeros(len(image_embed), self.projection.config.layout_size)
            conditioning["coordinates"] = layout_map(layout.to(image_embed.device, torch.float32), side)
        return conditioning

    def random_layouts(self, seeds: Sequence[int]) -> Tensor:
        """A layout `b l` for each seed, as the training data have them, for a decoder that has layouts."""
        config = self.projection.config
        layouts = [random_layout(seed, config.layout_spread, config.layout_vary) for seed in seeds]
        return torch.tensor(layouts, device=self.projection.null_embed.device)

    def hint(self, image: Tensor, known: Tensor) -> Tensor:
        """GLIDE's inpainting inputs `b k h w` from a clean latent `b c h w` and its mask: masked latent, then mask."""
        # A pixel's mask is equal in its three colours, which the codecs place one after the other.
        return torch.cat([image * known, known[:, : self._hint_channels - self.channels]], dim=1)

    @staticmethod
    def prepare(conditioning: dict[str, Tensor]) -> dict[str, Tensor]:
        """Conditioning without the tokens that are masked in every row, and without a mask that masks nothing.

        Most of a short prompt is padding, and attention over padding and with a mask costs time at every step.
        """
        seen = conditioning["token_mask"].any(0)
        if needs_invariance(conditioning["tokens"]):
            seen = keep_whole_blocks(seen)
        tokens, mask = conditioning["tokens"][:, seen], conditioning["token_mask"][:, seen]
        rest = {key: value for key, value in conditioning.items() if key not in ("tokens", "token_mask")}
        return rest | {"tokens": tokens} | ({} if mask.all() else {"token_mask": mask})

    @property
    def _hint_channels(self) -> int:
        """Channels of the masked latent, and one mask channel per pixel of a latent position."""
        map_channels = MAP_CHANNELS if self.has_layouts else 0
        return diffusers_config(self.unet).in_channels - self.channels - map_channels

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        tokens: Tensor,
        time_condition: Tensor,
        token_mask: Tensor | None = None,
        hint: Tensor | None = None,
        coordinates: Tensor | None = None,
        guidance_embed: Tensor | None = None,
    ) -> Tensor:
        """Noised latent `b c h w` at timesteps `b` -> the network's raw prediction, `b c h w` or `b 2c h w`.

        tokens: `b n c`. time_condition: `b t`. token_mask: `b n`, True for tokens to attend to; None for all.
        hint: `b k h w`, the known part of the latent (0 where unknown) and its mask.
        coordinates: `b m h w`, of the positions in a layout.
        guidance_embed: `b g`, the embedded guidance scale, of a network that has learned guidance.
        """
        if extra := [each for each in (hint, coordinates) if each is not None]:
            x = torch.cat([x, *extra], dim=1)  # b c+k+m h w
        return self.unet(
            x,
            t,
            encoder_hidden_states=tokens,
            class_labels=time_condition,
            timestep_cond=guidance_embed,
            attention_mask=token_mask,
        ).sample
