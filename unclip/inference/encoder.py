"""The CLIP encoder of a loaded model: prompts and images to embeddings, and their similarity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.embeddings.files import PROBE, read_embedding, write_embedding
from unclip.errors import RequestError
from unclip.images.processing import to_square, to_tensor
from unclip.models.clip import Clip
from unclip.models.text import TextEncoding
from unclip.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoder:
    """CLIP on a device. name: of the model, for error messages."""

    name: str
    clip: Clip
    device: torch.device

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.clip.config.context_length, self.clip.config.transformers_tokens)

    @property
    def encodes_images(self) -> bool:
        """Whether CLIP has an image encoder."""
        return self.clip.visual is not None

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        """Prompts -> embeddings `b d`, states `b n d`, mask `b n`. Equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        encoding = self.clip.encode_tokens(self.tokenizer(unique).to(self.device))
        return encoding.rows([unique.index(prompt) for prompt in prompts])

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """CLIP image embeddings `b d` of images of any size, each made square as the encoder was trained.

        Raises RequestError for a model without an image encoder.
        """
        self.require_image_encoder()
        side, crop = self.clip.config.image_size, self.clip.config.center_crop
        squares = [to_square(image.convert("RGB"), side, crop) for image in images]
        return self.clip.encode_image(torch.stack([to_tensor(image) for image in squares]).to(self.device))

    @cached_property
    @torch.inference_mode()
    def zero_embed(self) -> Tensor:
        """CLIP's embedding `d` of a blank image: all zeros after normalization, which is CLIP's mean colour.

        Raises RequestError for a model without an image encoder.
        """
        self.require_image_encoder()
        return self.clip.zero_embed()

    @torch.inference_mode()
    def similarity(self, images: Tensor, embed: Tensor) -> Tensor:
        """CLIP's cosine similarities `b` between images `b 3 h w` in [-1, 1] and embeddings `b d`, row by row."""
        return F.cosine_similarity(self.clip.encode_image(images), embed)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """CLIP's cosine similarity of each image and its prompt.

        Raises RequestError for a model without an image encoder, or different numbers of images and prompts.
        """
        if len(images) != len(prompts):
            raise RequestError(f"{len(images)} images and {len(prompts)} prompts: give one prompt per image, or one")
        if not images:
            return []
        return F.cosine_similarity(self.embed_images(images), self.encode_text(prompts).embed).tolist()

    def score_samples(self, images: Tensor, prompts: Sequence[str], text: Tensor, embed: Tensor) -> list[float | None]:
        """The score of each sampled image: its similarity to the prompt, or to `embed` where the prompt is empty.

        images: `b 3 h w` in [-1, 1]. text, embed: `b d`. None for a model without an image encoder.
        """
        if not self.encodes_images:
            return [None] * len(images)
        has_prompt = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=self.device)[:, None]
        return self.similarity(images, torch.where(has_prompt, text, embed)).tolist()

    def require_image_encoder(self, instead: str = "") -> None:
        """Raise RequestError for a model without an image encoder. instead: an alternative that the error names."""
        if not self.encodes_images:
            raise RequestError(
                f"{self.name} has no image encoder: {instead}add one with --image-encoder, such as "
                "kakaobrain/karlo-v1-alpha-image-variations for karlo-v1-alpha, or an open_clip name"
            )

    @cached_property
    def _probe(self) -> Tensor:
        """The embedding `d` of a fixed text. Two CLIPs that agree on it are the same."""
        return self.encode_text([PROBE]).embed[0]

    def read_embedding(self, path: str | Path) -> Tensor:
        """The image embedding `d` in a file of `write_embedding`. Raises DataError for a file of another CLIP."""
        return read_embedding(path, self._probe, self.name).to(self.device)

    def write_embedding(self, path: str | Path, embed: Tensor, source: str) -> Path:
        """Write an image embedding `d` to a file. source: what it was made from, for the metadata."""
        return write_embedding(path, embed, self._probe, self.name, source)
