"""Text to image by the model's own steps, for tests that compare tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unclip.modes.base import make_conditioning, make_run
from unclip.pipeline import Unclip
from unclip.requests.request import Request


@torch.inference_mode()
def sample_tensors(pipe: Unclip, requests: Sequence[Request], embed: Tensor | None = None) -> Tensor:
    """Images `b 3 H W` in [-1, 1] of resolved requests. embed: image embeddings `b d`, not from the prior."""
    model, run = pipe.model, make_run(pipe.model, requests)
    text = model.encode_text([request.prompt for request in requests])
    negative = model.encode_text([request.negative_prompt for request in requests])
    given = [None] * len(requests) if embed is None else list(embed)
    return model.sample(make_conditioning(model, given, text, negative, run), run)
