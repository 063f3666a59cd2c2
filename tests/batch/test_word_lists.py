"""Word lists of a folder, in prompts and in prompt files."""

import pytest

from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.jobs import Settings, Task, check_row
from unclip.batch.row import BadLine, Row
from unclip.batch.wildcards import MAX_COMBINATIONS, escape, parse
from unclip.batch.word_lists import WordLists
from unclip.errors import RequestError


@pytest.fixture
def lists(tmp_path) -> WordLists:
    """Lists with comments, options with wildcards, a list in a subfolder, and lists that name others."""
    folder = tmp_path / "wildcards"
    (folder / "people").mkdir(parents=True)
    (folder / "animals.txt").write_text("# animals\ncat\n\n dog \nowl\n")
    (folder / "colours.txt").write_text("{dark|light} red\nblue\n")
    (folder / "people" / "old-jobs.txt").write_bytes(b"\xef\xbb\xbfsmith\r\nbaker\r\n")
    (folder / "things.txt").write_text("a __colours__ hat\n__animals__\n")
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "one.txt").write_text("__two__\n")
    (folder / "two.txt").write_text("a\n__one__\n")
    (folder / "bad.txt").write_text("a\n{b\n")
    (folder / "outer.txt").write_text("__bad__\n")
    return WordLists(folder)


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("a __animals__", ["a cat", "a dog", "a owl"]),
        ("__people/old-jobs__!", ["smith!", "baker!"]),
        ("__colours__", ["dark red", "light red", "blue"]),
        ("__things__", ["a dark red hat", "a light red hat", "a blue hat", "cat", "dog", "owl"]),
        ("{2$$ and $$__animals__}", ["cat and dog", "cat and owl", "dog and owl"]),
        ("{2$$ __animals__ }", ["cat, dog", "cat, owl", "dog, owl"]),
        ("{__animals__}", ["cat", "dog", "owl"]),
        ("{a|__animals__}", ["a", "cat", "dog", "owl"]),
        (r"\__animals__ __init snake_case a__animals__b", ["__animals__ __init snake_case a__animals__b"]),
        ("____ __ _", ["____ __ _"]),
    ],
)
def test_a_list_is_a_choice_of_its_lines(lists, template, prompts):
    parsed = parse(template, lists)
    assert list(parsed.combinations()) == prompts
    assert parsed.count() == len(prompts)
    assert {parsed.sample(seed) for seed in range(200)} == set(prompts)


def test_a_choice_with_a_list_as_one_of_its_options(lists):
    """`{a|__animals__}` chooses between two options first, as with nested braces."""
    samples = [parse("{a|__animals__}", lists).sample(seed) for seed in range(400)]
    assert 150 < samples.count("a") < 250


def test_the_same_seed_chooses_the_same_line(lists):
    again = WordLists(lists.folder)
    found = [parse("__animals__ __colours__", lists).sample(seed) for seed in range(20)]
    assert found == [parse("__animals__ __colours__", again).sample(seed) for seed in range(20)]
    assert len(set(found)) > 4


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("an __animal__", "did you mean 'animals'?"),
        ("__empty__", "is empty"),
        ("__one__", "(__one__, __two__, __one__); break the circle"),
        ("__bad__", "__bad__, whose line 2 is bad: prompt has a { that is never closed"),
        ("__outer__", "__bad__, whose line 2 is bad"),
        ("__people__", "there is no"),
    ],
)
def test_a_bad_list_is_one_line(lists, template, says):
    with pytest.raises(RequestError, match="^prompt ") as caught:
        parse(template, lists)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_outside_the_folder_is_read(lists):
    (lists.folder.parent / "secret.txt").write_text("secret\n")
    for name in ("../secret", "/etc/passwd", "people/../../secret"):
        assert list(parse(f"__{name}__", lists).combinations()) == [f"__{name}__"]


def test_without_a_folder_the_message_says_how_to_make_one(tmp_path):
    with pytest.raises(RequestError, match="write color.txt into a folder wildcards, or give --wildcards"):
        parse("a __color__ cat", WordLists(tmp_path / "wildcards"))


def test_names_are_text_without_lists():
    assert list(parse("__animals__ {a|b}").combinations()) == ["__animals__ a", "__animals__ b"]
    assert list(parse(escape("__animals__"), lambda name: 1 / 0).combinations()) == ["__animals__"]


def test_long_lists_are_counted_and_read_once(tmp_path):
    (tmp_path / "words.txt").write_text("".join(f"word{i}\n" for i in range(50_000)))
    lists = WordLists(tmp_path)
    assert parse("__words__", lists).count() == 50_000
    (tmp_path / "words.txt").unlink()
    for _ in range(200):
        assert parse("{2$$__words__}", lists).count() == MAX_COMBINATIONS + 1


def line_of(prompt: str, lists: WordLists, **settings) -> Task | BadLine:
    return check_row(
        Row(1, 0, {"prompt": prompt, "seed": 3}),
        Settings(seed=0, name=NameTemplate.parse(DEFAULT), word_lists=lists, **settings),
    )


def test_lists_in_a_prompt_file(lists):
    line = line_of("a __animals__", lists, all_combinations=True)
    assert isinstance(line, Task) and [job.request.prompt for job in line.jobs()] == ["a cat", "a dog", "a owl"]
    line = line_of("an __animal__", lists)
    assert isinstance(line, BadLine) and line.field == "prompt"
    line = line_of("an __animal__ (x:1.2)", lists, wildcards=False)
    assert isinstance(line, Task) and next(line.jobs()).request.prompt == "an __animal__ (x:1.2)"


@pytest.mark.parametrize("prompt", ["(a cat:1.3)", "a [cat:dog:0.5]", "a cat::2 dog", "((a cat)) on a mat"])
def test_weights_are_refused(lists, prompt):
    line = line_of(prompt, lists)
    assert isinstance(line, BadLine) and line.field == "prompt"
    assert "weights are not read: leave it out" in line.problem and line.problem.endswith(
        "--no-wildcards reads it as text"
    )
