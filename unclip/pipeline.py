"""Unclip: generate and edit images with one loaded model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip.checkpoints.additions import Additions
from unclip.checkpoints.load import load_checkpoint
from unclip.errors import RequestError
from unclip.images.inputs import check_embeddable
from unclip.images.processing import open_square
from unclip.images.result import Result, Results
from unclip.inference.callbacks import Progress
from unclip.inference.model import UnclipModel
from unclip.modes import dispatch
from unclip.modes.base import make_run
from unclip.modes.resolve import check_requirements, output_size, resolve
from unclip.requests.batching import BATCH
from unclip.requests.fields import MAX_IMAGES
from unclip.requests.other_tools import check_no_weights
from unclip.requests.request import Request
from unclip.requests.sources import check_is_no_file, source_kind
from unclip.requests.values import integer, show
from unclip.system.device import pick_device, pick_dtype

ImageSource = str | Path | Image.Image
"""An image file, or an image in memory."""
Source = str | Path | Image.Image
"""A source of an interpolation: an image, a prompt, or a file of `save_embedding`."""


class Unclip:
    """A loaded model and its public methods. Create one with `from_pretrained`.

    Every method that generates images takes the fields of a Request as keywords, and returns Results: a list.
    """

    def __init__(self, model: UnclipModel):
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        memory: str = "auto",
        image_encoder: str | Path | None = None,
        prior: str | Path | None = None,
        lora: str | Path | Sequence[str | Path] = (),
        progress: Progress | None = None,
    ) -> "Unclip":
        """Load a model by name, from a checkpoint folder, or from the hub ("owner/name", "owner/name@commit").

        A model from the hub is downloaded if it is not in the cache; a cached one needs no network.

        device         "auto", "cpu", "cuda" or "mps"
        dtype          precision of the denoisers; "auto" is bfloat16 if the device computes it natively, else float32
        memory         "high" keeps all networks on the device, "low" one at a time, "auto" decides by the free memory
        image_encoder  for a model without one: a name as above whose CLIP image encoder is used, or an open_clip name
                       ("ViT-L-14/openai")
        prior          "diffusion" or "autoregressive": the kind of prior for requests that name none; or, for a model
                       whose prior is in a repository of its own (Kandinsky), another folder or hub id
        lora           LoRA files, each as "FILE" or "FILE:SCALE"; their changes add up
        progress       called as (stage, done, total) after each network is loaded

        Raises CheckpointError for an unknown name or a damaged file.
        """
        where = pick_device(device)
        additions = Additions(image_encoder, prior, (lora,) if isinstance(lora, str | Path) else tuple(lora))
        return cls(load_checkpoint(name, where, pick_dtype(dtype, where), memory, additions, progress))

    # ---- generate images

    def generate(
        self,
        prompt: str | Request | Iterable[str | Request] | None = None,
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Results:
        """Generate images from prompts or Requests.

        fields: of a Request (n, seed, steps, ...), for prompts given as text. batch_size: images that are generated
        together, if they differ only in prompt, seed and inputs. progress: called as (stage, done, total) after each
        denoising step. Raises RequestError or DataError before anything is generated.
        """
        return Results(self.stream(prompt, batch_size=batch_size, progress=progress, **fields))

    def stream(
        self,
        prompt: str | Request | Iterable[str | Request] | None = None,
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Iterator[Result]:
        """`generate`, but each Result is yielded as soon as its micro-batch is done, and none is kept.

        Errors are raised by the call itself, not when the first Result is requested.
        """
        if prompt is None and fields:
            prompt = ""  # guided by an embedding; Request refuses any other
        if not isinstance(prompt, (str, Request, Iterable)) or isinstance(prompt, (bytes, Mapping)):
            raise RequestError(f"prompt must be text, a Request, or a list of these, not {show(prompt)}")
        given = [prompt] if isinstance(prompt, (str, Request)) else list(prompt)
        if fields and any(isinstance(one, Request) for one in given):
            raise RequestError(f"{', '.join(fields)} cannot be given beside a Request: set them in the Request")
        requests = [one if isinstance(one, Request) else make_request({"prompt": one}, fields) for one in given]
        requests = [self.resolve(request) for request in requests]
        for request in requests:
            check_requirements(self.model, request)
        batch_size = BATCH if batch_size is None else integer("batch_size", batch_size, 1, MAX_IMAGES)
        return dispatch.generate(self.model, requests, progress, batch_size)

    def inpaint(
        self, image: ImageSource | None = None, mask: ImageSource | None = None, prompt: str = "", **fields: Any
    ) -> Results:
        """Regenerate the masked pixels of an image of any size. All other pixels are preserved byte for byte.

        Without a mask, the transparent pixels are regenerated. Without a prompt, the image's own embedding guides. To
        edit several images, give `generate` Requests.
        """
        return self.generate(make_request({"mode": "inpaint", "image": image, "mask": mask, "prompt": prompt}, fields))

    def outpaint(self, image: ImageSource | None = None, prompt: str = "", **fields: Any) -> Results:
        """Extend an image by `left`, `right`, `top`, `bottom` pixels, or to a `size`. Its pixels are preserved."""
        return self.generate(make_request({"mode": "outpaint", "image": image, "prompt": prompt}, fields))

    def vary(self, image: ImageSource | None = None, prompt: str = "", **fields: Any) -> Results:
        """Variations of an image, from its CLIP embedding. strength: how far they may go, 0 .. 1.

        Here and below, the prompt is a text that the decoder reads beside the embedding.
        """
        return self.generate(make_request({"mode": "vary", "image": image, "prompt": prompt}, fields))

    def interpolate(
        self, a: Source | None = None, b: Source | None = None, prompt: str = "", frames: int | None = 9, **fields: Any
    ) -> Results:
        """A sequence of images from a to b: images, prompts or files of `save_embedding`.

        An image is reached exactly at its end, unless `same_noise`. With frames=None, one image at `fraction`.
        """
        own = {"mode": "interpolate", "sources": (a, b), "prompt": prompt, "frames": frames}
        return self.generate(make_request(own, fields))

    def mix(
        self, sources: Sequence[Source] = (), weights: Sequence[float] = (), prompt: str = "", **fields: Any
    ) -> Results:
        """One image of two or more sources, weighted. Sources as in `interpolate`."""
        own = {"mode": "interpolate", "sources": tuple(sources), "weights": tuple(weights), "prompt": prompt}
        return self.generate(make_request(own, fields))

    def edit(self, image: ImageSource | None = None, prompt: str = "", from_prompt: str = "", **fields: Any) -> Results:
        """Text diff: rotate the embedding of an image by `theta`, by the difference of `prompt` from `from_prompt`.

        With `frames`, a sequence. With `embedding`, a file of `save_embedding`, towards that embedding instead.
        """
        own = {"mode": "edit", "image": image, "prompt": prompt, "from_prompt": from_prompt}
        return self.generate(make_request(own, fields))

    def reconstruct(self, image: ImageSource | None = None, prompt: str = "", **fields: Any) -> Results:
        """An image from its own embedding and noise; or from some principal `components` of its embedding."""
        return self.generate(make_request({"mode": "reconstruct", "image": image, "prompt": prompt}, fields))

    # ---- one step at a time, for engines that do their own batching

    def resolve(self, request: Request) -> Request:
        """The request with every open field filled in for this model. Raises RequestError or DataError."""
        return resolve(self.model, request)

    def check(self, request: Request) -> None:
        """Raise RequestError or DataError for a request that this model cannot run."""
        check_requirements(self.model, self.resolve(request))

    def output_size(self, request: Request) -> tuple[int, int]:
        """(width, height) in pixels of the images of a request. Raises RequestError or DataError."""
        return output_size(self.model, request)

    def generate_batch(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """One Result per resolved request of one image; `requests.batching.can_share_batch` holds for all of them."""
        return dispatch.run_batch(self.model, requests, progress)

    def generate_best(
        self, request: Request, progress: Progress | None = None, batch_size: int = BATCH
    ) -> list[Result]:
        """The n best of the candidates of a resolved request with best_of, best first."""
        return dispatch.generate_best(self.model, request, progress, batch_size)

    # ---- embed and score

    def embed_image(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """CLIP image embeddings `b d`. Raises RequestError for a model without an image encoder."""
        images = image_list(images)
        if not images:
            raise RequestError("images is empty; give at least one")
        return self.model.encoder.embed_images(images)

    def score(self, images: Image.Image | Sequence[Image.Image], prompts: str | Sequence[str]) -> list[float]:
        """CLIP's cosine similarity of each image and its prompt, not its quality; one prompt may serve all images."""
        images = image_list(images)
        prompts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
        return self.model.encoder.score(images, prompts)

    @torch.inference_mode()
    def save_embedding(self, path: str | Path, source: ImageSource, seed: int = 0, prior: str | None = None) -> Path:
        """Write the embedding of an image, or one that the prior samples for a prompt. `Request.embedding` reads it.

        prior: its kind, "diffusion" or "autoregressive"; None is the model's default.
        """
        check_embeddable(source)
        if isinstance(source, str) and source_kind(source) == "prompt":
            self.model.require_prior(prior)
            run = make_run(self.model, [self.resolve(Request(prompt=source, seed=seed, prior=prior))])
            embed = self.model.sample_prior(self.model.encode_text([source]), self.model.encode_text([""]), run)
        else:
            embed = self.embed_image(open_square(source, "crop")[0])
        return self.model.encoder.write_embedding(path, embed[0], source if isinstance(source, str) else "an image")


def image_list(images: Image.Image | Sequence[Image.Image]) -> list[Image.Image]:
    """One or several PIL images as a list. Raises RequestError for anything else, such as the name of a file."""
    found = [images] if isinstance(images, Image.Image) else list(images)
    if not all(isinstance(image, Image.Image) for image in found):
        raise RequestError("images must be PIL images; open files with PIL.Image.open")
    return found


def make_request(own: dict[str, Any], fields: dict[str, Any]) -> Request:
    """A request from the arguments of a method and its further keywords.

    Raises RequestError for keywords that the method sets itself, and for texts that are the names of files or have the
    weights of other tools.
    """
    for name in fields:
        if name in own:
            raise RequestError(f"{name} cannot be a keyword here, as the method sets it: give a Request to `generate`")
    request = Request(**own, **fields)
    for name, text in request.texts():
        check_is_no_file(name, text)
        check_no_weights(name, text)
    return request
