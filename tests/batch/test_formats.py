import csv
import gzip
import io
import json
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unclip.batch.lines import MAX_LINE
from unclip.batch.prompt_file import prompt_file
from unclip.batch.row import BadLine, Row
from unclip.errors import InputError

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
prompts = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1), max_size=5)
prompts = prompts.map(lambda texts: [text for text in texts if text.strip()])


def read(path, data: bytes, format: str | None = None) -> list[Row | BadLine]:
    path.write_bytes(data)
    with prompt_file(str(path), format) as file:
        return list(file.rows())


def prompts_of(rows) -> list[str]:
    rows = list(rows)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.fields["prompt"] for row in rows]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"prompt": "a cat", "seed": 3, "size": "64x64", "guidance": 2.5}\n\n{"prompt": "ein Bär"}\n'),
        ("p.csv", 'Prompt,SEED,size,Guidance\n"a cat",3,64x64,2.5\n\nein Bär,,,\n'),
        ("p.tsv", "PROMPT\tSeed\tSize\tguidance\na cat\t3\t64x64\t2.5\nein Bär\n"),
        ("p.txt", "# comment\na cat -- --seed 3 --size 64x64 --guidance 2.5\n\n  ein Bär\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_format(tmp_path, name, text, bom, end, pack):
    name = f"{name}.gz" if pack is gzip.compress else name
    first, second = read(tmp_path / name, pack(bom + text.replace("\n", end).encode()))
    assert first.fields == {"prompt": "a cat", "seed": 3, "size": "64x64", "guidance": 2.5}
    assert (second.fields, second.index) == ({"prompt": "ein Bär"}, 1)
    assert second.line == {"jsonl": 3, "csv": 4, "tsv": 3, "txt": 4}[name.split(".")[1]]


def test_a_public_prompt_set_works_as_it_is(tmp_path):
    table = 'Prompt\tCategory\tChallenge\tNote\nthe words "Fly, high" on a wall\tArts\tBasic\t\n"say ""hi"""\tA\tB\tC\n'
    rows = read(tmp_path / "p.tsv", table.encode())
    assert prompts_of(rows) == ['the words "Fly, high" on a wall', 'say "hi"']
    assert rows[0].columns == {"Category": "Arts", "Challenge": "Basic", "Note": ""}
    with prompt_file(str(tmp_path / "p.tsv")) as file:
        assert file.header_notes() == ["columns carried into the manifest: Category, Challenge, Note"]
    read(tmp_path / "q.csv", b"prompt,guidence\na cat,3\n")
    with prompt_file(str(tmp_path / "q.csv")) as file:
        assert "did you mean 'guidance'" in file.header_notes()[1]


def test_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"Prompt": ["a cat", "a dog"], "seed": [3.0, float("nan")], "id": [1, None], "When": [None, float("nan")]}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    with prompt_file(str(tmp_path / "p.parquet")) as file:
        assert [row.fields for row in file.rows()] == [{"prompt": "a cat", "seed": 3, "id": "1"}, {"prompt": "a dog"}]
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    with prompt_file(str(tmp_path / "p.parquet")) as file, pytest.raises(InputError, match="as Parquet"):
        list(file.rows())


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            "a cat -- -n 2 --prior-steps 4 --negative-prompt 'a dog'",
            {"n": 2, "prior_steps": 4, "negative_prompt": "a dog"},
        ),
        ("a cat -- --guidance 0", {"guidance": 0.0}),
        (r"\# 1 cat", {"prompt": "# 1 cat"}),
        (r"a cat \-- asleep -- --seed 1", {"prompt": "a cat -- asleep", "seed": 1}),
        ("a cat--dog", {"prompt": "a cat--dog"}),
    ],
)
def test_options_after_a_prompt(tmp_path, line, fields):
    [row] = read(tmp_path / "p.txt", line.encode())
    assert row.fields == {"prompt": "a cat", **fields}


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("p.jsonl", b'{"prompt": "a cat"', "not JSON"),
        ("p.jsonl", b'"a cat"', "not a JSON object"),
        ("p.jsonl", b'{"prompt": "a", "prompt": "b"}', "prompt is given twice"),
        ("p.jsonl", b"[" * 100_000, "nested too deeply"),
        ("p.jsonl", b'{"seed": ' + b"1" * 5000 + b"}", "a number is too long"),
        ("p.jsonl", b"x" * (MAX_LINE + 5), "longer than"),
        ("p.txt", b"x" * (2 * MAX_LINE + 5), "longer than"),
        ("p.txt", b"a cat -- asleep", r"write \\-- for a lone --"),
        ("p.txt", b"a cat -- --sede 3", "options: unrecognized arguments"),
        ("p.txt", b"a cat -- --seed", "options: argument --seed"),
        ("p.txt", b"a cat -- --negative-prompt 'dog", "close every quotation mark"),
        ("p.csv", b"a,1,2", "3 cells for 2 columns"),
        ("p.csv", b"x" * (MAX_LINE + 5), "longer than"),
        ("p.csv", b'"' + b"x" * 200_000 + b'",3', "quotation mark"),
        ("p.tsv", b"a\t1\t2", "3 cells for 2 columns"),
    ],
)
def test_a_bad_line_is_one_line_and_the_next_is_read(tmp_path, name, line, says):
    head = {"p.csv": b"prompt,seed\n", "p.tsv": b"prompt\tseed\n"}.get(name, b"")
    good = b'{"prompt": "a dog"}' if name == "p.jsonl" else b"a dog"
    before, bad, after = read(tmp_path / name, head + b"\n".join([good, line, good]))
    assert isinstance(bad, BadLine) and says.replace("\\\\", "\\") in bad.problem and "\n" not in bad.problem
    assert (bad.index, bad.line) == (1, 2 + bool(head))
    assert before.fields == after.fields == {"prompt": "a dog"} and after.index == 2


