"""`unclip embed`: the CLIP embedding of a picture or a prompt, as a file to keep."""

from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import options
from unclip.errors import InputError
from unclip.requests.request import Request
from unclip.requests.sources import EMBEDDING_SUFFIX
from unclip.system.choices import check_device, check_memory
from unclip.system.files import check_writable


def embed(
    source: Annotated[str, typer.Argument(metavar="IMAGE|PROMPT", help="An image file, by its suffix, or a prompt.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help=f"Ends in {EMBEDDING_SUFFIX}.")],
    model: options.Model = "stickers",
    image_encoder: options.ImageEncoder = None,
    seed: Annotated[int, typer.Option(help="Of what the prior imagines for a prompt.")] = 0,
    device: options.Device = "auto",
    memory: options.Memory = "auto",
) -> None:
    """Write the embedding of an image, or the one that the prior imagines for a prompt, for --embedding.

    Example: unclip embed photo.png -o photo.safetensors && unclip generate --embedding photo.safetensors
    """
    path = Path(out)
    if path.suffix != EMBEDDING_SUFFIX:
        raise InputError(f"-o {out!r} must end in {EMBEDDING_SUFFIX}")
    if path.is_dir():
        raise InputError(f"-o {out!r} is a folder; give a file in it")
    Request(prompt=source, seed=seed)
    check_device(device)
    check_memory(memory)
    check_writable(path.parent)

    from unclip.pipeline import Unclip

    pipe = Unclip.from_pretrained(model, device=device, memory=memory, image_encoder=image_encoder)
    print(pipe.save_embedding(path, source, seed=seed))
