"""The conditions of sampling: embeddings and text, known pixels, and the initial noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.samplers import DRAFT_NOISE
from unclip.models.text import TextEncoding


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of the decoder.

    embed: CLIP image embeddings `b d`. text: the encoded prompts. negative: the encoded negative prompts, which
    guidance steers away from. negative_embed: image embeddings `b d` that guidance steers away from, for decoders that
    are guided by embeddings; None for that of a blank image.
    """

    embed: Tensor
    text: TextEncoding
    negative: TextEncoding
    negative_embed: Tensor | None = None

    def rows(self, indices: Sequence[int]) -> "Conditioning":
        """The conditioning of some images, in the order of `indices`."""
        negative_embed = None if self.negative_embed is None else self.negative_embed[indices]
        return Conditioning(self.embed[indices], self.text.rows(indices), self.negative.rows(indices), negative_embed)


@dataclass(frozen=True)
class Start:
    """The start of sampling; by default, new noise.

    noise: the initial noise `b c h w` of inverted images (see `UnclipModel.invert`).
    draft: a rough image `b 3 H W` in [-1, 1], which is noised and denoised again (SDEdit).
    draft_noise: noise level of the draft, as a fraction of the schedule.
    eta: fraction of the noise that each step renews, 0 .. 1; sampler "ddim" only.
    """

    noise: Tensor | None = None
    draft: Tensor | None = None
    eta: float = 0.0
    draft_noise: float = DRAFT_NOISE


@dataclass(frozen=True)
class Known:
    """The pixels to preserve.

    image: `b 3 H W` in [-1, 1]. mask: `b 1 H W`; 1 = keep, 0 = generate, values between blend.
    """

    image: Tensor
    mask: Tensor

    def resized(self, height: int, width: int) -> "Known":
        """The same at another size. Masked pixels do not bleed into the known ones: the mean is over known pixels.

        A resized pixel is as known as the least known pixel in it.
        """
        if self.image.shape[-2:] == (height, width):
            return self

        def resize(values: Tensor) -> Tensor:  # bilinear: its weights are never negative
            return F.interpolate(values, size=(height, width), mode="bilinear", antialias=True)

        image = resize(self.image * self.mask) / resize(self.mask).clamp(min=1e-6)
        return Known(image, 1 - F.adaptive_max_pool2d(1 - self.mask, (height, width)))

    @property
    def hint(self) -> tuple[Tensor, Tensor]:
        """GLIDE's inpainting inputs: the image `b 3 H W`, and a mask `b 1 H W` of the fully known pixels."""
        return self.image, (self.mask == 1).to(self.mask)
