import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CustomTextCLIP

from tests.tiny import CLIP, TOKENS, tiny_network
from unclip.models.clip import Clip, ClipConfig
from unclip.models.tokenizer import Tokenizer
from unclip.training.losses import contrastive_loss

PROMPTS = ["a cat", "", "two red dogs to the left of a blue house!", "a cat"]


def clip(**changes) -> Clip:
    return tiny_network("Clip", {**CLIP, **changes})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(TOKENS)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_clip_equals_open_clip(tokenizer: Tokenizer, quick_gelu: bool) -> None:
    ours = clip(quick_gelu=quick_gelu, normalize=False)
    theirs = CustomTextCLIP(
        CLIP["embed_dim"],
        vision_cfg={"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16},
        text_cfg={
            "context_length": TOKENS,
            "width": CLIP["text_width"],
            "heads": 2,
            "layers": 1,
            "output_tokens": True,
        },
        quick_gelu=quick_gelu,
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    tokens = tokenizer(PROMPTS)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        embed, states = theirs.encode_text(tokens)
        encoding = ours.encode_tokens(tokens)
        # not equal: ours add in the order that a batch of any size has
        torch.testing.assert_close(encoding.embed, embed, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoding.states, states, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.logit_scale.detach(), theirs.logit_scale.detach())


def test_normalised_embeddings_have_unit_variance_and_the_same_direction(tokenizer: Tokenizer) -> None:
    images, tokens = torch.rand(3, 3, 16, 16), tokenizer(PROMPTS)
    for encode in (lambda c: c.encode_image(images), lambda c: c.encode_tokens(tokens).embed):
        unit, raw = encode(clip()), encode(clip(normalize=False))
        torch.testing.assert_close(unit.norm(dim=1), torch.full((len(unit),), CLIP["embed_dim"] ** 0.5))
        torch.testing.assert_close(F.cosine_similarity(unit, raw), torch.ones(len(unit)))


def test_the_mask_covers_the_text_with_its_start_and_end(tokenizer: Tokenizer) -> None:
    mask = clip().encode_tokens(tokenizer(["a cat", "", "cat " * 50])).mask
    assert mask.sum(1).tolist() == [4, 2, TOKENS]
    assert mask[0].tolist() == [True] * 4 + [False] * (TOKENS - 4)


def test_an_image_of_another_size_is_resized() -> None:
    network, images = clip(), torch.rand(2, 3, 40, 24) * 2 - 1
    resized = F.interpolate(images, size=(16, 16), mode="bicubic", antialias=True)
    assert torch.equal(network.encode_image(images), network.encode_image(resized))
    assert not torch.equal(network.encode_image(resized), network.encode_image(images[..., :16, :16]))


def test_forward_gives_both_embeddings_and_the_scale(tokenizer: Tokenizer) -> None:
    network, images, tokens = clip(), torch.rand(4, 3, 16, 16), tokenizer(PROMPTS)
    image_embed, text_embed, scale = network(images, tokens)
    assert torch.equal(image_embed, network.encode_image(images))
    assert torch.equal(text_embed, network.encode_tokens(tokens).embed)
    assert scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_config_round_trips_through_a_dict() -> None:
    config = ClipConfig(**CLIP)
    assert ClipConfig(**config.to_dict()) == config


# ---- loss


def test_contrastive_loss_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 6, 5))
    scale = 2.0
    unit_image, unit_text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    logits = np.exp(scale) * unit_image @ unit_text.T

    def cross_entropy(rows: np.ndarray) -> float:
        return float(np.mean(np.log(np.exp(rows).sum(1)) - np.diag(rows)))

    loss, rank1 = contrastive_loss(torch.tensor(image), torch.tensor(text), torch.tensor(scale))
    assert loss.item() == pytest.approx((cross_entropy(logits) + cross_entropy(logits.T)) / 2, rel=1e-5)
    assert rank1.item() == pytest.approx(np.mean(logits.argmax(1) == np.arange(6)))


def test_contrastive_loss_is_in_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 64, 16, generator=generator)
    scale = torch.tensor(100.0).log()
    loss, rank1 = contrastive_loss(image, text, scale)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_loss, mixed_rank1 = contrastive_loss(image, text, scale)
    assert torch.equal(mixed_loss, loss) and torch.equal(mixed_rank1, rank1)


def test_contrastive_loss_of_perfect_and_equal_embeddings() -> None:
    loss, rank1 = contrastive_loss(torch.eye(4), torch.eye(4), torch.tensor(100.0).log())
    assert (loss.item(), rank1.item()) == (pytest.approx(0, abs=1e-6), 1)
    loss, _ = contrastive_loss(torch.ones(4, 3), torch.ones(4, 3), torch.tensor(0.0))
    assert loss.item() == pytest.approx(np.log(4), rel=1e-5)  # all pairs are equally similar


@pytest.mark.parametrize("name", ["pixel_mean", "pixel_std"])
def test_pixel_statistics_are_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*'x'.*, and should be three numbers"):
        ClipConfig(**{name: ["x", 0.5, 0.5]})
