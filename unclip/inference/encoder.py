"""What a pipeline does with its CLIP alone: embeddings of pictures, scores, and what is kept of them in files."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import generators
from unclip.embeddings.components import Components
from unclip.embeddings.files import PROBE, read_components, read_embedding, write_embedding
from unclip.errors import RequestError
from unclip.images.processing import squared, to_square, to_tensor
from unclip.requests.request import Request
from unclip.requests.sources import check_is_prompt, source_kind


class Embedder:
    """The methods of a pipeline that look at pictures, or keep what was seen."""

    @torch.inference_mode()
    def similarity(self, pictures: Tensor, embed: Tensor) -> Tensor:
        """CLIP's cosine similarities `b` of pictures `b 3 h w` in [-1, 1] and embeddings `b d`, in pairs."""
        return F.cosine_similarity(self.clip.encode_image(pictures), embed)

    def scores(self, pictures: Tensor, prompts: Sequence[str], texts: Tensor, embed: Tensor) -> list[float | None]:
        """The similarity of pictures `b 3 h w` and their prompts, texts `b d`; of an empty one, and what guided, `b d`.

        None where the checkpoint has no image tower to tell it.
        """
        if self.clip.visual is None:
            return [None] * len(pictures)
        said = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=self.device)[:, None]
        return self.similarity(pictures, torch.where(said, texts, embed)).tolist()

    def score(self, images: Image.Image | Sequence[Image.Image], prompts: str | Sequence[str]) -> list[float]:
        """CLIP's cosine similarity of images and prompts, in pairs; one prompt may serve all images."""
        images = [images] if isinstance(images, Image.Image) else list(images)
        prompts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
        if len(images) != len(prompts):
            raise RequestError(f"{len(images)} images and {len(prompts)} prompts: give one prompt an image, or one")
        if not images:
            return []
        return F.cosine_similarity(self.embed_image(images), self.encode_text(prompts).embed).tolist()

    @torch.inference_mode()
    def embed_image(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """CLIP's embeddings `b d` of images, each made a square as its tower was trained on them.

        Raises RequestError for a model without an image tower.
        """
        self.check_image_tower()
        images = [images] if isinstance(images, Image.Image) else list(images)
        side, crop = self.clip.config.image_size, self.clip.config.center_crop
        small = [to_square(image.convert("RGB"), side, crop) for image in images]
        return self.clip.encode_image(torch.stack([to_tensor(image) for image in small]).to(self.device))

    def check_image_tower(self, instead: str = "") -> None:
        """Raise RequestError for a model that cannot look at pictures; instead: what can be done without."""
        if self.clip.visual is None:
            raise RequestError(
                f"{self.name} has no image tower to tell what a picture shows: {instead}add one by --image-encoder, "
                "such as kakaobrain/karlo-v1-alpha-image-variations for karlo-v1-alpha, or a name of open_clip"
            )

    # ---- what is kept in files

    @torch.inference_mode()
    def read_embedding(self, path: str | Path) -> Tensor:
        """The image embedding `d` in a file of `save_embedding`. Raises DataError for that of another CLIP."""
        return read_embedding(path, self.encode_text([PROBE]).embed[0], self.name).to(self.device)

    def save_embedding(self, path: str | Path, source: str | Image.Image, seed: int = 0) -> Path:
        """Write the embedding of a picture, or of what the prior imagines for a prompt, for `Request.embedding`."""
        kind = source_kind(source)
        if kind == "embedding":
            raise RequestError(f"{source!r} is the name of an embedding; give a picture or a prompt to make one of")
        if kind == "picture":
            embed = self.embed_image(squared(source, "crop")[0])
        else:
            check_is_prompt(source)
            self.check_prior()
            request = self.resolve(Request(prompt=source, seed=seed))
            text, negative = self.encode_text([source]), self.encode_text([""])
            embed = self.imagine(text, negative, generators([seed]), request)
        told = source if isinstance(source, str) else "a picture"
        return write_embedding(path, embed[0], self.encode_text([PROBE]).embed[0], self.name, told)

    def components(self) -> Components:
        """The principal components of this model's embeddings. Raises RequestError if it has none yet."""
        found = None if self.folder is None else read_components(self.folder, self.clip.config.embed_dim)
        if found is None:
            raise RequestError(
                f"{self.name} has no principal components yet: make them with `unclip models components {self.name}`, "
                "from a folder of pictures with --pictures FOLDER"
            )
        return found