def test_invalid_utf8_makes_only_its_own_line_bad(tmp_path):
    from unclip.batch.file_names import NameTemplate
    from unclip.batch.jobs import Settings, check_row

    rows = read(tmp_path / "p.txt", b"a \xff cat\na dog")
    bad = check_row(rows[0], Settings(seed=0, name=NameTemplate.parse("{seed}")))
    assert bad.field == "prompt" and "UTF-8" in bad.problem
    assert rows[1].fields == {"prompt": "a dog"}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("p.csv", b"text,seed\na,1", "no column 'prompt'"),
        ("p.csv", b"prompt;seed\na;1", "separate the columns with commas"),
        ("p.csv", b"Prompt,prompt\na,b", "two columns"),
        ("p.txt", "a cat".encode("utf-16"), "UTF-16"),
        ("p.txt.gz", gzip.compress(b"a cat\n" * 1000, mtime=0)[:-20], "to its end"),
        ("p.txt", b"\x1f\x8bnonsense", "to its end"),
        ("p.doc", b"", "--input-format"),
    ],
)
def test_damage_to_the_whole_file_is_an_input_error(tmp_path, name, data, says):
    with pytest.raises(InputError, match=says):
        read(tmp_path / name, data)


def test_standard_input_can_be_read_twice(monkeypatch):
    for data, format, found in [
        (b'{"prompt": "a cat"}', None, "a cat"),
        (b"{red|blue} cat", None, "{red|blue} cat"),
        (gzip.compress(b"a cat\n", mtime=0), None, "a cat"),
        (b"prompt\na cat", "csv", "a cat"),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with prompt_file("-", format) as file:
            assert prompts_of(file.rows()) == prompts_of(file.rows()) == [found]


@QUICK
@given(prompts)
def test_jsonl_round_trip(tmp_path, texts):
    data = "".join(json.dumps({"prompt": text}, ensure_ascii=False) + "\n" for text in texts)
    assert prompts_of(read(tmp_path / "p.jsonl", data.encode())) == texts


@QUICK
@given(prompts)
def test_csv_round_trip(tmp_path, texts):
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([["prompt", "x"], *([text, "1"] for text in texts)])
    assert prompts_of(read(tmp_path / "p.csv", table.getvalue().encode())) == texts


def test_no_bytes_break_a_reader(tmp_path, capsys):
    tried = 0
    line = st.one_of(st.binary(max_size=60), st.text('{}[]":,\t -\\#"1aprompt\n', max_size=60).map(str.encode))

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.sampled_from(["jsonl", "csv", "tsv", "txt"]), st.sampled_from([b"", b"prompt,seed\n", b"prompt\n"]), line)
    def fuzz(format, head, data):
        nonlocal tried
        tried += 1
        try:
            rows = read(tmp_path / "fuzz", head + data, format)
        except InputError as error:
            assert "\n" not in str(error)
            return
        assert [row.index for row in rows] == list(range(len(rows)))
        assert all(isinstance(row, Row) or "\n" not in row.problem for row in rows)

    fuzz()
    with capsys.disabled():
        print(f" [readers: {tried} inputs tried]", end="")
    assert tried >= 300


