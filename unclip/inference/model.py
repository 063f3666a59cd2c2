"""UnclipModel: a loaded checkpoint. Text -> embedding -> pixels, as tensors."""

from dataclasses import dataclass
from pathlib import Path

from unclip.inference.stage import Stage
from unclip.models.clip import Clip


@dataclass(frozen=True)
class Checkpoint:
    """What a pipeline is made of."""

    name: str
    clip: Clip
    prior: Stage | None  # None in a repository for variations of pictures
    decoder: Stage
    upsamplers: tuple[Stage, ...]
    vocabulary: frozenset[str] | None  # the words of its training captions, where that is a closed set
    prior_best_of: int = 2  # embeddings that the prior draws, of which the one nearest to the text is used
    shown_above: float = 1.0  # the similarity of a picture and a prompt from which on the one shows what the other says
    revision: str | None = None  # the commit, of a model from the hub
    folder: Path | None = None  # where it lies
    image_encoder: str | None = None  # what its image tower is from, if that is not its own
