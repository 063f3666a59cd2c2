"""The reference shows the arguments of a docstring as a list."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def format_docstring():
    pytest.importorskip("griffe", reason="needs the docs extra")
    return runpy.run_path(str(DOCS / "docstrings.py"))["format_docstring"]


def test_arguments_in_a_paragraph_become_a_list(format_docstring):
    text = "Do it.\n\nOn one\nline. size: in pixels,\n    of a side. n, seed: two numbers. Raises InputError."
    assert format_docstring(text, {"size", "n", "seed"}) == (
        "Do it.\n\nOn one\nline.\n\n- `size`: in pixels,\nof a side.\n- `n`, `seed`: two numbers.\n\nRaises InputError."
    )


def test_aligned_columns_become_a_list(format_docstring):
    text = "seed    of the first image;\n        the next has one more\nn       images"
    assert format_docstring(text, {"seed", "n"}) == "- `seed`: of the first image; the next has one more\n- `n`: images"


@pytest.mark.parametrize("text", ["Note: this is prose.", "    code: stays\n    as it is", "- a: list\n- b: stays"])
def test_other_text_is_left_alone(format_docstring, text):
    assert format_docstring(text, {"size", "code", "a", "b"}) == text


def test_the_readme_is_short():
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) < 150
