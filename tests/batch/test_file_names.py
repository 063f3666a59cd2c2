import re
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unclip.batch.file_names import DEFAULT, MAX_LENGTH, NameTemplate
from unclip.errors import InputError, RequestError

QUICK = settings(max_examples=200, deadline=None)
VALUES = {
    "index": 3,
    "line": 5,
    "image": 0,
    "seed": 7,
    "slug": "A Cat!",
    "id": None,
    "size": "64x64",
    "mode": "generate",
}
VALUES |= {"model": "tiny", "sampler": "ddim"}


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (DEFAULT, "00003-a-cat-7.png"),
        ("{id}/{line}_{image}", "none/5_0.png"),
        ("{slug:.3}{seed:3d}", "a-c  7.png"),
        ("{Category}-{size}", "world-knowledge-64x64.png"),
        ("con{slug}", "cona-cat.png"),
    ],
)
def test_names(template, name):
    assert NameTemplate.parse(template).name({**VALUES, "Category": "World Knowledge"}, ".png") == name


def test_names_reserved_on_windows():
    assert NameTemplate.parse("{slug}").name({**VALUES, "slug": "CON"}, ".png") == "con_.png"
    # Windows takes all of "nul.3.png" for the device
    assert NameTemplate.parse("{slug}.{index}").name({**VALUES, "slug": "NUL"}, ".png") == "nul_.3.png"
    assert NameTemplate.parse("{slug}{index}/a").name({**VALUES, "slug": "com"}, ".png") == "com3_/a.png"


@pytest.mark.parametrize(
    "template",
    ["", "same", "../{seed}", "/{seed}", "{seed}/", "a//{seed}", ".{seed}", "{seed}.", "{seed} ", "a:{seed}", "{seed}?"]
    + ["{seed", "seed}", "{}", "{0}", "{seed.real}", "{seed[0]}", "{seed!r}", "{seed:x}", "{seed:999d}", "{slug:05d}"]
    + ["{seed:>99999}", "a\0{seed}", "{seed}\\b", "./{seed}", "é{seed}"]
    + ["NUL.{index}", "com1/{seed}", "a/Aux.{seed}.b", "nul .{seed}", "{slug:.0}.unclip/{seed}", "{slug:.0}{seed}"]
    + ["manifest.jsonl/{seed}", "a/Errors.JSONL/{seed}"],
)
def test_an_invalid_pattern(template):
    with pytest.raises(InputError, match="--name") as caught:
        NameTemplate.parse(template)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_an_error_of_the_line():
    with pytest.raises(RequestError, match="no column 'challenge'"):
        NameTemplate.parse("{seed}{challenge}").name(VALUES, ".png")


@QUICK
@given(st.text(max_size=40), st.text(max_size=300), st.integers(0, 2**63))
def test_whatever_is_accepted_stays_in_the_folder_and_is_safe(template, text, number):
    values = {**VALUES, "slug": text, "id": text, "seed": number, "column": text}
    for pattern in (template, f"{{id}}/{{column}}{{slug}}{template}", "{slug}", "{column}"):
        try:
            name = NameTemplate.parse(pattern).name(values, ".png")
        except InputError:
            continue
        path = PurePosixPath(name)
        assert not path.is_absolute() and not PureWindowsPath(name).is_absolute()
        for part in path.parts:
            assert re.fullmatch(r"[A-Za-z0-9 _.,+=@()\[\]~-]+", part)
            assert not part.startswith((".", " ")) and not part.endswith((".", " "))
            assert not PureWindowsPath(part).drive and not PureWindowsPath(part).is_reserved()
            assert part.casefold() not in (".unclip", "manifest.jsonl", "errors.jsonl")
            assert len(part) <= MAX_LENGTH + 10
