"""Stable unCLIP's decoder: Stable Diffusion 2.1, fine-tuned to be conditioned on a noised CLIP image embedding.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752). The embedding is
noised as in Saharia et al. 2022 (arXiv:2205.11487), appendix A.1 ("noise conditioning augmentation").
"""

from dataclasses import asdict, dataclass

import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from unclip.models.attention import use_text_attention
from unclip.models.config import diffusers_config
from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.cpu.resnet import use_in_place_blocks
from unclip.models.text import TextEncoding

LATENT_CHANNELS = 4


@dataclass(frozen=True)
class ImageNormalizerConfig:
    """embedding_dim: values of a CLIP image embedding."""

    embedding_dim: int = 768

    def to_dict(self) -> dict:
        return asdict(self)


class ImageNormalizer(nn.Module):
    """The mean and the standard deviation of CLIP image embeddings. Parameters have the published names, `1 d`."""

    def __init__(self, config: ImageNormalizerConfig):
        super().__init__()
        self.config = config
        self.mean = nn.Parameter(torch.zeros(1, config.embedding_dim))
        self.std = nn.Parameter(torch.ones(1, config.embedding_dim))


class StableUnclipDecoder(nn.Module):
    """The normalizer and the U-Net. `condition` runs once per image, `forward` once per denoising step."""

    guided_by_embedding = False
    """Guidance steers away from zeros in the place of the embedding, and from the negative prompt's text."""
    has_inpainting_inputs = False

    def __init__(self, normalizer: ImageNormalizer, unet: UNet2DConditionModel, alphas_cumprod: Tensor):
        """alphas_cumprod: alpha bar `t` of the schedule that noises embeddings."""
        super().__init__()
        self.normalizer = normalizer
        self.unet = use_batch_invariant_layers(use_in_place_blocks(use_text_attention(unet)))
        self.alphas_cumprod = alphas_cumprod

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level, which has the latent's height and width."""
        return diffusers_config(self.unet).block_out_channels[0]

    @property
    def null_embed(self) -> Tensor:
        """The embedding `d` of no image: the mean of all."""
        return self.normalizer.mean[0]

    @property
    def noise_levels(self) -> int:
        """Levels of the noise that can be added to an embedding."""
        return len(self.alphas_cumprod)

    def augment(self, image_embed: Tensor, noise: Tensor, level: int | Tensor = 0) -> Tensor:
        """Embeddings `b d` with noise `b d` added, then the noise level's embedding: `b 2d`.

        level: a timestep of the noising schedule, or one for each embedding `b`; 0, the least noise, is the published
        default.
        """
        times = torch.as_tensor(level, device=image_embed.device).expand(len(image_embed))  # b
        alpha_bar = self.alphas_cumprod.to(times.device)[times, None]  # b 1
        mean, std = self.normalizer.mean.float(), self.normalizer.std.float()
        x = alpha_bar**0.5 * ((image_embed.float() - mean) / std) + (1 - alpha_bar) ** 0.5 * noise
        level_embed = get_timestep_embedding(times, x.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([x * std + mean, level_embed], dim=1)

    def condition(
        self, image_embed: Tensor | None, text: TextEncoding, image: Tensor | None = None, known: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The conditioning of `forward` for augmented embeddings `b 2d` and their text. None: no embedding.

        image, known: not used, for there is no U-Net with inpainting inputs.
        """
        if image_embed is None:
            size = 2 * self.normalizer.mean.shape[1]
            image_embed = text.for_decoder.states.new_zeros(len(text.for_decoder.states), size)
        return {"image_embed": image_embed, "text_states": text.for_decoder.states}

    def forward(
        self, x: Tensor, t: Tensor, image_embed: Tensor, text_states: Tensor, guidance_embed: Tensor | None = None
    ) -> Tensor:
        """Noised latent `b 4 h w` at timesteps `b` -> the velocity `b 4 h w`.

        image_embed: `b 2d`. text_states: `b n w`, of the prompt and its padding. guidance_embed: `b g`, the embedded
        guidance scale, of a network that has learned guidance.
        """
        return self.unet(
            x, t, encoder_hidden_states=text_states, class_labels=image_embed, timestep_cond=guidance_embed
        ).sample