@pytest.mark.parametrize("text", ['"a cat,1\na dog,2\n', '"a cat,1\n"a dog",2\na fox,3\n'])
def test_an_unclosed_quotation_mark_is_reported(tmp_path, text):
    rows = read(tmp_path / "p.csv", f"prompt,seed\na hen,4\n{text}".encode())
    assert rows[0].fields == {"prompt": "a hen", "seed": 4}
    assert isinstance(rows[1], BadLine) and "close every quotation mark" in rows[1].problem


def test_options_without_a_prompt_and_after_a_tab(tmp_path):
    vary, cat, dog = read(tmp_path / "p.txt", b"-- --mode vary --image p.png\na cat\t--\t--seed 7\na dog --\n")
    assert vary.fields == {"mode": "vary", "image": "p.png"}
    assert cat.fields == {"prompt": "a cat", "seed": 7} and dog.fields == {"prompt": "a dog"}


def test_unnamed_columns_of_a_spreadsheet_are_not_duplicates(tmp_path):
    [row] = read(tmp_path / "p.csv", b"prompt,,seed,\na cat,,3,\n")
    assert row.fields == {"prompt": "a cat", "seed": 3} and set(row.columns.values()) == {""}


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b"seed,prompt\n1,a cat\n", "csv"),
        (b"Prompt\tseed\na cat\t1\n", "tsv"),
        (b"prompt, a cat\n", "csv"),
        (b"a cat, a dog\n", "txt"),
    ],
)
def test_the_first_line_determines_the_format_of_standard_input(monkeypatch, data, format):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with prompt_file("-") as file:
        assert file.format == format


def test_closed_standard_input_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="^standard input is closed; give a prompt file$"), prompt_file("-"):
        pass


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.jsonl", '{"prompt": "a cat", "negative": "a dog", "harmonize": 3, "share": 0.5}\n{"prompt": "a"}'),
        ("p.csv", "prompt,Negative,HARMONIZE,share\na cat,a dog,3,0.5\na,,,\n"),
        ("p.tsv", "prompt\tnegative\tharmonize\tshare\na cat\ta dog\t3\t0.5\na\n"),
        ("p.txt", "a cat -- --negative 'a dog' --harmonize 3 --share 0.5\na"),
    ],
)
def test_old_names_of_fields_are_read(tmp_path, name, data):
    first, second = read(tmp_path / name, data.encode())
    assert first.fields == {"prompt": "a cat", "negative_prompt": "a dog", "resample": 3, "fraction": 0.5}
    assert second.fields == {"prompt": "a"} and first.columns == second.columns == {}


@pytest.mark.parametrize(
    ("name", "head", "line"),
    [
        ("p.jsonl", "", '{"prompt": "b", "negative": "x", "negative_prompt": "y"}'),
        ("p.csv", "prompt,negative,negative_prompt\n", "b,x,y"),
        ("p.tsv", "prompt\tnegative\tnegative_prompt\n", "b\tx\ty"),
        ("p.txt", "", "b -- --negative x --negative-prompt y"),
    ],
)
def test_a_line_that_gives_a_field_by_both_names_is_one_bad_line(tmp_path, name, head, line):
    good = '{"prompt": "a cat"}' if name == "p.jsonl" else "a cat"
    before, bad, after = read(tmp_path / name, f"{head}{good}\n{line}\n{good}\n".encode())
    assert isinstance(bad, BadLine) and (bad.field, bad.index) == ("negative", 1)
    assert bad.problem.startswith("negative is the old name of negative_prompt, and both are given")
    assert before.fields == after.fields == {"prompt": "a cat"}


def test_old_names_of_fields_in_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"prompt": ["a", "b"], "Negative": ["x", "x"], "negative_prompt": [None, "y"], "harmonize": [3.0, None]}
    pq.write_table(pa.table({**table, "share": [0.5, 0.25]}), tmp_path / "p.parquet")
    with prompt_file(str(tmp_path / "p.parquet")) as file:
        first, bad = file.rows()
    assert first.fields == {"prompt": "a", "negative_prompt": "x", "resample": 3, "fraction": 0.5}
    assert isinstance(bad, BadLine) and bad.field == "negative" and bad.index == 1


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("p.txt", ["a cat", "two owls -- --seed 3", "", "# no", "a dog"]),
        ("p.csv", ["prompt,seed", "a cat,", "two owls,3", "", "", '"a dog",']),
        ("p.tsv", ["prompt\tseed", "a cat", "two owls\t3", "", "", "a dog"]),
        ("p.jsonl", ['{"prompt": "a cat"}', '{"prompt": "two owls", "seed": 3}', "", "", '{"prompt": "a dog"}']),
    ],
)
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_every_line_end_is_read(tmp_path, name, lines, end, closed, bom):
    rows = read(tmp_path / name, (bom + end.join(lines) + (end if closed else "")).encode())
    first = 1 if name in ("p.txt", "p.jsonl") else 2
    expected = [{"prompt": "a cat"}, {"prompt": "two owls", "seed": 3}, {"prompt": "a dog"}]
    assert [row.fields for row in rows] == expected
    assert [row.line for row in rows] == [first, first + 1, first + 4] and [row.index for row in rows] == [0, 1, 2]


