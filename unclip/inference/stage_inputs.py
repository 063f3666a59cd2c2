"""The inputs of a stage's network, and the options by which the stage samples."""

from dataclasses import dataclass, field
from itertools import chain

from unclip.diffusion.guidance import NetworkInputs
from unclip.diffusion.tiling import Tiling


@dataclass(frozen=True)
class StageInputs:
    """The network inputs of a stage.

    cond, uncond: inputs with and without the prompt, `b ...` each; uncond may be None for guidance 1.
    tiling: the windows of one larger canvas, which is sampled as a whole; each window names its row of cond and uncond.
    canvas: further inputs that cover the whole canvas, `1 c H W`; each window gets its part.
    """

    cond: NetworkInputs
    uncond: NetworkInputs | None = None
    tiling: Tiling | None = None
    canvas: NetworkInputs = field(default_factory=dict)

    def check(self, batch: int) -> None:
        """Assert that every input has one row per image, or per row of the tiling."""
        rows = batch if self.tiling is None else max(self.tiling.rows) + 1
        for key, value in chain(self.cond.items(), () if self.uncond is None else self.uncond.items()):
            assert len(value) == rows, f"{key} has {len(value)} rows, not {rows}"

    def chunk(self, which: slice) -> tuple[NetworkInputs, NetworkInputs | None]:
        """cond and uncond of a chunk of the batch, or of a chunk of the windows."""
        return self._chunk(self.cond, which), None if self.uncond is None else self._chunk(self.uncond, which)

    def _chunk(self, inputs: NetworkInputs, which: slice) -> NetworkInputs:
        if self.tiling is None:
            return {key: value[which] for key, value in inputs.items()}
        rows = list(self.tiling.rows[which])
        own = {key: value[rows] for key, value in inputs.items() if key not in self.canvas}
        return own | {key: self.tiling.cut(value, which) for key, value in self.canvas.items()}


@dataclass(frozen=True)
class StageOptions:
    """The sampling options of a stage. None is its own default.

    spacing            of the timesteps, a name in diffusion.sampler_names.SPACING_NAMES
    guidance_interval  noise levels (low, high] with guidance; None for all
    guidance_every     k: guidance is computed at every k-th step, and reused between
    cache_every        k: the whole network runs at every k-th step; deep features are reused between
    resample           RePaint passes (see `diffusion.repaint`)
    size               (width, height) in pixels, for a stage with `any_size`
    """

    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    spacing: str = "uniform"
    guidance_interval: tuple[float, float] | None = None
    guidance_every: int = 1
    cache_every: int = 1
    resample: int = 1
    size: tuple[int, int] | None = None
