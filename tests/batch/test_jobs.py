import time
import tracemalloc
from pathlib import Path

import pytest

from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.jobs import Settings, Task, check_row, check_rows, job_key, line_seed
from unclip.batch.prompt_file import prompt_file
from unclip.batch.row import BadLine, Row
from unclip.errors import RequestError
from unclip.requests.request import Request
from unclip.requests.validation import rename_old_fields

PLAIN = {"seed": 9, "name": NameTemplate.parse(DEFAULT)}


def task(fields: dict, index: int = 0, **settings) -> Task | BadLine:
    return check_row(Row(index + 1, index, fields), Settings(**{**PLAIN, **settings}))


def test_a_line_without_a_seed_gets_a_seed_of_its_own():
    seeds = [task({"prompt": "a cat"}, index).request.seed for index in range(100)]
    assert seeds == [line_seed(9, index) for index in range(100)]
    assert len(set(seeds)) == 100 and max(seeds) < 2**32
    assert line_seed(9, 0) == 3753050242 != line_seed(10, 0)  # must never change: folders are resumed by it
    assert task({"prompt": "a cat", "seed": 0}).request.seed == 0


def test_a_line_overrides_the_defaults():
    defaults = {"steps": 5, "guidance": 2.0, "n": 2}
    found = task({"prompt": "a cat", "guidance": 0, "n": 1}, defaults=defaults).request
    assert (found.steps, found.guidance, found.n) == (5, 0.0, 1)


def test_the_target_of_an_edit_is_that_of_its_line_not_of_the_defaults(tmp_path):
    for name in ("photo.png", "e.safetensors"):
        (tmp_path / name).touch()
    edit, file = {"mode": "edit", "image": str(tmp_path / "photo.png")}, str(tmp_path / "e.safetensors")
    for defaults in ({"embedding": file}, {"prompt": "a dog", "from_prompt": "a cat"}):
        for own in ({"prompt": "a fox"}, {"embedding": file}):
            request = task(edit | own, defaults=defaults).request
            assert (request.prompt, request.embedding) == (own.get("prompt", ""), own.get("embedding"))
    with_file = {"defaults": {"embedding": file}}
    assert task(edit, **with_file).request.embedding == file
    assert task({"prompt": "a fox"}, **with_file).request.embedding == file  # elsewhere both guide


def test_each_image_chooses_by_its_own_seed():
    line = task({"prompt": "a {red|blue|green} cat", "seed": 1, "n": 20})
    jobs = list(line.jobs())
    assert line.count == len(jobs) == 20
    assert {job.request.prompt for job in jobs} == {f"a {colour} cat" for colour in ("red", "blue", "green")}
    [alone] = task({"prompt": "a {red|blue|green} cat", "seed": 8}).jobs()
    assert alone.request == jobs[7].request