def test_mixed_line_ends_and_line_ends_in_cells(tmp_path):
    assert prompts_of(read(tmp_path / "p.txt", b"a\rb\nc\r\nd\n\re")) == ["a", "b", "c", "d", "e"]
    rows = read(tmp_path / "p.csv", b'prompt,seed\r"a\rcat",1\r"a\ndog",2\r')
    assert [row.fields for row in rows] == [{"prompt": "a\ncat", "seed": 1}, {"prompt": "a\ndog", "seed": 2}]
    bad, good = read(tmp_path / "p.txt", b"x" * (MAX_LINE + 5) + b"\ra cat")  # a line that is too long ends at a CR
    assert "longer than" in bad.problem and good.fields == {"prompt": "a cat"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('--prompt "two owls" --seed 7 --steps 3', "--prompt is an option without ' -- ' before it"),
        ('"a unicorn" -n4 -S1234', "-n4 is an option"),
        ("a cat --seed 7 -n 2", "--seed is an option"),
        ("a cat --seed=7", "--seed=7 is an option"),
        ("a dog -s 20 -S 42", "-s 20 is an option"),
        ("a cat --ar 16:9", "--ar is an option"),
        ("a cat --seed 7 -- -n 2", "--seed is an option"),
        ("// a comment", "comments begin with #"),
        ("a cat -- --ar 16:9", "unrecognized arguments: --ar; use size"),
        ("a cat -- --seed 7 dog", "'dog'; quote a value of several words"),
        ("a cat -- --seed 7 --seed 8", "seed is given twice"),
        ("a cat -- --seed --steps 3", "argument --seed has no value"),
        ("a cat -- --cfg-scale 3 --guidance 3", "cfg_scale is another name of guidance"),
        ("a cat -- --width 64", "width is only one side"),
    ],
)
def test_lines_with_mistaken_options_are_bad(tmp_path, line, says):
    bad, good = read(tmp_path / "p.txt", f"{line}\na dog".encode())
    assert isinstance(bad, BadLine) and says in bad.problem and good.fields == {"prompt": "a dog"}


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (r"a cat \--seed 7", {"prompt": "a cat --seed 7"}),
        (r"a dog \-n4", {"prompt": "a dog -n4"}),
        (r"\// a cat", {"prompt": "// a cat"}),
        ("a well--known cat - and a t-shirt, -5 degrees", {"prompt": "a well--known cat - and a t-shirt, -5 degrees"}),
        ("rock -n- roll", {"prompt": "rock -n- roll"}),
        (r"a C:\\temp \ cat", {"prompt": r"a C:\\temp \ cat"}),
        ("a cat -- -n4 --seed=7 --negative-prompt='a \"b\" c'", {"n": 4, "seed": 7, "negative_prompt": 'a "b" c'}),
        ('a cat -- --negative-prompt "a \\"b\\" c"', {"negative_prompt": 'a "b" c'}),
        ("a cat -- --negative-prompt a\\ dog --guidance -1", {"negative_prompt": "a dog", "guidance": -1.0}),
        ("a cat -- --cfg-scale 7 --width 64 --height 32 --sampler_name DDIM", None),
        ("a cat -- --cfg-scale 7 --width 64 --height 32", {"guidance": 7.0, "size": (64, 32)}),
    ],
)
def test_options_and_what_only_looks_like_them(tmp_path, line, fields):
    [row] = read(tmp_path / "p.txt", line.encode())
    if fields is None:
        assert isinstance(row, BadLine) and "--sampler_name" in row.problem
    else:
        assert row.fields == {"prompt": "a cat"} | fields


