"""Contact sheets of samples, which show the progress of a training run."""

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def contact_sheet(images: Tensor, columns: int) -> Image.Image:
    """Images `b 3 h w` in [-1, 1] -> one image with `columns` of them in a row."""
    sheet = make_grid(images.cpu().float().clamp(-1, 1), nrow=columns, padding=2)
    return Image.fromarray(((sheet + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
