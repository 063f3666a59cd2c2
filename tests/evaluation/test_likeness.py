"""Likeness of images to the true renderings, their sharpness, blocks and diversity."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.evaluation.stand_ins import StandIn, blank_image, new_suite, noise_image, perfect_model, suite_scenes
from unclip.evaluation.likeness import SEEDS, blockiness, compare, edge_sharpness, measure_likeness, seed_difference
from unclip.requests.request import Request
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.render import render


def column(result: dict, name: str) -> list:
    return [row[name] for row in result["rows"] if name in row]


def test_a_perfect_model_is_recognisable_sharp_and_without_blocks_but_not_diverse(tmp_path: Path) -> None:
    found = measure_likeness(new_suite(tmp_path, perfect_model(suite_scenes())))
    assert [row[""] for row in found["rows"]] == ["single object", "two objects", "counting", "one object, by seed"]
    assert [each["rate"] for each in column(found, "recognisable")] == [1, 1, 1]
    assert all(each["mean"] == pytest.approx(1, abs=0.1) for each in column(found, "sharpness, real = 1"))
    assert all(each["mean"] == pytest.approx(1, abs=0.3) for each in column(found, "blocks of 4 px, none = 1"))
    assert min(column(found, "median PSNR, dB")) > 25
    assert column(found, f"difference of {SEEDS} seeds")[0]["mean"] == 0
    assert any("provisional" in note for note in found["notes"])


def test_noise_and_empty_images_are_not_recognisable(tmp_path: Path) -> None:
    for name, generate in (("noise", noise_image), ("blank", blank_image)):
        found = measure_likeness(new_suite(tmp_path / name, StandIn(generate, suite_scenes(1)), n=1))
        assert [each["rate"] for each in column(found, "recognisable")] == [0, 0, 0]


def test_a_blur_is_less_sharp_and_less_recognisable() -> None:
    [(_, scene)] = sample_prompts(1, 0, ["single"])
    image = Image.fromarray(render(scene, 128))
    likenesses = [compare(image.filter(ImageFilter.GaussianBlur(r)), scene, [8]) for r in (0, 1.5, 4)]
    psnrs, sharp = [each.psnr for each in likenesses], [each.sharpness for each in likenesses]
    assert psnrs == sorted(psnrs, reverse=True) and psnrs[0] > 30
    assert sharp == sorted(sharp, reverse=True) and sharp[0] == pytest.approx(1, abs=0.05) and sharp[2] < 0.5


def test_grain_makes_no_image_sharper() -> None:
    truth = render(sample_prompts(1, 0, ["single"])[0][1], 128).astype(np.float32) / 255
    grain = np.random.default_rng(0).normal(0, 0.1, truth.shape).astype(np.float32)
    assert edge_sharpness(truth + grain, truth) == pytest.approx(1, abs=0.1)
    assert edge_sharpness(np.full_like(truth, 0.5) + grain, truth) == pytest.approx(0, abs=0.1)


def test_blocks_are_found_at_their_size_only() -> None:
    steps = np.random.default_rng(0).normal(0, 0.1, (16, 16, 3)).repeat(8, 0).repeat(8, 1)
    assert blockiness(steps, 8) > 100
    assert blockiness(np.roll(steps, 3, (0, 1)), 8) < 1
    assert blockiness(np.zeros((64, 64, 3)), 8) == 1
    smooth = np.random.default_rng(0).normal(0, 0.1, (128, 128, 3))
    assert blockiness(smooth, 8) == pytest.approx(1, abs=0.1)


def test_seeds_that_differ_in_place_differ_more_than_those_that_differ_in_nothing() -> None:
    def place(x: int) -> Image.Image:
        image = Image.new("RGB", (64, 64), (250, 250, 248))
        image.paste((200, 0, 0), (x, 20, x + 16, 36))
        return image

    background = (250, 250, 248)
    assert seed_difference([place(4)] * 3, background) == 0
    assert seed_difference([place(4), place(24), place(44)], background) == pytest.approx(2**0.5, abs=0.01)


def test_images_of_seeds_come_from_one_request(tmp_path: Path) -> None:
    seen: list[Request] = []
    scenes = suite_scenes(1)
    model = StandIn(
        lambda request: (seen.append(request), Image.fromarray(render(scenes[request.prompt], 64)))[1], scenes
    )
    measure_likeness(new_suite(tmp_path, model, n=1))
    assert len({request.seed for request in seen}) >= SEEDS
