"""The prompts of a command: from its arguments or from standard input, with their wildcards chosen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unclip.batch import wildcards
from unclip.batch.jobs import PLAIN
from unclip.batch.prompt_file import prompt_file
from unclip.batch.row import BadLine
from unclip.batch.word_lists import FOLDER, WordLists
from unclip.errors import InputError
from unclip.requests.other_tools import check_no_weights
from unclip.requests.request import Request
from unclip.requests.seeds import split_seeds
from unclip.requests.sources import check_is_no_file

STANDARD_INPUT = "-"


def read_standard_input(mode: str) -> list[dict[str, Any]]:
    """The fields of each line of standard input: a prompt, with options after ` -- `, as in a prompt file of text.

    Raises InputError for a line that cannot be read, that has another mode, and if there is none.
    """
    jobs = []
    with prompt_file(STANDARD_INPUT, "txt") as lines:
        for row in lines.rows():
            if isinstance(row, BadLine):
                raise InputError(f"standard input, line {row.line}: {row.problem}")
            if row.fields.get("mode", mode) != mode:
                raise InputError(
                    f"standard input, line {row.line}: its mode is not {mode}; give it to `unclip batch -`"
                )
            jobs.append(row.fields)
    if not jobs:
        raise InputError("standard input holds no prompts; write one per line")
    return jobs


def word_lists(folder: str | None) -> WordLists:
    """The word lists of a folder; None: of the one in the working folder."""
    return WordLists(Path(FOLDER) if folder is None else Path(folder))


def make_requests(given: dict[str, Any], lists: WordLists | None) -> Iterator[Request]:
    """The requests of one job: one for each listed seed, and for each image if the prompt has wildcards.

    lists: None leaves wildcards as they are. Raises RequestError.
    """
    fields, seeds = split_seeds(given)
    request = Request(**fields)
    for name, text in request.texts():
        check_is_no_file(name, text)
        if lists is not None:
            check_no_weights(name, text, PLAIN)
    template = wildcards.Template((request.prompt,)) if lists is None else wildcards.parse(request.prompt, lists)
    for seed in seeds:
        if template.has_choices and request.best_of is None:  # every image chooses, by its own seed
            for own in range(seed, seed + request.n):
                yield request.replace(n=1, seed=own, prompt=template.sample(own))
        else:
            yield request.replace(seed=seed, prompt=template.sample(seed))
