"""The frozen CLIP computes in float32."""

import torch

from tests.training.tasks.helpers import example_images
from unclip.training.tasks.frozen_clip import FrozenClip


def test_the_frozen_clip_ignores_autocast(clip: FrozenClip):
    images, captions = example_images(16, 4)
    image, text = clip.encode_images(images), clip.encode_text(captions)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip.encode_images(images), image)
        assert all(torch.equal(a, b) for a, b in zip(clip.encode_text(captions)[:4], text[:4], strict=True))
