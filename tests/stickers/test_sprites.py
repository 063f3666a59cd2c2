"""The sprites and their nouns."""

import sys
from pathlib import Path

import numpy as np
import pytest

from unclip.errors import DataError
from unclip.stickers import drawings
from unclip.stickers.sprites import STYLES, VECTOR_STYLES, load_nouns, load_sprites
from unclip.system.resources import bundled


def test_sprites_are_small_licensed_and_names_are_unique() -> None:
    nouns = load_nouns()
    assert bundled("assets", "sprites", "atlas.webp").stat().st_size < 6e6
    assert "SIL OPEN FONT LICENSE Version 1.1" in bundled("assets", "sprites", "LICENSE").read_text()
    for style, source, licence in (("flat", "FLUENT", "MIT License"), ("cartoon", "TWEMOJI", "CC BY 4.0")):
        assert bundled("assets", "sprites", f"{style}.json").stat().st_size < 1e6
        assert licence in bundled("assets", "sprites", f"LICENSE-{source}").read_text()
    assert len(nouns) >= 200
    assert {"penguin", "cat", "dog", "car", "apple", "banana"} <= set(nouns)
    names = [name for noun in nouns.values() for name in (noun.name, *noun.synonyms)]
    assert len(names) == len(set(names))
    assert len({noun.codepoint for noun in nouns.values()}) == len(nouns)
    for noun in nouns.values():
        assert len(noun.synonyms) == len(noun.synonym_plurals), noun.name
        assert noun.bare <= {noun.name, *noun.synonyms}, noun.name


@pytest.mark.parametrize("style", STYLES)
def test_every_sprite_has_visible_pixels(style: str) -> None:
    sprites = load_sprites()
    names = [name for name in sprites.names if sprites.has(name, style)]
    assert set(sprites.names) - set(names) == ({"tennis racket"} if style == "cartoon" else set())
    for name in names:
        image = np.asarray(sprites.image(name, 40, style))  # h w 4
        assert max(image.shape[:2]) == 40, name
        assert (image[..., 3] > 128).mean() > 0.1, name


@pytest.mark.parametrize("style", STYLES)
def test_mirror_images_and_parts(style: str) -> None:
    sprites = load_sprites()
    for name in ("car", "penguin"):
        image = np.asarray(sprites.image(name, 96, style)).astype(int)
        assert np.array_equal(np.asarray(sprites.image(name, 96, style, mirrored=True)), image[:, ::-1])
        size = (image.shape[1], image.shape[0])
        for mirrored in (False, True):
            part = np.asarray(sprites.part(name, size, (8, 16, 40, 48), style, mirrored)).astype(int)
            whole = image[:, ::-1] if mirrored else image
            differs = np.abs(part - whole[16:48, 8:40])[part[..., 3] > 0]  # hidden pixels have no colour
            assert differs.mean() < 1


def test_styles_differ_and_vectors_are_crisp_at_any_size() -> None:
    sprites = load_sprites()
    sizes = {style: sprites.image("penguin", 64, style).size for style in STYLES}
    assert all(max(size) == 64 for size in sizes.values())
    small, large = (np.asarray(sprites.image("apple", side, "flat"), float) for side in (128, 512))
    edge = large[..., 3]
    assert ((edge > 10) & (edge < 245)).mean() < 0.02  # an enlarged bitmap has a soft border
    assert small.shape[0] * 4 == pytest.approx(large.shape[0], abs=4)


def test_vectors_need_resvg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    sprites = load_sprites()
    assert sprites.image("apple", 300, "noto").size
    with pytest.raises(DataError, match=r'pip install "unclip\[train\]", or use styles = "noto"'):
        sprites.image("apple", drawings.CACHED_SIDE + 1, VECTOR_STYLES[0])


def test_errors_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no noun 'pengiun'; did you mean 'penguin'\? .*sprites\.json"):
        load_sprites().image("pengiun", 40)
    with pytest.raises(DataError, match=r"'tennis racket' has no drawing in the style 'cartoon', only in noto, flat"):
        load_sprites().image("tennis racket", 40, "cartoon")
    with pytest.raises(DataError, match="restore it"):
        load_sprites(tmp_path)
    with pytest.raises(DataError, match="reinstall"):
        bundled("assets", "nowhere")
