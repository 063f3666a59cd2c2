"""The sprite atlas and its nouns."""

from pathlib import Path

import numpy as np
import pytest

from unclip.errors import DataError
from unclip.stickers.sprites import load_nouns, load_sprites
from unclip.system.resources import bundled


def test_atlas_is_small_licensed_and_names_are_unique() -> None:
    nouns = load_nouns()
    assert bundled("assets", "sprites", "atlas.webp").stat().st_size < 6e6
    assert "SIL OPEN FONT LICENSE Version 1.1" in bundled("assets", "sprites", "LICENSE").read_text()
    assert len(nouns) >= 200
    assert {"penguin", "cat", "dog", "car", "apple", "banana"} <= set(nouns)
    names = [name for noun in nouns.values() for name in (noun.name, *noun.synonyms)]
    assert len(names) == len(set(names))
    assert len({noun.codepoint for noun in nouns.values()}) == len(nouns)
    for noun in nouns.values():
        assert len(noun.synonyms) == len(noun.synonym_plurals), noun.name
        assert noun.bare <= {noun.name, *noun.synonyms}, noun.name


def test_every_sprite_has_visible_pixels() -> None:
    sprites = load_sprites()
    for name in sprites.names:
        image = np.asarray(sprites.image(name, 40))  # h w 4
        assert max(image.shape[:2]) == 40, name
        assert (image[..., 3] > 128).mean() > 0.1, name


def test_errors_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no noun 'pengiun'; did you mean 'penguin'\? .*sprites\.json"):
        load_sprites().image("pengiun", 40)
    with pytest.raises(DataError, match="restore it"):
        load_sprites(tmp_path)
    with pytest.raises(DataError, match="reinstall"):
        bundled("assets", "nowhere")
