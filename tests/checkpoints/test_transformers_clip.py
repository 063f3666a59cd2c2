"""CLIP encoders that transformers saved give the same numbers here, at all sizes and with all tokenizers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.published import randomize, tokenizer
from unclip.checkpoints import offload
from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.settings import ClipTextSettings
from unclip.checkpoints.transformers_clip import find_clip, mlp_ratio, prepare_clip, prepare_text_encoder
from unclip.errors import CheckpointError
from unclip.inference.encoder import Encoder
from unclip.models.tokenizer import Tokenizer

CPU = torch.device("cpu")
NUMBERS = "one two three four five six seven eight nine ten "
PROMPTS = ["a red cat!", "", "hello!world ! !!!", "<|endoftext|> x", NUMBERS * 3]


def sizes(width: int, heads: int, layers: int, hidden: int, **more: object) -> dict:
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": hidden,
        **more,
    }


TEXTS = {  # as bigG, H and L differ: gelu or quick_gelu, the projection as wide as the states or not
    "bigG": sizes(30, 5, 3, 120, projection_dim=30, hidden_act="gelu"),
    "H": sizes(24, 3, 2, 96, projection_dim=20, hidden_act="gelu"),
    "L": sizes(16, 2, 1, 50, projection_dim=16, hidden_act="quick_gelu"),
}
IMAGES = {
    "bigG": sizes(26, 2, 3, 131, image_size=28, patch_size=14),
    "H": sizes(20, 4, 2, 80, image_size=32, patch_size=8),
    "L": sizes(16, 2, 1, 64, image_size=24, patch_size=12),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CLIPTokenizer]:
    """CLIP's tokenizer by its pad token, each saved in its own folder."""
    made = {}
    for pad in ("!", "<|endoftext|>"):
        folder = tmp_path_factory.mktemp("tokenizer")
        made[pad] = tokenizer(folder, 17, pad)
        made[pad].save_pretrained(folder / "saved")
        made[pad].name_or_path = str(folder / "saved")
    return made


def text_config(name: str) -> CLIPTextConfig:
    return CLIPTextConfig(**TEXTS[name], max_position_embeddings=17, eos_token_id=2 if name == "L" else 49407)


def save_text(folder: Path, name: str, tokens: CLIPTokenizer, prefix: str = "") -> CLIPTextModelWithProjection:
    text = randomize(CLIPTextModelWithProjection(text_config(name)), 1)
    text.save_pretrained(folder / f"{prefix}text_encoder")
    shutil.copytree(tokens.name_or_path, folder / f"{prefix}tokenizer")
    return text


def save_images(
    folder: Path, name: str, preprocessing: str = "image_processor"
) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    act, dim, side = TEXTS[name]["hidden_act"], TEXTS[name]["projection_dim"], IMAGES[name]["image_size"]
    config = CLIPVisionConfig(**IMAGES[name], hidden_act=act, projection_dim=dim)
    images = randomize(CLIPVisionModelWithProjection(config), 2)
    images.save_pretrained(folder / "image_encoder")
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor.save_pretrained(folder / preprocessing)
    return images, processor


def tokenized(tokens: CLIPTokenizer) -> tuple[Tensor, Tensor]:
    found = tokens(PROMPTS, padding="max_length", truncation=True, max_length=17, return_tensors="pt")
    return found.input_ids, found.attention_mask.bool()


