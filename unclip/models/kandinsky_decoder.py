"""Kandinsky's decoder: a latent U-Net that is conditioned on a CLIP image embedding, and in version 2.1 on text too.

Razzhigaev et al. 2023, "Kandinsky: an Improved Text-to-Image Synthesis with Image Prior and Latent Diffusion"
(arXiv:2310.03502). The U-Net projects the embedding itself: into its time embedding, and into the tokens that it
attends to.
"""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from unclip.models.attention import use_text_attention
from unclip.models.config import diffusers_config
from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.cpu.resnet import use_in_place_blocks
from unclip.models.image_projection import project_once
from unclip.models.text import TextEncoding

LATENT_CHANNELS = 4


class KandinskyDecoder(nn.Module):
    """The U-Net. `condition` runs once per image, `forward` once per denoising step."""

    guided_by_embedding = True
    """Guidance steers away from an image embedding: of the negative prompt, or of a blank image."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = use_batch_invariant_layers(project_once(use_in_place_blocks(use_text_attention(unet))))

    @property
    def has_inpainting_inputs(self) -> bool:
        """Whether the U-Net was trained with a masked latent and its mask as further inputs."""
        return diffusers_config(self.unet).in_channels > LATENT_CHANNELS

    @property
    def reads_text(self) -> bool:
        """Whether the U-Net is conditioned on text, as in version 2.1."""
        return diffusers_config(self.unet).encoder_hid_dim_type == "text_image_proj"

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
    ) -> dict[str, Tensor]:
        """The conditioning of `forward` for image embeddings `b d` and their text.

        image, known: clean latent `b 4 h w` and its mask (1 = known), for a U-Net with inpainting inputs. None if no
        pixel is known: `Stage` then fills the inputs with zeros.
        """
        assert image_embed is not None, "this decoder is guided by image embeddings"
        conditioning = {"image_embed": image_embed}
        if self.reads_text:
            own = text.for_decoder
            conditioning |= {"text_embed": own.embed, "text_states": own.states}
        if self.has_inpainting_inputs and image is not None and known is not None:
            conditioning["hint"] = self.hint(image, known)
        return conditioning

    def hint(self, image: Tensor, known: Tensor) -> Tensor:
        """Masked latent, then mask: the inputs `b 5 h w` from a clean latent `b 4 h w` and its mask `b 1 h w`."""
        return torch.cat([image * known, known], dim=1)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        image_embed: Tensor,
        text_embed: Tensor | None = None,
        text_states: Tensor | None = None,
        hint: Tensor | None = None,
        guidance_embed: Tensor | None = None,
    ) -> Tensor:
        """Noised latent `b 4 h w` at timesteps `b` -> the noise, and a learned variance: `b 8 h w`.

        image_embed: `b d`. text_embed, text_states: `b d`, `b n d`, of version 2.1. hint: `b 5 h w`.
        guidance_embed: `b g`, the embedded guidance scale, of a network that has learned guidance.
        """
        if self.has_inpainting_inputs:
            if hint is None:  # no pixel is known
                hint = x.new_zeros(len(x), diffusers_config(self.unet).in_channels - LATENT_CHANNELS, *x.shape[2:])
            x = torch.cat([x, hint], dim=1)  # b 9 h w
        added = {"image_embeds": image_embed} | ({} if text_embed is None else {"text_embeds": text_embed})
        return self.unet(
            x, t, encoder_hidden_states=text_states, timestep_cond=guidance_embed, added_cond_kwargs=added
        ).sample
