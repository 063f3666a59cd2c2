"""What sampling is conditioned on: embeddings and text, known pixels, and the initial noise."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """What is to stay as it is. image: `b 3 H W` in [-1, 1]; mask: `b 1 H W`, 1 = keep, 0 = free, between: blend."""

    image: Tensor
    mask: Tensor

    def resized(self, height: int, width: int) -> "Known":
        """The same at another size. What is free has no share in the image; a pixel is as known as its freest part.

        A mean over kept and free pixels would carry what is to be painted over, or the void beyond an edge, into what
        is kept.
        """
        if self.image.shape[-2:] == (height, width):
            return self

        def resize(values: Tensor) -> Tensor:  # bilinear: its weights are never negative
            return F.interpolate(values, size=(height, width), mode="bilinear", antialias=True)

        image = resize(self.image * self.mask) / resize(self.mask).clamp(min=1e-6)
        return Known(image, 1 - F.adaptive_max_pool2d(1 - self.mask, (height, width)))

    @property
    def hint(self) -> tuple[Tensor, Tensor]:
        """GLIDE's inpainting inputs: the image and a mask of what is known in full."""
        return self.image, (self.mask == 1).to(self.mask)
