"""Settings that the benchmarks share."""

from dataclasses import dataclass

PROMPT = "a penguin on a pink background"


@dataclass(frozen=True)
class ModelSettings:
    """The model to measure: its name, and device, dtype, memory and prior as in `Unclip.from_pretrained`."""

    model: str
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    prior: str | None = None
