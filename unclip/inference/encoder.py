"""The encoders of a loaded model: prompts and images to embeddings, and their similarity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.embeddings.files import PROBE, read_embedding, write_embedding
from unclip.errors import RequestError
from unclip.images.pixels import to_srgb_on_white
from unclip.images.processing import to_square, to_tensor
from unclip.models.clip import Clip
from unclip.models.text import PromptTokenizer, TextEncoder, TextEncoding
from unclip.models.tokenizer import Tokenizer
from unclip.requests.sources import EmbeddingBytes

OwnEncoder = TypeVar("OwnEncoder", bound=TextEncoder)


@dataclass(frozen=True)
class DecoderText(Generic[OwnEncoder]):
    """The text encoder of a decoder that is not conditioned on CLIP's, with its tokenizer."""

    encoder: OwnEncoder
    tokenizer: PromptTokenizer


@dataclass(frozen=True)
class Encoder:
    """CLIP on a device.

    name: of the model, for error messages. decoder_text: the decoder's own text encoder, if the family has one.
    """

    name: str
    clip: Clip
    device: torch.device
    decoder_text: DecoderText | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of CLIP's text encoder."""
        config = self.clip.config
        return Tokenizer(config.context_length, config.transformers_tokens, config.pad_token)

    @property
    def tokenizers(self) -> list[PromptTokenizer]:
        """The tokenizers of all text encoders."""
        own = [] if self.decoder_text is None else [self.decoder_text.tokenizer]
        return [self.tokenizer, *own] if self.encodes_text else own

    @property
    def encodes_text(self) -> bool:
        """Whether CLIP has a text encoder, so that texts and images share a space."""
        return self.clip.text is not None

    @property
    def encodes_images(self) -> bool:
        """Whether CLIP has an image encoder."""
        return self.clip.visual is not None

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        """Prompts -> embeddings `b d`, states `b n d`, mask `b n`; the same of the decoder's encoder, if it has one.

        Equal prompts are encoded once. For a CLIP without a text encoder, the embeddings are zeros.
        """
        unique = list(dict.fromkeys(prompts))
        own = None
        if self.decoder_text is not None:
            tokens = self.decoder_text.tokenizer.tokenize(unique).to(self.device)
            own = self.decoder_text.encoder.encode_tokens(*tokens)
        if self.encodes_text:
            encoding = self.clip.encode_tokens(*self.tokenizer.tokenize(unique).to(self.device))
        else:
            assert own is not None, "this model has no text encoder"
            embed = own.states.new_zeros(len(unique), self.clip.config.embed_dim, dtype=torch.float32)
            encoding = own._replace(embed=embed)
        return encoding._replace(decoder=own).rows([unique.index(prompt) for prompt in prompts])

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """CLIP image embeddings `b d` of images of any size, each made square as the encoder was trained.

        Colours are converted to sRGB, and transparent parts are white. Raises RequestError for a model without an image
        encoder.
        """
        self.require_image_encoder()
        side, crop = self.clip.config.image_size, self.clip.config.center_crop
        squares = [to_square(to_srgb_on_white(image)[0], side, crop) for image in images]
        return self.clip.encode_image(torch.stack([to_tensor(image) for image in squares]).to(self.device))

    @torch.inference_mode()
    def similarity(self, images: Tensor, embed: Tensor) -> Tensor:
        """CLIP's cosine similarities `b` between images `b 3 h w` in [-1, 1] and embeddings `b d`, row by row."""
        return F.cosine_similarity(self.clip.encode_image(images), embed)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """CLIP's cosine similarity of each image and its prompt.

        Raises RequestError for a model without one of CLIP's encoders, or different numbers of images and prompts.
        """
        self.require_text_encoder()
        if len(images) != len(prompts):
            raise RequestError(f"{len(images)} images and {len(prompts)} prompts: give one prompt per image, or one")
        if not images:
            return []
        return F.cosine_similarity(self.embed_images(images), self.encode_text(prompts).embed).tolist()

    def score_samples(self, images: Tensor, prompts: Sequence[str], text: Tensor, embed: Tensor) -> list[float | None]:
        """The score of each sampled image: its similarity to the prompt, or to `embed` where the prompt is empty.

        A model without CLIP's text encoder compares with `embed` only.

        images: `b 3 h w` in [-1, 1]. text, embed: `b d`. None for a model without an image encoder.
        """
        if not self.encodes_images:
            return [None] * len(images)
        known = [self.encodes_text and bool(prompt.strip()) for prompt in prompts]
        has_prompt = torch.tensor(known, device=self.device)[:, None]
        return self.similarity(images, torch.where(has_prompt, text, embed)).tolist()

    def require_image_encoder(self, instead: str = "") -> None:
        """Raise RequestError for a model without an image encoder. instead: an alternative that the error names."""
        if not self.encodes_images:
            raise RequestError(
                f"{self.name} has no image encoder: {instead}add one with --image-encoder, such as "
                "kakaobrain/karlo-v1-alpha-image-variations for karlo-v1-alpha, or an open_clip name"
            )

    def require_text_encoder(self) -> None:
        """Raise RequestError for a model without CLIP's text encoder."""
        if not self.encodes_text:
            raise RequestError(f"{self.name} cannot compare texts with images: its CLIP has no text encoder")

    @cached_property
    @torch.inference_mode()
    def zero_embed(self) -> Tensor:
        """The embedding `d` of an image whose normalized pixels are all zero (see `Clip.zero_embed`).

        Raises RequestError for a model without an image encoder.
        """
        self.require_image_encoder()
        return self.clip.zero_embed()

    @cached_property
    def _probe(self) -> Tensor:
        """The embedding `d` of a fixed text, or of a fixed image. Two CLIPs that agree on it are the same."""
        return self.encode_text([PROBE]).embed[0] if self.encodes_text else self.zero_embed

    def read_embedding(self, path: str | Path | EmbeddingBytes) -> Tensor:
        """The image embedding `d` in a file of `write_embedding`. Raises DataError for a file of another CLIP."""
        source = path.data if isinstance(path, EmbeddingBytes) else path
        return read_embedding(source, self._probe, self.name).to(self.device)

    def write_embedding(self, path: str | Path, embed: Tensor, source: str) -> Path:
        """Write an image embedding `d` to a file. source: what it was made from, for the metadata."""
        return write_embedding(path, embed, self._probe, self.name, source)
