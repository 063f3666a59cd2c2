import time
from contextlib import suppress
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unclip.batch.wildcards import MAX_COMBINATIONS, escape, parse
from unclip.errors import RequestError


def count_some(texts: list[str], low: int, more: int) -> str:
    """{low-high$$a|b|c}, with a count that is possible."""
    low = min(low, len(texts))
    return f"{{{low}-{min(low + more, len(texts))}$$" + "|".join(texts) + "}"


QUICK = settings(max_examples=150, deadline=None)
options = st.text("ab c", max_size=4)
choices = st.lists(options, min_size=2, max_size=3).map(lambda texts: "{" + "|".join(texts) + "}")
counted = st.tuples(st.lists(st.one_of(options, choices), min_size=2, max_size=6), st.integers(1, 6), st.integers(0, 6))
counted = counted.map(lambda drawn: count_some(*drawn))
templates = st.lists(st.one_of(options, choices), max_size=4).map("".join)


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("a cat", ["a cat"]),
        ("a | b $$ c", ["a | b $$ c"]),
        ("a {red|blue} cat", ["a red cat", "a blue cat"]),
        ("{a|b}{c|d}", ["ac", "ad", "bc", "bd"]),
        ("{2$$a|b|c}", ["a, b", "a, c", "b, c"]),
        ("{1-2$$ and $$a|b}", ["a", "b", "a and b"]),
        ("{2$${a|b}|c}", ["a, c", "b, c"]),
        ("a {small |}cat", ["a small cat", "a cat"]),
        ("{red|{dark|light} blue}", ["red", "dark blue", "light blue"]),
        (r"\{red|blue\}", ["{red|blue}"]),
        (r"{a\|b|c\}}", ["a|b", "c}"]),
        (r"C:\temp", [r"C:\temp"]),
        (r"{5\$\$|b}", ["5$$", "b"]),
    ],
)
def test_combinations(template, prompts):
    parsed = parse(template)
    assert list(parsed.combinations()) == prompts
    assert parsed.count() == len(prompts)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("a {red|blue cat", "never closed"),
        ("a red} cat", "without its {"),
        ("a {red} cat", "without a choice"),
        ("a {} cat", "without a choice"),
        ("{4$$a|b}", "ask for 1 to 2"),
        ("{0$$a|b}", "ask for 1 to 2"),
        ("{2-1$$a|b}", "ask for 1 to 2"),
        ("{x$$a|b}", "no count before the $$"),
        ("{a|2$$b}", "out of place"),
        ("{" * 50 + "a|b" + "}" * 50, "deeper than"),
    ],
)
def test_a_mistake_names_the_place_and_the_fix(template, says):
    with pytest.raises(RequestError, match="^prompt ") as caught:
        parse(template)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_count_of_combinations_needs_no_listing():
    assert parse("{a|b|c}" * 40).count() == MAX_COMBINATIONS + 1
    assert parse("{1-3$$a|b|c|d}").count() == 4 + 6 + 4


def test_samples_are_the_same_on_every_machine():
    template = parse("{red|blue|green} {2$$cat|dog|owl}")
    samples = [template.sample(seed) for seed in range(4)]
    assert samples == ["green cat, owl", "green cat, dog", "green cat, owl", "blue dog, owl"]
    assert {template.sample(seed) for seed in range(200)} == set(template.combinations())


@QUICK
@given(st.text(max_size=30))
def test_an_escaped_text_is_itself(text):
    assert list(parse(escape(text)).combinations()) == [text]


@QUICK
@given(templates, st.integers(0, 2**63))
def test_a_sample_is_one_of_the_combinations(template, seed):
    parsed = parse(template)
    found = list(parsed.combinations())
    assert len(found) == parsed.count()
    assert parsed.sample(seed) in found


@QUICK
@given(st.text("{}|$\\ab1-", max_size=25))
def test_anything_parses_or_is_refused(text):
    try:
        parsed = parse(text)
    except RequestError:
        return
    if parsed.count() <= 1000:
        assert parsed.sample(1) in set(parsed.combinations())


@QUICK
@given(st.lists(st.one_of(options, counted), max_size=3).map("".join))
def test_counts_are_those_of_a_listing(template):
    parsed = parse(template)
    listed = sum(1 for _ in islice(parsed.combinations(), 3000))
    assert parsed.count() == listed if listed < 3000 else parsed.count() >= 3000
    if listed < 3000:
        assert parsed.can_be_blank == any(not text.strip() for text in parsed.combinations())


@pytest.mark.parametrize(
    ("template", "count"),
    [
        ("{99998$$" + "|".join("a" * 10), None),
        ("{998$$" + "|".join(["a"] * 999) + "}", 999),
        ("{998-999$$" + "|".join(["a"] * 999) + "}", 1000),
        ("{997$$" + "|".join(["a"] * 999) + "}", MAX_COMBINATIONS + 1),
        ("{2$$" + "|".join(["a"] * 447) + "}", 447 * 446 // 2),
        ("{2$$" + "|".join(["{a|b}"] * 200) + "}", 200 * 199 // 2 * 4),
        ("{199$$" + "|".join(["a"] * 199 + ["{a|b}"]) + "}", 1 + 199 * 2),
        ("{" + "|".join(["a"] * MAX_COMBINATIONS) + "}", MAX_COMBINATIONS),
        ("{" + "|".join(["a"] * (MAX_COMBINATIONS + 1)) + "}", MAX_COMBINATIONS + 1),
        ("{1-9$$" + "|".join(["a"] * 300_000) + "}", MAX_COMBINATIONS + 1),
        ("{a|b}" * 15_000, MAX_COMBINATIONS + 1),
        ("{2$$a|b}" * 15_000, 1),
    ],
)
def test_counts_of_many_options_stop_at_the_limit(template, count):
    start = time.process_time()
    if count is None:
        with pytest.raises(RequestError):
            parse(template).count()
    else:
        assert parse(template).count() == count
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "template",
    ["{a|b}" * 8000, "{" + "a|" * 20_000 + "b}", "{a|b}" + "a$" * 20_000, "{a|b}" * 8000 + "{", "{a|b}" * 8000 + "}"],
)
def test_parsing_takes_linear_time(template):
    """40 kB took seconds when each choice looked up its place in the text."""

    def seconds(text: str) -> float:
        start = time.process_time()
        with suppress(RequestError):
            parse(text).sample(1)
        return time.process_time() - start

    assert seconds(template * 5) < 5


def test_combinations_are_listed_lazily():
    long = parse("{2$$" + "|".join(["x" * 2500] * 400) + "}")  # 400 MB in all
    assert next(long.combinations()) == ", ".join(["x" * 2500] * 2)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{|a}", True),
        ("{|a}b", False),
        ("{2$$|a}", False),
        ("{1-2$$|a}", True),
        ("{2$$ $$ | |a}", True),
        ("{2$$,$$ | |a}", False),
        (" {a|{b| }} ", True),
        ("a", False),
        (" ", True),
    ],
)
def test_choices_that_leave_nothing(template, expected):
    assert parse(template).can_be_blank is expected
