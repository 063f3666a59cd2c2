from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import CLIP, DIM, tiny_network
from unclip.errors import DataError, RequestError
from unclip.inference.encoder import DecoderText, Encoder
from unclip.models.text import TextEncoding, Tokens
from unclip.modes.notes import notes
from unclip.pipeline import Unclip
from unclip.requests.request import Request


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


# ---- a decoder with a text encoder of its own


class Letters:
    """A tokenizer and an encoder of letters."""

    capacity = 5
    encoded = 0

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        ids = torch.tensor(
            [[ord(letter) for letter in prompt[: self.capacity].ljust(self.capacity)] for prompt in prompts]
        )
        return Tokens(ids, ids != ord(" "))

    def overflow(self, prompt: str) -> str:
        return prompt[self.capacity :]

    def encode_tokens(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> TextEncoding:
        self.encoded += len(tokens)
        assert mask is not None
        return TextEncoding(tokens[:, :3].float(), tokens[..., None].float(), mask, tokens)


@pytest.fixture
def letters() -> Letters:
    return Letters()


def test_prompts_are_encoded_for_the_prior_and_for_the_decoder(tiny: Unclip, letters: Letters) -> None:
    encoder = replace(tiny.model.encoder, decoder_text=DecoderText(letters, letters))
    text = encoder.encode_text(["a cat", "dogs", "a cat"])
    assert letters.encoded == 2  # equal prompts once
    plain = tiny.model.encode_text(["a cat", "dogs", "a cat"])
    assert all(torch.equal(ours, alone) for ours, alone in zip(text[:4], plain[:4], strict=True))
    assert plain.decoder is None and plain.for_decoder is plain
    assert text.for_decoder.tokens.tolist() == [[*map(ord, word)] for word in ("a cat", "dogs ", "a cat")]
    assert text.for_decoder.mask.sum(1).tolist() == [4, 4, 4]


def test_a_prompt_that_either_tokenizer_cuts_gets_a_note(tiny: Unclip, letters: Letters) -> None:
    model = replace(tiny.model, decoder_text=DecoderText(letters, letters), vocabulary=None)
    assert list(notes(model, Request(prompt="a cat"))) == []
    [note] = notes(model, Request(prompt="a cat and"))
    assert note == "the prompt is longer than 5 tokens; cut off: ' and'"


@pytest.fixture
def without_text(letters: Letters) -> Encoder:
    """An image encoder, and the text encoder of a decoder."""
    clip = tiny_network("Clip", {**CLIP, "text_layers": 0})
    return Encoder("images", clip, torch.device("cpu"), DecoderText(letters, letters))


def test_a_clip_without_text_encoder_has_embeddings_of_zero(without_text: Encoder) -> None:
    text = without_text.encode_text(["a cat", "dogs"])
    assert torch.equal(text.embed, torch.zeros(2, DIM))
    assert text.for_decoder.tokens.shape == (2, 5)
    assert text.rows([1]).for_decoder.tokens.tolist() == [[*map(ord, "dogs ")]]


def test_a_clip_without_text_encoder_scores_against_the_embedding(without_text: Encoder) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    embed = without_text.embed_images([image])
    pixels = torch.tensor(np.asarray(image) / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
    assert without_text.score_samples(pixels, ["a cat"], torch.zeros(1, DIM), embed) == pytest.approx([1.0], abs=1e-4)
    with pytest.raises(RequestError, match="images cannot compare texts with images: its CLIP has no text encoder"):
        without_text.score([image], ["a cat"])


def test_embedding_files_of_a_clip_without_text_encoder(without_text: Encoder, tmp_path) -> None:
    embed = torch.arange(float(DIM))
    file = without_text.write_embedding(tmp_path / "e.safetensors", embed, "an image")
    assert torch.equal(without_text.read_embedding(file), embed)
    other = replace(without_text, clip=tiny_network("Clip", {**CLIP, "text_layers": 0}, seed=1))
    with pytest.raises(DataError, match="was made by the CLIP of images"):
        other.read_embedding(file)


def test_an_edit_by_text_needs_both_encoders(tiny: Unclip, without_text: Encoder) -> None:
    pipe = Unclip(replace(tiny.model, clip=without_text.clip, decoder_text=without_text.decoder_text))
    with pytest.raises(RequestError, match="its CLIP has no text encoder"):
        pipe.edit(Image.new("RGB", (16, 16)), "a dog")
