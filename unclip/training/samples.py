"""What training draws in a step besides the pictures, and the contact sheet that shows how far it has come."""

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def to_picture(images: Tensor, columns: int) -> Image.Image:
    """`b 3 h w` in [-1, 1] -> one contact sheet."""
    sheet = make_grid(images.cpu().float().clamp(-1, 1), nrow=columns, padding=2)
    return Image.fromarray(((sheet + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
