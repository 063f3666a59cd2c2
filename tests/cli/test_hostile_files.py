"""Files that others wrote or damaged end in one line: folders of batches, settings, recipes, embeddings, records."""

import json
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.batch.fake_pipeline import FakePipeline
from tests.hostile import DEEP, TOKENS, hostile_json
from unclip.cli.main import main
from unclip.errors import InputError
from unclip.images import metadata
from unclip.images.result import Result, record
from unclip.requests.request import Request
from unclip.training.recipe import load_recipe

QUICK = settings(
    derandomize=True, max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ENTRY = {"file": "a-cat-1.png", "id": None, "line": 1, "index": 0, "image": 0, "seed": 1}
ENTRY |= {"request": {"prompt": "a cat", "seed": 1}, "model": "fake", "timings": {"prior": 0.5}, "columns": {}}
ENTRY |= {"source": "p.txt", "content": "0" * 16, "key": "0" * 16, "bytes": 5, "sha256": "0" * 64, "pixels": "0" * 64}
RUN = {"seed": 1, "revision": "0" * 16, "sizes": None, "version": "0.1.0", "model": "fake", "--format": "png"}


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(*arguments) -> (exit code, output, errors), with a stand-in for the pipeline and its model "m"."""
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    Path("m/model_index.json").write_text('{"name": "fake"}')
    Path("p.txt").write_text("a cat\na dog\n")
    fake = FakePipeline()
    fake.generate = lambda request, progress: fake.generate_batch([fake.resolve(request)])
    pipeline = SimpleNamespace(from_pretrained=lambda *_, **__: fake)
    monkeypatch.setitem(sys.modules, "unclip.pipeline", SimpleNamespace(Unclip=pipeline))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert all(line.startswith("unclip: ") and len(line) < 700 for line in err.splitlines()), err
        assert "\x1b" not in err
        return code, out, err

    return run


@QUICK
@given(hostile_json(ENTRY))
@example(json.dumps(ENTRY | {"key": ["a"]}))
@example(json.dumps(ENTRY | {"file": "../out/a-cat-1.png"}))
def test_a_manifest(call, line):
    for name in ("manifest.jsonl", "errors.jsonl"):
        Path("out").mkdir(exist_ok=True)
        Path("out", name).write_text(f"{line}\n", encoding="utf-8")
    assert call("batch", "p.txt", "--model", "m", "--dry-run", "--json")[0] == 0
    assert call("batch", "p.txt", "--model", "m", "--grid")[0] == 0
    kept = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert len(kept) == 2 and all((Path("out") / entry["file"]).is_file() for entry in kept)
    for path in Path("out").glob("*.png"):
        path.unlink()


@QUICK
@given(st.sampled_from(["run.json", "grid.json", "owner.json"]), st.data())
def test_the_record_of_a_run(call, name, data):
    good = {"run.json": RUN, "grid.json": {"file": "grid.png", "bytes": 5}}
    good |= {"owner.json": {"pid": 1, "host": "h", "since": "now"}}
    text = data.draw(hostile_json(good[name]))
    for file, fields in good.items():
        Path("out/.unclip").mkdir(exist_ok=True, parents=True)
        Path("out/.unclip", file).write_text(text if file == name else json.dumps(fields))
    code, _, err = call("batch", "p.txt", "--model", "m", "--grid", "--quiet")
    assert code in (0, 2) and err.count("\n") <= 1 and (code == 0 or "run.json" in err or "holds images by" in err)
    assert Path("p.txt").read_text() == "a cat\na dog\n"
    Path("out/.unclip/run.json").unlink()


def test_no_file_of_a_folder_is_taken_for_its_grid(call):
    call("batch", "p.txt", "--model", "m")
    manifest = Path("out/manifest.jsonl").read_bytes()
    Path("out/.unclip/grid.json").write_text(json.dumps({"file": "manifest.jsonl", "bytes": len(manifest)}))
    assert call("batch", "p.txt", "--model", "m", "--grid")[0] == 0
    assert Path("out/manifest.jsonl").read_bytes() == manifest and Path("out/grid.png").is_file()


TOML = ["inf", "nan", "9" * 5000, "9" * 30, '"' + "x" * 5000 + '"', '"\\u0000"', '"\\u001b[2J"', "{a = 1}", "[[[]]]"]
TOML += ["true", "[" * 3000, "[" * 300 + "]" * 300, "{a=" * 300 + "1" + "}" * 300, "1979-05-27", "''", "-1"]
SETTINGS = ["steps", "guidance", "out", "json", "set", "model", "n", "[batch]\nn", "[generate]\nsize", "x"]


@QUICK
@given(st.sampled_from(SETTINGS), st.sampled_from(TOML))
def test_settings(call, name, value):
    Path("unclip.toml").write_text(f"{name} = {value}\n")
    for arguments in (["config"], ["batch", "p.txt", "--dry-run", "--model", "m"]):
        code, _, err = call(*arguments)
        names_source = "unclip.toml" in err or name == "out"  # a folder with such a name is refused by the system
        assert code in (0, 2) and (code == 0 or err.count("\n") == 1 and names_source)


@QUICK
@given(st.data())
def test_a_recipe(tmp_path, data):
    lines = (Path(__file__).parents[2] / "unclip/training/recipes/stickers-cpu.toml").read_text().splitlines()
    at = data.draw(st.sampled_from([i for i, line in enumerate(lines) if " = " in line]))
    lines[at] = f"{lines[at].split(' = ')[0]} = {data.draw(st.sampled_from(TOML))}"
    (tmp_path / "r.toml").write_text("\n".join(lines))
    try:
        load_recipe(tmp_path / "r.toml")
    except InputError as error:
        assert len(str(error)) < 700 and "\n" not in str(error) and "\x1b" not in str(error)


REQUEST = Request(prompt="a cat", seed=1, steps=3, guidance=1.0, size=8)


@pytest.fixture(scope="module")
def image() -> bytes:
    from PIL import Image

    return metadata.image_bytes(
        Image.new("RGB", (8, 8)), {"version": "1", "model": "m", "seed": 1, "request": {"prompt": ""}}
    )


@QUICK
@given(st.data())
def test_a_record(call, image, data):
    from PIL import Image

    good = record(Result(image=Image.new("RGB", (8, 8)), request=REQUEST, seed=1, model="stickers", dtype="float32"))
    body = b"unclip\0" + data.draw(hostile_json(good)).encode()
    chunk = struct.pack(">I", len(body)) + b"tEXt" + body + struct.pack(">I", zlib.crc32(b"tEXt" + body))
    Path("x.png").write_bytes(image[:33] + chunk + image[33:])
    for arguments in (["show", "x.png", "--json"], ["show", "x.png"]):
        code, out, err = call(*arguments)
        assert code == 0 and json.loads(out) or code == 2 and err.count("\n") == 1
    code, _, err = call("reproduce", "x.png", "--model", "m", "--quiet")
    assert code in (0, 1, 2) and err.count("\n") <= 1


@QUICK
@given(st.sampled_from(["image_embed", "probe", "__metadata__"]), st.data())
def test_the_header_of_an_embedding(tiny, tmp_path, part, data):
    vector = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    good = {"image_embed": vector, "probe": {**vector, "data_offsets": [64, 128]}, "__metadata__": {"clip": "x"}}
    changed = {**good, part: "@"}
    text = json.dumps(changed).replace('"@"', data.draw(hostile_json(good[part])))
    header = text.encode()
    file = tmp_path / "e.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(128))
    with pytest.raises(InputError) as caught:  # zeros are no probe of any CLIP
        tiny.generate("", embedding=str(file))
    assert len(str(caught.value)) < 700 and str(caught.value).isprintable()


def test_the_tokens_are_hostile():
    from unclip.system.json_values import parse_json

    assert DEEP in TOKENS
    for text in (DEEP, '{"a":' * 900 + "1" + "}" * 900, "[1e999]", "NaN", "9" * 5000, b"\xff", "[", ""):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json("[" * 90 + "]" * 90) is not None and parse_json("[1e999]", finite=False) == [float("inf")]
