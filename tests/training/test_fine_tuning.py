"""Fine-tuning published checkpoints: LoRA files and whole checkpoints that load again, on every family."""

import csv
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers import difference
from tests.published import SIZES, add_image_encoder, published
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from tests.published_kandinsky_2_1 import SIZES_2_1, kandinsky_2_1_decoder, kandinsky_2_1_prior
from tests.published_stable_unclip import SIZES as SIZES_STABLE
from tests.published_stable_unclip import image_variation
from unclip import Unclip
from unclip.errors import InputError
from unclip.training import run
from unclip.training.options import TrainingOptions
from unclip.training.tasks.fine_tuning import FineTunedDecoder

FAST = {"seed": 3, "steps": 3, "prior_steps": 2}
FIT = "batch_size = 8\nlr = 2e-2\nwarmup = 2\ndecay = 0.3\nema = 0.9\nworkers = 0\nweight_decay = 0.0"


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None:
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of blocks with captions."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for n in range(8):
        blocks = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(f"red cat {n}")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints: of each family, and the prior of another size."""
    folder = tmp_path_factory.mktemp("models")
    kandinsky_prior(SIZES_2_2["one"], folder).save_pretrained(folder / "kandinsky-2-2-prior")
    kandinsky_prior(SIZES_2_2["other"], folder).save_pretrained(folder / "other-prior")
    kandinsky_decoder(SIZES_2_2["one"]).save_pretrained(folder / "kandinsky")
    kandinsky_decoder(SIZES_2_2["one"], inpaint=True).save_pretrained(folder / "inpaint")
    kandinsky_2_1_prior(SIZES_2_1["one"], folder).save_pretrained(folder / "kandinsky-2-1-prior")
    kandinsky_2_1_decoder(SIZES_2_1["one"]).save_pretrained(folder / "kandinsky-2-1")
    image_variation(SIZES_STABLE["one"], folder).save_pretrained(folder / "stable")
    published(SIZES["one"], folder).save_pretrained(folder / "karlo")
    shutil.copytree(folder / "karlo", folder / "variations")
    add_image_encoder(folder / "variations", SIZES["one"])
    return folder


@pytest.fixture
def recipe(tmp_path: Path):
    """A function: lines of [finetune] -> a recipe file."""

    def write(lines: str = "", fit: str = FIT) -> Path:
        path = tmp_path / "fine.toml"
        path.write_text(f"[finetune]\nsamples = 2\nsample_steps = 2\n{lines}\n[finetune.fit]\n{fit}\n")
        return path

    return write


def train(stage: str, recipe: Path | None, out: Path, **options) -> Path:
    """Fine-tune quietly on the CPU."""
    return run.train(stage, recipe, out, TrainingOptions(**{"device": "cpu", "dtype": "float32", "quiet": True, **options}))


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]
