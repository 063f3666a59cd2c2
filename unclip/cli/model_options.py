"""The options that choose a model, as one value that loads it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unclip.cli.progress import Progress, on_terminal
from unclip.requests.fields import PRIORS
from unclip.system.light_imports import import_networks

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model, what is added to it, and where it runs, as given on the command line."""

    model: str
    image_encoder: str | None = None
    prior: str | None = None
    lora: list[str] | None = None
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"

    def load(self, quiet: bool) -> Unclip:
        """The loaded pipeline. quiet: show no bar."""
        import_networks()
        from unclip.pipeline import Unclip

        with closing(Progress(on_terminal(quiet))) as progress:
            return Unclip.from_pretrained(
                self.model,
                device=self.device,
                dtype=self.dtype,
                memory=self.memory,
                image_encoder=self.image_encoder,
                prior=self.prior,
                lora=self.lora or (),
                progress=progress,
            )

    def naming(self) -> dict[str, str | None]:
        """The options that the images of a run depend on, for the record of its folder."""
        lora = " ".join(self.lora or ()) or None
        prior = None if self.prior in PRIORS else self.prior  # a kind of prior is part of each request
        return {"--dtype": self.dtype, "--image-encoder": self.image_encoder, "--prior": prior, "--lora": lora}
