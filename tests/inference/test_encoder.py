import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import RequestError
from unclip.pipeline import Unclip


def test_a_score_is_the_cosine_of_two_embeddings(tiny: Unclip) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(3)]
    prompts = ["a red cat", "a dog", "a red cat"]
    expected = []
    for image, prompt in zip(images, prompts, strict=True):
        array = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        a = tiny.model.clip.encode_image(torch.tensor(array))[0].numpy()
        b = tiny.model.clip.encode_tokens(tiny.model.encoder.tokenizer([prompt])).embed[0].numpy()
        expected.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert tiny.score(images, prompts) == pytest.approx(expected, abs=1e-5)
    assert tiny.score(images, "a dog") == pytest.approx([tiny.score(image, "a dog")[0] for image in images], abs=1e-5)
    assert len(set(tiny.score(images, "a dog"))) == 3
    assert tiny.score([], []) == []


def test_scores_of_images_of_any_size_and_mode(tiny: Unclip) -> None:
    large = Image.linear_gradient("L")  # 256x256, grey
    small = large.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
    scores = tiny.score([large, large.convert("RGB"), small, large.convert("RGBA")], "a cat")
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-5)


def test_scores_need_one_prompt_per_image(tiny: Unclip) -> None:
    image = Image.new("RGB", (16, 16))
    with pytest.raises(RequestError, match="2 images and 3 prompts: give one prompt per image, or one"):
        tiny.score([image, image], ["a", "b", "c"])


def test_equal_prompts_share_an_encoding_and_order_is_kept(tiny: Unclip) -> None:
    both = tiny.model.encode_text(["a dog", "a cat", "a dog"])
    assert torch.equal(both.embed[0], both.embed[2]) and not torch.equal(both.embed[0], both.embed[1])
    torch.testing.assert_close(both.embed[1:2], tiny.model.encode_text(["a cat"]).embed)


@pytest.mark.parametrize("images", [[], "photo.png", ["photo.png"]])
def test_images_to_embed_must_be_images(tiny: Unclip, images) -> None:
    with pytest.raises(RequestError, match="images"):
        tiny.embed_image(images)
