"""Fixtures for the tests of scenes, captions and renderings."""

import pytest

from unclip.stickers.compose import SceneOptions
from unclip.stickers.scene import Scene
from unclip.stickers.stream import scene_at

CaptionedScenes = list[tuple[Scene, str]]


@pytest.fixture(scope="session")
def train_scenes() -> CaptionedScenes:
    return [scene_at(0, i) for i in range(1500)]


@pytest.fixture(scope="session")
def held_out_scenes() -> CaptionedScenes:
    options = SceneOptions(split="held_out")
    return [scene_at(0, i, options) for i in range(500)]


@pytest.fixture(scope="session")
def scenes(train_scenes: CaptionedScenes, held_out_scenes: CaptionedScenes) -> CaptionedScenes:
    return train_scenes + held_out_scenes
