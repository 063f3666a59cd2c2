"""`unclip embed`: the CLIP image embedding of an image or a prompt, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import options
from unclip.errors import InputError
from unclip.images.inputs import check_embeddable
from unclip.requests.request import Request
from unclip.requests.sources import EMBEDDING_SUFFIX, source_kind
from unclip.system.files import check_writable
from unclip.system.light_imports import import_networks


def embed(
    source: Annotated[str, typer.Argument(metavar="IMAGE|PROMPT", help="Image file, or a prompt for the prior.")],
    out: Annotated[
        str,
        typer.Option("-o", "--out", metavar="FILE", help=f"File to write; its name ends in {EMBEDDING_SUFFIX}."),
    ],
    seed: Annotated[int, typer.Option(metavar="SEED", help="Seed of the prior, for a prompt.")] = 0,
    model: options.Model = "stickers",
    image_encoder: options.ImageEncoder = None,
    prior: options.Prior = None,
    lora: options.Lora = None,
    device: options.Device = "auto",
    memory: options.Memory = "auto",
) -> None:
    """Save the CLIP embedding of an image or a prompt.

    The prior samples the embedding of a prompt. Other commands take the file with --embedding.

    \b
    Example:
      unclip embed photo.png -o photo.safetensors
      unclip generate --embedding photo.safetensors
    """
    path = Path(out)
    if path.suffix != EMBEDDING_SUFFIX:
        raise InputError(f"-o {out!r} must end in {EMBEDDING_SUFFIX}")
    if path.is_dir():
        raise InputError(f"-o {out!r} is a folder; give a file in it")
    is_prompt = source_kind(source) == "prompt"
    Request(prompt=source if is_prompt else "an image", seed=seed)
    check_embeddable(source, decode=True)
    check_writable(path.parent)

    import_networks()
    from unclip.pipeline import Unclip

    pipe = Unclip.from_pretrained(
        model, device=device, memory=memory, image_encoder=image_encoder, prior=prior, lora=lora or ()
    )
    print(pipe.save_embedding(path, source, seed=seed))
