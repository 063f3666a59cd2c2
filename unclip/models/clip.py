"""CLIP: open_clip's text and image encoders. All other networks are conditioned on its embeddings.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020).
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from torch import Tensor, nn

from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.text import TextEncoding, prompt_mask
from unclip.models.tokenizer import PAD


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the two encoders. A model has at least one of them.

    Published checkpoints differ in more than size; the fields from `normalize` on describe the differences.
    """

    embed_dim: int = 160
    image_size: int = 64
    patch_size: int = 8
    vision_width: int = 192
    vision_layers: int = 6  # 0: no image encoder
    vision_heads: int = 6
    context_length: int = 32
    vocab_size: int = 49408
    text_width: int = 160
    text_layers: int = 4  # 0: no text encoder
    text_heads: int = 5
    quick_gelu: bool = False
    normalize: bool = True  # scale embeddings to length sqrt(embed_dim); published checkpoints do not
    text_mlp_ratio: float = 4.0
    vision_mlp_ratio: float = 4.0
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of pixels in [0, 1], for the image encoder
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    center_crop: bool = False  # make images square by a crop of the centre; False squeezes them
    transformers_tokens: bool = False  # tokenize as transformers does (see `Tokenizer`)
    pad_token: str = PAD  # of such tokens

    def __post_init__(self) -> None:
        for name in ("pixel_mean", "pixel_std"):  # JSON gives lists
            values = tuple(getattr(self, name))
            if not all(isinstance(value, int | float) for value in values):
                raise ValueError(f"{name} is {values}, and should be three numbers")
            object.__setattr__(self, name, values)

    def to_dict(self) -> dict:
        return asdict(self)


class Clip(nn.Module):
    """An open_clip model, with the parameter names of `open_clip.CustomTextCLIP`. `visual` or `text` may be None."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        act_layer = QuickGELU if config.quick_gelu else nn.GELU
        self.visual = None
        if config.vision_layers:
            self.visual = VisionTransformer(
                image_size=config.image_size,
                patch_size=config.patch_size,
                width=config.vision_width,
                layers=config.vision_layers,
                heads=config.vision_heads,
                mlp_ratio=config.vision_mlp_ratio,
                output_dim=config.embed_dim,
                pool_type="none",  # see `encode_tokens`
                act_layer=act_layer,
            )
        self.text = None
        if config.text_layers:
            self.text = TextTransformer(
                context_length=config.context_length,
                vocab_size=config.vocab_size,
                width=config.text_width,
                layers=config.text_layers,
                heads=config.text_heads,
                mlp_ratio=config.text_mlp_ratio,
                output_dim=config.embed_dim,
                output_tokens=True,
                pool_type="none",  # see `encode_tokens`
                act_layer=act_layer,
            )
        use_batch_invariant_layers(self)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def encode_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> TextEncoding:
        """Token ids and mask `b n` -> embeddings `b d`, states `b n w`, in float32.

        mask: by default, True up to the end-of-text token. The model must have a text encoder.
        """
        assert self.text is not None, "this CLIP has no text encoder"
        embeds, states = self.text(tokens)  # b n d, b n w
        # Projected, then picked: a product with one row per prompt would depend on the batch.
        first_end = tokens.argmax(dim=-1)
        embed = embeds[torch.arange(len(tokens), device=tokens.device), first_end]  # b d
        mask = prompt_mask(tokens) if mask is None else mask
        return TextEncoding(self._normalize(embed.float()), states.float(), mask, tokens)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images `b 3 h w` in [-1, 1], of any size -> embeddings `b d` in float32.

        The model must have an image encoder.
        """
        assert self.visual is not None, "this CLIP has no image encoder"
        size = self.config.image_size
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        if (self.config.pixel_mean, self.config.pixel_std) != (ClipConfig.pixel_mean, ClipConfig.pixel_std):
            mean, std = (images.new_tensor(v)[:, None, None] for v in (self.config.pixel_mean, self.config.pixel_std))
            images = ((images + 1) / 2 - mean) / std
        return self._encode_pixels(images)

    def zero_embed(self) -> Tensor:
        """The embedding `d` of an image whose normalized pixels are all zero.

        Kandinsky's decoders were trained to take it for no image. The model must have an image encoder.
        """
        size = self.config.image_size
        return self._encode_pixels(torch.zeros(1, 3, size, size, device=self.logit_scale.device))[0]

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        """Normalized pixels `b 3 s s` -> embeddings `b d`."""
        assert self.visual is not None, "this CLIP has no image encoder"
        tokens = self.visual(pixels.to(self.visual.conv1.weight.dtype))  # b n d, all projected, as in `encode_tokens`
        return self._normalize(tokens[:, 0].float())  # the class token

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images `b 3 h w` and tokens `b n` -> image and text embeddings `b d`, and the logit scale, for training."""
        return self.encode_image(images), self.encode_tokens(tokens).embed, self.logit_scale

    def _normalize(self, embed: Tensor) -> Tensor:
        # Length sqrt(d) gives each dimension unit variance on average, as the prior and the decoder expect.
        return F.normalize(embed, dim=-1) * embed.shape[-1] ** 0.5 if self.config.normalize else embed
