"""A training task on a network of a few weights, runs of it, and what they leave behind."""

import csv
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.training.batch import Batch
from unclip.training.budget import Budget
from unclip.training.loop import Session, fit
from unclip.training.recipe_tables import Fit

CPU = torch.device("cpu")
STEPS = 8
QUICK = Fit(batch_size=2, lr=0.02, warmup=2, decay=0.5, workers=0)


class Noise(Dataset):
    """Item i is a function of i."""

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8), str(index)


class Toy:
    """Predicts the means of images, with convolutions in channels_last and dropout, which draws its own numbers."""

    size = 8
    predicts = "sample"

    def __init__(self, width: int = 4, before: Callable[["Toy"], None] | None = None):
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(width, 3, 3, padding=1), nn.Flatten(2)
        )
        self.before = before
        self.calls = 0

    def loss(self, network: nn.Module, batch: Batch):
        self.calls += 1
        if self.before is not None:
            self.before(self)
        images = batch.images
        error = network(images + batch.randn_like(images)).mean(2) - images.mean((2, 3))
        return error.square().mean(), {"first": torch.tensor(float(batch.captions[0]))}

    def sample_grid(self) -> Image.Image:
        """The mean weight as a grey."""
        assert not self.network.training
        return Image.new("L", (2, 2), shade(self.network))

    def networks(self) -> dict[str, nn.Module]:
        return {}


def shade(network: nn.Module) -> int:
    return round(network[0].weight.abs().mean().item() * 1000) % 256


def run(
    folder: Path, task: Toy | None = None, settings: Fit = QUICK, data: Dataset | None = None, **options
) -> nn.Module:
    task = Toy() if task is None else task
    data = Noise() if data is None else data
    options = {"title": "toy", "seed": 5, "budget": Budget(STEPS), "device": CPU, "quiet": True, **options}
    return fit(task, data, settings, Session(folder=folder, **options))


class Broken(Noise):
    """Of these items one cannot be read; all others, also those that replace it, can."""

    def __init__(self, *bad: int):
        self.bad = bad

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        if index in self.bad:
            raise DataError(f"{index}.png is cut off")
        return super().__getitem__(index)


def fail(error: BaseException) -> None:
    raise error


def at(step: int, act: Callable[[], None]) -> Callable[[Toy], None]:
    """`act` while the step of that number (from 1) is computed."""
    return lambda task: act() if task.calls == step else None


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "loss.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def step_of(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(file.metadata()["progress"].split('"step": ')[1].split(",")[0])


def assert_same(a: Path, b: Path) -> None:
    """Weights, average, moments, step and curve of two runs are the same, bit for bit."""
    first, second = (load_file(folder / "state.safetensors") for folder in (a, b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert step_of(a / "state.safetensors") == step_of(b / "state.safetensors")
    assert rows(a) == rows(b)
