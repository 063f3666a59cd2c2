"""The decoder: a GLIDE-like U-Net from a CLIP image embedding, and the text, to pixels.

Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv:2204.06125), section 2.1:
the embedding is projected into the time embedding and into four extra tokens that join the text's.
"""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from unclip.models.attention import attend_to_text
from unclip.models.cpu.resnet import in_place
from unclip.models.projection import TextProjection
from unclip.models.text import TextEncoding
from unclip.models.text_encoder import TextEncoder


class Decoder(nn.Module):
    """The projection and the U-Net. `condition` runs once an image, `forward` once a step."""

    def __init__(
        self,
        projection: TextProjection,
        unet: UNet2DConditionModel,
        channels: int = 3,
        text_encoder: TextEncoder | None = None,
    ):
        """channels: of the latent; what the U-Net takes beyond them are GLIDE's inpainting inputs.

        text_encoder: of its own, or None for a decoder that reads CLIP's states, as the published ones do.
        """
        super().__init__()
        self.projection = projection
        self.unet = in_place(attend_to_text(unet))
        self.channels = channels
        self.text_encoder = text_encoder

    @property
    def knows_masks(self) -> bool:
        """Whether the U-Net was trained with GLIDE's inpainting inputs."""
        return self.unet.config.in_channels > self.channels

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level, which is as large as the latent."""
        return self.unet.config.block_out_channels[0]

    def condition(
        self,
        image_embed: Tensor,
        text: TextEncoding,
        image: Tensor | None = None,
        known: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The conditioning of `forward` for embeddings `b d`, their text, and what is known of the picture.

        pooled: in training, the share `b` of the text's pooled state that joins the time embedding; None for all of it.
        image, known: the clean latent `b c h w` and its mask (1 = known), or None where nothing is known. They become
        GLIDE's inpainting inputs (Nichol et al. 2021, arXiv:2112.10741, section 4.2) where the U-Net knows masks.
        """
        if self.text_encoder is not None:
            text = self.text_encoder(text)
        if pooled is not None:
            text = text._replace(embed=text.embed * pooled[:, None])
        conditioning = self.projection(image_embed, text)
        if self.knows_masks:
            if image is None or known is None:
                side = self.unet.config.sample_size
                conditioning["hint"] = image_embed.new_zeros(len(image_embed), self._hint_channels, side, side)
            else:
                conditioning["hint"] = self.hint(image, known)
        return conditioning

    def hint(self, image: Tensor, known: Tensor) -> Tensor:
        """GLIDE's inpainting inputs `b k h w`, of a clean latent `b c h w` and its mask."""
        # A pixel's mask is the same in its three colours, which the codecs lay one after the other.
        return torch.cat([image * known, known[:, : self._hint_channels - self.channels]], dim=1)

    @staticmethod
    def prepare(conditioning: dict[str, Tensor]) -> dict[str, Tensor]:
        """The conditioning of a run without the tokens that no row sees, and without a mask that hides nothing.

        Padding is most of a short text, and attention over it, and over masks, takes its time at every step.
        """
        seen = conditioning["token_mask"].any(0)
        tokens, mask = conditioning["tokens"][:, seen], conditioning["token_mask"][:, seen]
        rest = {key: value for key, value in conditioning.items() if key not in ("tokens", "token_mask")}
        return rest | {"tokens": tokens} | ({} if mask.all() else {"token_mask": mask})

    @property
    def _hint_channels(self) -> int:
        """Those of the latent, and one mask a pixel."""
        return self.unet.config.in_channels - self.channels

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        tokens: Tensor,
        time_condition: Tensor,
        token_mask: Tensor | None = None,
        hint: Tensor | None = None,
    ) -> Tensor:
        """Noised latent `b c h w` at timesteps `b` -> the network's raw prediction, `b c h w` or `b 2c h w`.

        token_mask: which tokens are to be seen, `b n`; None for all. hint: `b k h w`, the known part of the latent (0
        where unknown) and its mask.
        """
        if hint is not None:
            x = torch.cat([x, hint], dim=1)
        return self.unet(
            x, t, encoder_hidden_states=tokens, class_labels=time_condition, attention_mask=token_mask
        ).sample
