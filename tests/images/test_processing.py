import numpy as np
import torch
from PIL import Image

from unclip.images.processing import to_images, to_tensor


def test_images_and_tensors_convert_without_loss() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.dtype) == ((3, 5, 7), torch.float32)
    assert (tensor.min() >= -1, tensor.max() <= 1) == (True, True)
    assert to_images(tensor[None])[0].tobytes() == image.tobytes()
    assert np.asarray(to_images(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))[1]).tolist() == [
        [[255, 255, 255]]
    ]
