"""Unclip: text -> embedding -> pixels."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.checkpoints.load import load_checkpoint
from unclip.diffusion.noise import generators
from unclip.diffusion.tiling import Tiling
from unclip.errors import UnclipError
from unclip.front import Front, Picture, micro_batches
from unclip.images.processing import to_images, to_tensor
from unclip.inference.callbacks import Progress, Watcher
from unclip.inference.conditions import Known
from unclip.inference.encoder import Embedder
from unclip.inference.model import Checkpoint
from unclip.inference.run import timed
from unclip.inference.stage import Stage
from unclip.models.text import TextEncoding
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import enlarge
from unclip.requests.request import Request
from unclip.system.device import pick_device, pick_dtype

__all__ = ["Picture", "Progress", "Unclip", "Watcher", "micro_batches", "to_images", "to_tensor"]


class Unclip(Front, Embedder):
    """A loaded checkpoint, ready to draw. Build one with `from_pretrained`."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device):
        self.name = checkpoint.name
        self.folder = checkpoint.folder
        self.revision, self.image_encoder = checkpoint.revision, checkpoint.image_encoder
        self.device = device
        self.clip = checkpoint.clip
        self.prior = checkpoint.prior
        self.decoder = checkpoint.decoder
        self.upsamplers = checkpoint.upsamplers
        self.vocabulary = checkpoint.vocabulary
        self.prior_best_of = checkpoint.prior_best_of
        self.shown_above = checkpoint.shown_above
        self.tokenizer = Tokenizer(self.clip.config.context_length, self.clip.config.transformers_tokens)

    @property
    def dtype(self) -> str:
        """The precision that the denoisers compute in: "float32", "bfloat16" or "float16"."""
        return str(self.decoder.network.projection.null_embed.dtype).removeprefix("torch.")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        memory: str = "auto",
        image_encoder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> "Unclip":
        """A bundled model's name, a checkpoint folder, or a hub id ("owner/name", "owner/name@commit") -> a pipeline.

        A hub id is fetched if it is not in the cache; one that is needs no network.

        device: "auto", "cpu", "cuda", "mps". dtype: of the denoisers; "auto" is bfloat16 where the device computes it
        natively, float32 elsewhere. memory: "high" keeps all networks on the device, "low" one at a time; "auto" does
        what the free memory allows. image_encoder: a name as above, of a checkpoint whose CLIP image tower is used
        where this one has none, or an open_clip name ("ViT-L-14/openai"). progress: told of each network that is
        loaded, as of each step in `generate`. Raises CheckpointError for an unknown name or a damaged file.
        """
        where = pick_device(device)
        return cls(load_checkpoint(name, where, pick_dtype(dtype, where), memory, image_encoder, progress), where)

    # ---- text -> embedding -> pixels

    @torch.inference_mode()
    def draw(
        self, requests: Sequence[Request], progress: Progress | None = None, *, embed: Tensor | None = None
    ) -> tuple[Tensor, list[float | None], dict[str, float]]:
        """Resolved requests, one image each and alike in all but prompts and seeds -> pictures, scores, seconds.

        The pictures are `b 3 h w` in [-1, 1], the seconds those of each stage. A score is the `similarity` of picture
        and prompt, or None where the checkpoint has no image tower to tell it. Each picture has a generator of its own,
        which the stages use one after another. embed: CLIP image embeddings `b d` (see `embed_image`) to draw, instead
        of those of the requests' files or of the prior. Raises UnclipError for a picture that is not finite.
        """
        first, noise, timings = requests[0], generators([request.seed for request in requests]), {}
        with timed(timings, "text", self.device):
            text = self.encode_text([request.prompt for request in requests])  # b d, b n d
            negative = self.encode_text([request.negative_prompt for request in requests])
        if embed is None:
            with timed(timings, "prior", self.device):
                files = [request.embedding for request in requests]
                embed = self.guide(files, text, negative, noise, first, progress)  # b d
        x = self.paint(embed, text, negative, noise, first, progress, timings)  # b 3 h w
        return x, self.scores(x, [request.prompt for request in requests], text.embed, embed), timings

    @torch.inference_mode()
    def paint(
        self,
        embed: Tensor,
        text: TextEncoding,
        negative: TextEncoding,
        noise: Sequence[torch.Generator],
        request: Request,
        progress: Progress | None,
        timings: dict[str, float],
        known: Known | None = None,
        start: Tensor | None = None,
        eta: float = 0.0,
    ) -> Tensor:
        """Embeddings `b d` and their texts -> pictures `b 3 h w` in [-1, 1]: the decoder, then the upsamplers.

        known: what is to stay as it is, at the largest size; it is held to in every stage. start, eta: as in `decode`.
        `timings` gains the seconds of each stage. Raises UnclipError for a picture that is not finite.
        """
        sizes = self.sizes if known is not None else [size for size in self.sizes if size[0] <= request.size[0]]
        held = [None if known is None else known.resized(height, width) for width, height in sizes]
        told = (embed, text, negative, noise, request, progress, timings)
        x = self.decode(*told, held[0], start=start, eta=eta)  # b 3 64 64
        return self.upsample(x, noise, request.upsampler_steps, held[1:], progress, timings)  # b 3 256 256

    @torch.inference_mode()
    def decode(
        self,
        embed: Tensor,
        text: TextEncoding,
        negative: TextEncoding,
        noise: Sequence[torch.Generator],
        request: Request,
        progress: Progress | None,
        timings: dict[str, float],
        known: Known | None = None,
        start: Tensor | None = None,
        draft: Tensor | None = None,
        tiling: Tiling | None = None,
        eta: float = 0.0,
    ) -> Tensor:
        """Embeddings `b d` and their texts -> small pictures `b 3 h w` in [-1, 1] by the decoder.

        known: what is to stay as it is, at this size. start: the decoder's noise, as `invert` finds it; eta: how much
        of it is drawn anew on the way. draft: a rough picture `b 3 h w` to begin with. tiling: the windows of one
        larger picture, and which of the embeddings and texts each has. Raises UnclipError for a picture that is not
        finite.
        """
        network, codec, hint, spread = self.decoder.network, self.decoder.codec, (), {}
        if known is not None:
            hint = (codec.encode(known.hint[0]), codec.encode_mask(known.hint[1]))
            if tiling is not None:
                spread, hint = {"hint": network.hint(*hint)} if network.knows_masks else {}, ()
        with timed(timings, "decoder", self.device):
            x = self.decoder.run(
                network.condition(embed, text, *hint),
                network.condition(network.projection.null_embed.expand_as(embed), negative, *hint),
                noise,
                steps=request.steps,
                sampler=request.sampler,
                guidance=request.guidance,
                known=known,
                repeats=request.resample or 1,
                start=start,
                draft=draft,
                tiling=tiling,
                spread=spread,
                eta=eta,
                progress=steps_of("decoder", progress),
                watch=pictures_of("decoder", progress, noise),
            )
        return finite(x)

    @torch.inference_mode()
    def upsample(
        self,
        x: Tensor,
        noise: Sequence[torch.Generator],
        steps: int | None = None,
        held: Sequence[Known | None] | None = None,
        progress: Progress | None = None,
        timings: dict[str, float] | None = None,
    ) -> Tensor:
        """Pictures `b 3 h w` of the decoder's size, in [-1, 1], whoever drew them -> `b 3 H W` by the upsamplers.

        held: what is to stay as it is, or None, for each upsampler that is to run; left out, all do. noise, timings: as
        in `paint`. Raises UnclipError for a picture that is not finite.
        """
        held = [None] * len(self.upsamplers) if held is None else held
        for upsampler, size, kept in zip(self.upsamplers, self.sizes[1:], held, strict=False):
            with timed({} if timings is None else timings, upsampler.name, self.device):
                x = upsampler.run(
                    {"enlarged": upsampler.codec.encode(enlarge(x, size))},
                    None,
                    noise,
                    steps=steps,
                    known=kept,
                    progress=steps_of(upsampler.name, progress),
                    watch=pictures_of(upsampler.name, progress, noise),
                )
        return finite(x)

    @torch.inference_mode()
    def invert(
        self,
        pictures: Tensor,
        embed: Tensor,
        text: TextEncoding,
        request: Request,
        progress: Progress | None,
        timings: dict[str, float],
    ) -> Tensor:
        """Pictures `b 3 h w` of the decoder's size, with the embeddings and texts to draw them by -> their noise."""
        with timed(timings, "inversion", self.device):
            cond = self.decoder.network.condition(embed, text)
            return self.decoder.invert(pictures, cond, steps=request.steps, progress=steps_of("inversion", progress))

    def guide(
        self,
        files: Sequence[str | None],
        text: TextEncoding,
        negative: TextEncoding,
        noise: Sequence[torch.Generator],
        request: Request,
        progress: Progress | None = None,
    ) -> Tensor:
        """The embeddings `b d` that guide: of each file the one in it, for a text without one the prior's."""
        embed = torch.zeros_like(text.embed)
        for row, file in enumerate(files):
            if file is not None:
                embed[row] = self.read_embedding(file)
        rows = [row for row, file in enumerate(files) if file is None]
        if rows:
            own = (TextEncoding(*(part[rows] for part in t)) for t in (text, negative))
            embed[rows] = self.imagine(*own, [noise[row] for row in rows], request, progress)
        return embed

    def imagine(
        self,
        text: TextEncoding,
        negative: TextEncoding,
        noise: Sequence[torch.Generator],
        request: Request,
        progress: Progress | None = None,
    ) -> Tensor:
        """The prior: CLIP image embeddings `b d` for a text.

        Of `prior_best_of` samples, the one most similar to the text embedding is taken (unCLIP, section 2.2, which
        draws two). Raises RequestError for a model that has no prior.
        """
        self.check_prior()
        k = request.prior_best_of
        text, negative = (TextEncoding(*(part.repeat_interleave(k, 0) for part in t)) for t in (text, negative))
        network = self.prior.network
        x = self.prior.run(
            network.condition(text),
            network.condition(negative),
            [generator for generator in noise for _ in range(k)],
            steps=request.prior_steps,
            sampler=request.prior_sampler,
            guidance=request.prior_guidance,
            progress=steps_of("prior", progress),
        )
        embed = network.unwhiten(x)  # b*k d
        likeness = F.cosine_similarity(embed, text.embed, dim=-1).unflatten(0, (-1, k))  # b k
        best = likeness.argmax(dim=1)
        return embed.unflatten(0, (-1, k))[torch.arange(len(best)), best]

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        """Prompts -> embedding `b d`, states `b n d`, mask `b n`. A prompt that is there twice is encoded once."""
        each = list(dict.fromkeys(prompts))
        encoding = self.clip.encode_tokens(self.tokenizer(each).to(self.device))
        rows = [each.index(prompt) for prompt in prompts]
        return TextEncoding(*(part[rows] for part in encoding))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of what the decoder and each upsampler draw, smallest first."""
        return [picture_size(stage) for stage in (self.decoder, *self.upsamplers)]


def finite(x: Tensor) -> Tensor:
    """The same pictures. Raises UnclipError if they are not finite."""
    if not x.isfinite().all():
        raise UnclipError("the picture is not finite: use a lower guidance, or float32 (--dtype float32)")
    return x


def picture_size(stage: Stage) -> tuple[int, int]:
    """(width, height) of the pictures that a stage draws."""
    _, _, height, width = stage.codec.decode(torch.empty(1, *stage.shape, device="meta")).shape
    return width, height


def steps_of(stage: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)


def pictures_of(
    stage: str, progress: Progress | None, noise: Sequence[torch.Generator]
) -> Callable[[Tensor], None] | None:
    if not isinstance(progress, Watcher):
        return None
    seeds = [generator.initial_seed() for generator in noise]
    return lambda x0: progress.see(stage, to_images(x0), seeds)
