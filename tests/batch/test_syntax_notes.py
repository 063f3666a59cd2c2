import time

import pytest

from unclip.batch.file_names import NameTemplate
from unclip.batch.jobs import Settings, Task, check_row
from unclip.batch.row import Row
from unclip.batch.syntax_notes import SyntaxNotes


def notes_of(*prompts: str) -> list[str]:
    notes = SyntaxNotes()
    settings = Settings(seed=0, name=NameTemplate.parse("{seed}"), wildcards=False)
    for index, prompt in enumerate(prompts):
        task = check_row(Row(index + 1, index, {"prompt": prompt}), settings)
        assert isinstance(task, Task)
        notes.add(task)
    return list(notes)


@pytest.mark.parametrize(
    ("prompt", "example", "explanation"),
    [
        ("<lora:foo:1> a cat", "'<lora:foo:1>'", "no other networks are loaded"),
        ("a cat --ar 16:9 --v 5", "'--ar'", "options in a prompt are not read"),
        ("a cat # on a mat", "'#'", "only a # at the start of a line of text begins a comment"),
    ],
)
def test_the_syntax_of_another_tool_is_noted(prompt, example, explanation):
    assert notes_of("a cat", prompt) == [f"line 2: {example} is plain text; {explanation}"]


@pytest.mark.parametrize(
    "prompt",
    ["a cat (sitting)", "a cat at 12:30 (noon: lunch)", "a <red> cat", "a_cat __init", "cat #1", "C::D", "[a cat]"],
)
def test_plain_text_is_not_noted(prompt):
    assert notes_of(prompt) == []


@pytest.mark.parametrize("prompt", ["<lora:" + "1" * 300_000, "a --" + "v" * 300_000 + "!", "a" + " #b" * 100_000])
def test_notes_take_linear_time(prompt):
    start = time.process_time()
    assert notes_of(prompt) == []
    assert time.process_time() - start < 2


def test_a_kind_is_noted_once_with_its_first_line():
    found = notes_of("a --ar 1 --v 5", "a cat", *["<lora:x:1> a --v 5"] * 3)
    assert sorted(found) == [
        "line 1 and 3 more: '--ar' is plain text; options in a prompt are not read",
        "line 3 and 2 more: '<lora:x:1>' is plain text; no other networks are loaded",
    ]