@pytest.mark.parametrize("pad", ["!", "<|endoftext|>"])
@pytest.mark.parametrize("name", TEXTS)
def test_text_is_encoded_as_in_transformers(name: str, pad: str, tokenizers, tmp_path: Path) -> None:
    text = save_text(tmp_path, name, tokens := tokenizers[pad])
    clip = ComponentLoader(tmp_path, CPU, torch.float32).load_clip(*prepare_clip(find_clip(tmp_path, None), CPU))
    assert clip.visual is None
    ids, mask = tokenized(tokens)
    found = Encoder("model", clip, CPU).encode_text(PROMPTS)
    assert torch.equal(found.tokens, ids)
    assert torch.equal(found.mask, mask)
    with torch.no_grad():
        expected = text(ids)
    torch.testing.assert_close(found.embed, expected.text_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.states, expected.last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preprocessing", ["feature_extractor", "image_processor"])
@pytest.mark.parametrize("name", IMAGES)
def test_images_are_encoded_as_in_transformers(name: str, preprocessing: str, tmp_path: Path) -> None:
    images, processor = save_images(tmp_path, name, preprocessing)
    clip = ComponentLoader(tmp_path, CPU, torch.float32).load_clip(*prepare_clip(find_clip(None, tmp_path), CPU))
    encoder = Encoder("model", clip, CPU)
    image = Image.linear_gradient("L").convert("RGB").rotate(30).crop((0, 20, 250, 200))
    with torch.no_grad():
        expected = images(processor(image, return_tensors="pt").pixel_values).image_embeds
        zero = images(torch.zeros(1, 3, *2 * [IMAGES[name]["image_size"]])).image_embeds[
            0
        ]  # get_zero_embed of diffusers
    torch.testing.assert_close(encoder.embed_images([image]), expected, atol=1e-2, rtol=1e-2)  # resized in 8 bits
    torch.testing.assert_close(encoder.zero_embed, zero, atol=1e-5, rtol=1e-4)
    assert (expected - zero).abs().max() > 0.05


def test_encoders_of_different_checkpoints_and_names(tokenizers, tmp_path: Path) -> None:
    text = save_text(tmp_path / "one", "L", tokenizers["!"], prefix="prior_")
    images, _ = save_images(tmp_path / "two", "L")
    source = find_clip(tmp_path / "one", tmp_path / "two", prefix="prior_")
    clip = ComponentLoader(tmp_path, CPU, torch.float32).load_clip(*prepare_clip(source, CPU))
    ids = clip.encode_tokens(Tokenizer(17, True)(["a cat"])).tokens
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_tokens(ids).embed, text(ids).text_embeds, atol=1e-5, rtol=1e-4)
        pixels = torch.zeros(1, 3, 24, 24)
        torch.testing.assert_close(clip.zero_embed(), images(pixels).image_embeds[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("low", [False, True])
def test_an_image_encoder_alone(low: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALL", 64)
    images, _ = save_images(tmp_path, "H", "feature_extractor")
    loader = ComponentLoader(tmp_path, CPU, torch.float32, offload.OffloadStore() if low else None)
    clip = loader.load_clip(*prepare_clip(find_clip(None, tmp_path), CPU))
    assert clip.text is None
    pixels = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(clip.zero_embed(), images(pixels).image_embeds[0], atol=1e-5, rtol=1e-4)


def test_precision_can_be_half(tokenizers, tmp_path: Path) -> None:
    text, tokens = save_text(tmp_path, "bigG", tokenizers["!"]), tokenizers["!"]
    images, _ = save_images(tmp_path, "bigG")
    clip = ComponentLoader(tmp_path, CPU, torch.float32).load_clip(
        *prepare_clip(find_clip(tmp_path, tmp_path), CPU, torch.bfloat16)
    )
    assert {p.dtype for name, p in clip.named_parameters() if name != "logit_scale"} == {torch.bfloat16}
    ids, _ = tokenized(tokens)
    found = clip.encode_tokens(ids)
    with torch.no_grad():
        expected, zero = text(ids), images(torch.zeros(1, 3, 28, 28)).image_embeds[0]
    for mine, theirs in (
        (found.embed, expected.text_embeds),
        (found.states, expected.last_hidden_state),
        (clip.zero_embed(), zero),
    ):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.05 * theirs.norm()
    exact = ComponentLoader(tmp_path, CPU, torch.float32).load_clip(*prepare_clip(find_clip(tmp_path, None), CPU))
    file = Encoder("half", clip, CPU).write_embedding(tmp_path / "embedding.safetensors", zero, "an image")
    assert torch.equal(Encoder("exact", exact, CPU).read_embedding(file), zero)


# ---- a text encoder without projection, as in Stable Diffusion 2 and Stable unCLIP


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("prefixed", [False, True])  # transformers 5 saves it without a prefix, older ones with it
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_encoder_without_projection(name: str, prefixed: bool, low: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(offload, "SMALL", 64)
    text = randomize(CLIPTextModel(text_config(name)), 3)
    text.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    bare = {key.removeprefix("text_model."): tensor for key, tensor in load_file(file).items()}
    save_file({("text_model." if prefixed else "") + key: tensor for key, tensor in bare.items()}, file)
    loader = ComponentLoader(tmp_path, CPU, torch.float32, offload.OffloadStore() if low else None)
    encoder = loader.load_prepared(*prepare_text_encoder(tmp_path, CPU))
    assert any(parameter.is_meta for parameter in encoder.parameters()) == low
    ids, mask = Tokenizer(17, True).tokenize(PROMPTS)
    found = encoder.encode_tokens(ids, mask)
    with torch.no_grad():
        expected = text(ids)
    torch.testing.assert_close(found.states, expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.embed, expected.pooler_output, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.mask, mask)


# ---- what is refused


def test_the_width_of_any_mlp_is_exact() -> None:
    for width in range(8, 1700, 24):
        for hidden in (4 * width, 8192, 5120, width + 1, 3 * width - 1):
            settings = ClipTextSettings(hidden_size=width, intermediate_size=hidden, num_attention_heads=1)
            assert int(width * mlp_ratio(settings)) == hidden


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "tokenizer/tokenizer_config.json",
            {"pad_token": "<pad>"},
            r"pads with '<pad>'; only .* '!' or '<\|endoftext\|>'",
        ),
        ("image_processor/preprocessor_config.json", {"resample": 2}, "only a bicubic resize to 24 pixels"),
        ("image_processor/preprocessor_config.json", {"do_center_crop": False}, "crop of the centre"),
        ("image_encoder/config.json", {"projection_dim": 15}, "embed_dim is 15, the text's is 16"),
        ("image_encoder/config.json", {"hidden_act": "gelu"}, "quick_gelu is False, the text's is True"),
        ("text_encoder/config.json", {"num_hidden_layers": 2}, "lacks tensors"),
        ("text_encoder/config.json", {"num_attention_heads": 3}, "configs of CLIP do not fit together"),
    ],
)
def test_other_checkpoints_are_refused(file: str, change: dict, message: str, tokenizers, tmp_path: Path) -> None:
    save_text(tmp_path, "L", tokenizers["!"])
    save_images(tmp_path, "L")
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    if file.startswith("tokenizer"):
        (tmp_path / "tokenizer" / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=message):
        prepare_clip(find_clip(tmp_path, tmp_path), CPU)
