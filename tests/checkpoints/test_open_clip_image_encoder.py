"""An image encoder of open_clip with the text encoder of a published checkpoint. Downloads nothing."""

from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from safetensors.torch import save_file

from unclip import CheckpointError, Unclip

CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 20, "head_width": 10, "patch_size": 7},
}


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VisionTransformer:
    """The image encoder "Tiny/random", registered in open_clip with weights in the hub's cache."""
    torch.manual_seed(0)
    encoder = VisionTransformer(28, 7, 20, 2, 2, 4.0, output_dim=16, act_layer=QuickGELU).eval()
    held = {f"visual.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file({**held, "logit_scale": torch.tensor(1.0)}, tmp_path / "open_clip_model.safetensors")
    weights = {"hf_hub": "tiny/random/", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "quick_gelu": True}
    real = open_clip.get_model_config
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: CONFIG if name == "Tiny" else real(name))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda _, tag: weights if tag == "random" else {})

    def cached(repository: str, file: str, local_files_only: bool = False) -> str:
        assert (repository, local_files_only) == ("tiny/random", True)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    return encoder


@pytest.mark.parametrize("memory", ["high", "low"])
def test_embeddings_are_those_of_open_clip(karlo, encoder: VisionTransformer, memory: str) -> None:
    pipe = Unclip.from_pretrained(karlo("one")[0], "cpu", "float32", memory, image_encoder="Tiny/random")
    assert pipe.model.image_encoder == "Tiny/random"
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    x = (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    with torch.inference_mode():
        expected = encoder(x)
    torch.testing.assert_close(pipe.embed_image(Image.fromarray(pixels)), expected, rtol=0, atol=1e-4)
    assert torch.equal(
        pipe.model.encode_text(["a cat"]).embed,
        Unclip.from_pretrained(karlo("one")[0], "cpu", "float32").model.encode_text(["a cat"]).embed,
    )


def test_image_encoders_that_do_not_fit_are_refused(karlo, encoder: VisionTransformer) -> None:
    with pytest.raises(CheckpointError, match="Tiny/random: embed_dim is 16, the text's is 24"):
        Unclip.from_pretrained(karlo("other")[0], "cpu", "float32", image_encoder="Tiny/random")
    for name in ("Tiny", "Tiny/other"):
        with pytest.raises(CheckpointError, match="no weights"):
            Unclip.from_pretrained(karlo("one")[0], "cpu", "float32", image_encoder=name)
    with pytest.raises(CheckpointError, match="not a vision transformer"):
        of_resnet = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "layers": [3, 4]}}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(open_clip, "get_model_config", lambda _: of_resnet)
            Unclip.from_pretrained(karlo("one")[0], "cpu", "float32", image_encoder="Tiny/random")