TABLE = [
    "Prompt",
    "Negative prompt",
    "Width",
    "height",
    "CFG Scale",
    "sampler_name",
    "num_inference_steps",
    "Clip skip",
]
CELLS = ["a cat", "a dog", "64", "48", "7.5", "DPM++ 2M", "20", "2"]
MEANT = {"prompt": "a cat", "negative_prompt": "a dog", "size": (64, 48), "guidance": 7.5}
MEANT |= {"sampler": "dpmpp-2m", "steps": 20}


@pytest.mark.parametrize(("name", "mark"), [("p.csv", ","), ("p.tsv", "\t")])
def test_columns_of_other_tools_are_read(tmp_path, name, mark):
    [row, empty] = read(tmp_path / name, f"{mark.join(TABLE)}\n{mark.join(CELLS)}\na cat\n".encode())
    assert row.fields == MEANT and row.columns == {"Clip skip": "2"}
    assert empty.fields == {"prompt": "a cat"}
    with prompt_file(str(tmp_path / name)) as file:
        notes = file.header_notes()
    assert notes[0] == "columns carried into the manifest: Clip skip"
    assert "'cfg_scale' is read as guidance" in notes and "'width' and 'height' are read as size" in notes
    assert "column 'Clip skip' changes nothing; nothing here does the same" in notes and len(notes) == 6


def test_keys_of_other_tools_are_read_in_jsonl_and_parquet(tmp_path):
    values = [*CELLS[:2], 64, 48, 7.5, "DPM++ 2M", 20]
    line = json.dumps(dict(zip(TABLE, values, strict=False)))
    good, bad = read(tmp_path / "p.jsonl", f'{line}\n{{"prompt": "a", "Clip skip": 2}}'.encode())
    assert good.fields == MEANT and "Clip skip" in bad.fields  # Request refuses it
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {name: [value] for name, value in zip(TABLE, [*values, 2], strict=True)}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with prompt_file(str(tmp_path / "p.parquet")) as file:
        [row] = file.rows()
    assert row.fields == MEANT and row.columns == {"Clip skip": 2}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"prompt,steps,num_inference_steps\na cat,3,4\n", "num_inference_steps is another name of steps"),
        (b"prompt,width,height\na cat,64,\n", "width is only one side of the size"),
    ],
)
def test_contradicting_columns_make_a_bad_line(tmp_path, data, says):
    [bad] = read(tmp_path / "p.csv", data)
    assert isinstance(bad, BadLine) and says in bad.problem


def seconds(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("p.txt", "a cat -- " + "--seed 1 " * 100_000),
        ("p.txt", "a cat -- --negative-prompt '" + "x" * 900_000 + "'"),
        ("p.txt", "a cat -- --guidance " + "1" * 900_000 + "x"),
        ("p.txt", "a cat -- " + r"\ " * 300_000),
        ("p.txt", "a cat -- --x " * 70_000),
        ("p.txt", "--- -" * 200_000),
        ("p.txt", "a -b" + " " * 900_000 + "c"),
        ("p.txt", "a cat -- --id '" + "x" * 900_000),
        ("p.jsonl", json.dumps({f"key{i}": 1 for i in range(60_000)})[:-1] + ', "key59999": 2}'),
        ("p.jsonl", '{"prompt": "a cat", "guidance": "' + "1" * 900_000 + '"}'),
        ("p.csv", "prompt\n" + '"' * 900_000),
        ("p.tsv", "prompt\n" + "a\t" * 450_000),
    ],
)
def test_a_line_of_a_megabyte_is_read_in_linear_time(tmp_path, name, line):
    from unclip.batch.file_names import NameTemplate
    from unclip.batch.jobs import Settings, check_rows

    def work():
        rows = read(tmp_path / name, line.encode())
        found = list(check_rows(rows, Settings(seed=0, name=NameTemplate.parse("{seed}"))))
        assert all(len(row.problem) < 1000 for row in found if isinstance(row, BadLine))

    assert seconds(work) < 5  # a quadratic reader takes minutes


def test_a_header_of_many_columns_is_read_in_linear_time(tmp_path):
    header = ",".join(["prompt", *(f"column{i}" for i in range(50_000))])
    (tmp_path / "p.csv").write_text(f"{header}\na cat\n")
    with prompt_file(str(tmp_path / "p.csv")) as file:
        notes: list[str] = []
        assert seconds(lambda: notes.extend(file.header_notes())) < 5
    assert all(len(note) < 1000 for note in notes)
    with pytest.raises(InputError, match="two columns are named 'column0'"):
        read(tmp_path / "p.csv", f"{header},column0\na cat\n".encode())