def test_all_combinations_have_the_same_seeds():
    line = task({"prompt": "{red|blue} cat", "seed": 1, "n": 2}, all_combinations=True)
    assert line.count == 4
    assert [(job.request.prompt, job.request.seed, job.image) for job in line.jobs()] == [
        ("red cat", 1, 0), ("red cat", 2, 1), ("blue cat", 1, 2), ("blue cat", 2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("seeds", ["3,1,2", "3,1..2", [3, 1, 2]])
def test_a_line_may_list_its_seeds(seeds):
    line = task({"prompt": "{red|blue|green} cat", "seed": seeds}, defaults={"n": 4, "best_of": 8})
    jobs = list(line.jobs())
    assert line.count == 3 and [job.request.seed for job in jobs] == [3, 1, 2]
    assert len({job.key for job in jobs}) == 3
    for job in jobs:  # each as if it were alone
        [alone] = task({"prompt": "{red|blue|green} cat", "seed": job.request.seed}).jobs()
        assert alone.request == job.request
    both = task({"prompt": "{red|blue} cat", "seed": seeds}, all_combinations=True)
    assert both.count == len(list(both.jobs())) == 6


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seed": "1,2", "n": 5}, "n is 5, but 2 seeds are listed"),
        ({"seed": "1..x"}, "such as 1,2,3 or 1..8"),
        ({"seed": "1..2", "best_of": 3}, "best_of takes its candidates from one seed on"),
        ({"seed": f"0..{2**62}"}, "at most 100,000"),
    ],
)
def test_a_bad_list_of_seeds_is_a_bad_line(fields, says):
    line = task({"prompt": "a cat", **fields})
    assert (
        isinstance(line, BadLine)
        and says in line.problem
        and line.field == next(name for name in ("best_of", "n", "seed") if line.problem.startswith(name))
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "a cat -- --seed 1..3\n"),
        ("p.csv", 'prompt,seed\na cat,"1,2,3"\n'),
        ("p.tsv", "prompt\tseed\na cat\t1..3\n"),
        ("p.jsonl", '{"prompt": "a cat", "seed": [1, 2, 3]}\n'),
        ("q.jsonl", '{"prompt": "a cat", "seed": "1..3"}\n'),
    ],
)
def test_seeds_are_listed_in_each_format(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with prompt_file(str(tmp_path / name)) as prompts:
        [line] = check_rows(prompts.rows(), Settings(**PLAIN))
        assert isinstance(line, Task) and [job.request.seed for job in line.jobs()] == [1, 2, 3]


def test_escaped_braces_are_text():
    [job] = task({"prompt": r"a \{b\} c"}).jobs()
    assert job.request.prompt == "a {b} c"
    [job] = task({"prompt": "a {b} \\{"}, wildcards=False).jobs()
    assert job.request.prompt == "a {b} \\{"


@pytest.mark.parametrize(
    ("fields", "settings", "field", "says"),
    [
        ({}, {}, "prompt", "prompt is empty"),
        ({"prompt": " "}, {}, "prompt", "empty"),
        ({"prompt": "a {cat"}, {}, "prompt", "never closed"),
        ({"prompt": "{|a}{|b}"}, {"all_combinations": True}, "prompt", "empty"),
        ({"prompt": "{a|b|c}" * 20}, {"all_combinations": True}, "prompt", "more than 100,000 combinations"),
        ({"prompt": "{a|b}" * 15_000}, {"all_combinations": True}, "prompt", "more than 100,000 combinations"),
        (
            {"prompt": "{a|b}" * 16, "n": 100_000},
            {"all_combinations": True},
            "prompt",
            "65,536 combinations of 100,000 images; a line may have 100,000 in all",
        ),
        ({"prompt": "{|a}", "n": 100_000}, {}, "prompt", "empty for some of its choices"),
        ({"prompt": "b.gif"}, {}, "prompt", "ends like the name of an image file"),
        ({"prompt": "photo.{png|gif}"}, {}, "prompt", "ends like the name of an image file"),
        ({"prompt": __file__}, {}, "prompt", "is the name of a file"),
        ({"prompt": "a cat", "negative_prompt": __file__}, {}, "negative_prompt", "is the name of a file"),
        (
            {"mode": "interpolate", "sources": f"a|{__file__}", "n": 1000, "frames": 1000},
            {},
            "sources",
            "is the name of a file",
        ),
        ({"mode": "interpolate", "sources": "a|b", "n": 1000, "frames": 1000}, {}, "n", "1,000,000 images; a line may"),
        ({"prompt": "a", "seed": "x"}, {}, "seed", "not 'x'"),
        ({"prompt": "a", "guidence": 3}, {}, "guidence", "did you mean 'guidance'"),
        ({"prompt": "a", "size": 32}, {"sizes": ((64, 64),)}, "size", "choose from 64x64"),
        ({"prompt": "a"}, {"name": NameTemplate.parse("{pk}")}, None, "no column 'pk'"),
    ],
)
def test_a_bad_line_names_its_field(fields, settings, field, says):
    bad = task(fields, **settings)
    assert isinstance(bad, BadLine)
    assert bad.field == field and says in bad.problem and bad.line == 1


def test_paths_are_relative_to_the_prompt_file(tmp_path, monkeypatch):
    (tmp_path / "photo.png").touch()
    there = str(tmp_path / "photo.png")
    for fields, name, expected in [
        ({"mode": "vary", "image": "photo.png"}, "image", there),
        ({"mode": "interpolate", "sources": "photo.png | a cat"}, "sources", (there, "a cat")),
        ({"mode": "interpolate", "sources": ["a cat", "photo.png"]}, "sources", ("a cat", there)),
    ]:
        [job] = task({**fields, "seed": 1}, folder=tmp_path).jobs()
        assert getattr(job.request, name) == expected
        with monkeypatch.context() as moved:
            moved.chdir(tmp_path)
            [here] = task({**fields, "seed": 1}).jobs()
        assert getattr(here.request, name) != expected and here.key == job.key
        gone = {key: "none.png|a" if key == "sources" else "none.png" for key in fields if key != "mode"}
        bad = task({**fields, **gone}, folder=tmp_path)
        assert bad.problem == f"{name} 'none.png' is not a file; paths are relative to the prompt file"
    defaults = {"mode": "vary", "image": "photo.png"}
    [from_options] = task({"prompt": "a cat"}, folder=Path("elsewhere"), defaults=defaults).jobs()
    assert from_options.request.image == "photo.png"  # of the command line: from the working folder


def test_a_sequence_is_a_line_of_many_images_with_one_seed():
    line = task({"mode": "interpolate", "sources": "a cat|a dog", "frames": 3, "seed": 4, "n": 2})
    jobs = list(line.jobs())
    assert line.count == len(jobs) == 6 == len({job.key for job in jobs})
    assert [(job.request.seed, job.request.fraction) for job in jobs] == [
        (s, k) for s in (4, 5) for k in (0.0, 0.5, 1.0)
    ]


def test_a_default_does_not_apply_to_modes_without_its_field():
    defaults = {"prior_steps": 5, "steps": 6}
    assert task({"prompt": "a cat"}, defaults=defaults).request.prior_steps == 5
    found = task({"mode": "vary", "image": __file__}, defaults=defaults).request
    assert (found.prior_steps, found.steps) == (None, 6)
    assert task({"mode": "vary", "image": __file__, "prior_steps": 3}).field == "prior_steps"


def test_memory_does_not_grow_with_the_file(tmp_path):
    lines = 1500
    (tmp_path / "p.txt").write_text("a {red|blue} cat -- --steps 5\na dog\n" * (lines // 2))

    def peak(keep: bool) -> int:
        tracemalloc.start()
        with prompt_file(str(tmp_path / "p.txt")) as file:
            found = check_rows(file.rows(), Settings(**PLAIN))
            assert sum(line.count for line in (list(found) if keep else found)) == lines
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(keep=False) < 800_000 < 1_200_000 < peak(keep=True)  # bytes


def test_shards_split_a_file():
    rows = [Row(i + 1, i, {"prompt": "a cat"}) if i != 4 else BadLine(i + 1, i, "no") for i in range(11)]
    seen = []
    for i in (1, 2, 3):
        for found in check_rows(rows, Settings(**PLAIN, shard=(i, 3))):
            seen.append(found.index if isinstance(found, BadLine) else found.row.index)
    assert sorted(seen) == list(range(11)) and seen[:4] == [0, 3, 6, 9]


def test_keys_differ_between_images():
    one = Request(prompt="a cat", seed=1)
    keys = {
        job_key(0, 0, one, {}),
        job_key(1, 0, one, {}),
        job_key(0, 1, one, {}),
        job_key(0, 0, Request(prompt="a cat", seed=2), {}),
    }
    assert len(keys) == 4 and job_key(0, 0, Request(prompt="a cat", seed=1), {}) in keys


@pytest.mark.parametrize(
    ("index", "fields", "keys"),
    [
        (0, {"prompt": "a cat"}, ["768f515f8e9d53fb"]),
        (
            1,
            {"prompt": "a cat", "negative": "a dog", "seed": 3, "size": "64x64", "guidance": 2.5},
            ["5290ad2c8e33e595"],
        ),
        (
            2,
            {"mode": "inpaint", "prompt": "a hat", "image": "photo.png", "mask": "mask.png", "harmonize": 3, "seed": 1}
            | {"keep_style": 0.5},
            ["dc593f9484e51857"],
        ),
        (
            3,
            {"mode": "interpolate", "sources": "photo.png | a cat", "share": 0.25, "seed": 4},
            ["86a93550301cb4d9"],
        ),
        (
            4,
            {"mode": "interpolate", "sources": ["a cat", "photo.png"], "frames": 3, "seed": 4},
            ["fa42f159e34601f3", "a35d6d8fd504e4c1", "d14281645da52b3e"],
        ),
        (
            5,
            {"prompt": "a red cat", "best_of": 5, "n": 3, "seed": 1},
            ["5db500a75b40b1d4", "aa2b94e88e86f963", "659fe30794e605d8"],
        ),
        (6, {"prompt": "a {red|blue} cat", "seed": 8, "id": "x"}, ["f030febaefc05390"]),
        (
            7,
            {"mode": "edit", "image": "photo.png", "embedding": "e.safetensors", "theta": 0.5, "seed": 2},
            ["03ff5607c475db74"],
        ),
    ],
)
def test_keys_are_those_of_earlier_versions(tmp_path, index, fields, keys):
    """Folders are resumed by their keys. These were computed before fields were renamed and `rank` was removed."""
    for name in ("photo.png", "mask.png", "e.safetensors"):
        (tmp_path / name).touch()
    line = check_row(Row(index + 1, index, rename_old_fields(fields)), Settings(**PLAIN, folder=tmp_path))
    assert isinstance(line, Task)
    assert [f"{job.key:016x}" for job in line.jobs()] == keys


@pytest.mark.parametrize("mode", [["generate"], {}, 3])
def test_a_mode_that_is_not_text_is_one_bad_line(mode):
    bad = task({"prompt": "a cat", "mode": mode}, defaults={"steps": 5})
    assert isinstance(bad, BadLine) and bad.field == "mode"


def test_defaults_may_have_old_names():
    defaults = {"negative": "a dog", "harmonize": 3}
    assert task({"prompt": "a cat"}, defaults=defaults).request.negative_prompt == "a dog"
    assert task({"prompt": "a cat", "negative_prompt": "a fox"}, defaults=defaults).request.negative_prompt == "a fox"


def test_a_line_of_many_images_is_checked_without_a_look_at_each():
    start = time.process_time()
    for prompt in ("{a|b}" * 16, "{" + "a|" * 100_000 + "b}", "a {small |}cat"):
        assert task({"prompt": prompt, "n": 100_000}).count == 100_000
    assert task({"prompt": "{a|b}" * 16}, all_combinations=True).count == 65_536
    assert task({"prompt": "{| }", "mode": "vary", "image": __file__}).count == 1  # needs no prompt
    assert time.process_time() - start < 5


def test_texts_that_are_names_of_files_beside_the_prompt_file(tmp_path):
    (tmp_path / "notes").touch()
    assert task({"prompt": "notes"}, folder=tmp_path).problem.startswith("prompt 'notes' is the name of a file")
    assert isinstance(task({"prompt": "notes"}), Task)


def test_a_later_choice_that_is_no_prompt_does_not_end_the_line():
    """Only the first image is checked before the run; a Request refuses the other when its turn comes."""
    line = task({"prompt": "{a cat|b.gif}", "n": 20, "seed": 4})
    assert isinstance(line, Task)
    assert {job.request.prompt for job in line.jobs()} == {"a cat", "b.gif"}
    with pytest.raises(RequestError, match="ends like"):
        [job.request.replace() for job in line.jobs()]
