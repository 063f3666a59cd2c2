import pytest

from unclip.errors import RequestError
from unclip.requests.fields import MAX_SEED
from unclip.requests.seeds import parse_seeds, split_seeds


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        (0, (0,)),
        ("7", (7,)),
        ("1,2,3", (1, 2, 3)),
        (" 3 , 1 ", (3, 1)),
        ("1..4", (1, 2, 3, 4)),
        ("0..0", (0,)),
        ("1..3,9", (1, 2, 3, 9)),
        ([5, 4], (5, 4)),
        (f"{MAX_SEED - 1}..{MAX_SEED}", (MAX_SEED - 1, MAX_SEED)),
    ],
)
def test_seeds(value, seeds):
    assert parse_seeds(value) == seeds


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "such as 1,2,3"),
        ("1,", "such as 1,2,3"),
        ("1-4", "1..8"),
        ("a", "1..8"),
        ("1...4", "1..8"),
        ("-1", "seed must be a whole number from 0"),
        ("4..1", "smaller seed first"),
        ("1,2,1", "seed 1 is listed twice"),
        ("1..3,2", "seed 2 is listed twice"),
        (f"0..{MAX_SEED}", "at most 100,000"),
        (f"0..{MAX_SEED + 1}", "seed must be"),
        ([1, "2"], "seed must be"),
        ([], "seed must be"),
        (True, "seed must be"),
    ],
)
def test_other_seeds_are_refused(value, says):
    with pytest.raises(RequestError, match="seed") as found:
        parse_seeds(value)
    assert says in str(found.value)


def test_the_first_seed_stands_in_the_request():
    assert split_seeds({"prompt": "a", "seed": "3..5"}) == ({"prompt": "a", "seed": 3, "n": 1}, (3, 4, 5))
    assert split_seeds({"seed": 0, "n": 4}) == ({"seed": 0, "n": 4}, (0,))
    assert split_seeds({"n": 4}) == ({"n": 4}, ())


def test_n_may_only_repeat_the_number_of_seeds():
    assert split_seeds({"seed": "1,2", "n": 2})[0]["n"] == 1
    with pytest.raises(RequestError, match="n is 3, but 2 seeds are listed"):
        split_seeds({"seed": "1,2", "n": 3})
    with pytest.raises(RequestError, match="best_of takes its candidates from one seed on"):
        split_seeds({"seed": "1,2", "best_of": 4})
