"""`unclip generate` with a stand-in for the pipeline, which has its own tests."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from PIL import Image
from safetensors.numpy import save_file

from unclip.cli.main import main
from unclip.cli.progress import Progress
from unclip.errors import CheckpointError
from unclip.images import metadata
from unclip.images.result import Result
from unclip.inference.callbacks import Watcher


class Painter:
    """A stand-in for a pipeline: plain images; an interrupt after `ends` of them."""

    def __init__(self, ends: int | None = None) -> None:
        self.ends = ends
        self.opened = self.requests = None

    def from_pretrained(self, name, progress, **options):
        progress("loading", 1, 1)
        self.opened = (name, options)
        return self

    def output_size(self, request):
        return request.size or (16, 16)

    def stream(self, requests, batch_size=None, progress=None):
        self.requests = requests
        for count, one in enumerate(image for request in requests for image in request.images()):
            if count == self.ends:
                raise KeyboardInterrupt
            if isinstance(progress, Watcher):
                progress.see("decoder", [Image.new("RGB", (4, 4), "red")], [one.seed])
            progress("decoder", 1, 1)
            image = Image.new("RGB", one.size or (16, 16))
            yield Result(image=image, request=one, seed=one.seed, model="plain", notes=("it is plain",))


@pytest.fixture
def painter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    painter = Painter()
    monkeypatch.setitem(sys.modules, "unclip.pipeline", SimpleNamespace(Unclip=painter))
    return painter


def test_lines_and_files(painter, capsys, tmp_path):
    assert main(["generate", "a cat", "a dog", "-n", "2", "--seed", "0", "-o", "new/out"]) == 0
    out, err = capsys.readouterr()
    names = ["a-cat-0", "a-cat-1", "a-dog-0", "a-dog-1"]
    assert out.splitlines() == [f"new/out/{name}.png  seed {name[-1]}" for name in names]
    assert err == "unclip: note: it is plain\n"
    assert sorted(path.stem for path in (tmp_path / "new/out").iterdir()) == names
    opened = {"device": "auto", "dtype": "auto", "memory": "auto", "image_encoder": None, "prior": None, "lora": ()}
    assert painter.opened == ("stickers", opened)


@pytest.mark.parametrize("seeds", ["5,0,6", "5,0..0,6"])
def test_listed_seeds(painter, capsys, seeds):
    assert main(["generate", "a cat", "a dog", "--seed", seeds]) == 0
    found = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert found == ["5", "0", "6"] * 2
    assert main(["generate", "a cat", "--seed", "1..2", "-n", "2", "--grid"]) == 0
    assert main(["generate", "a cat", "--seed", "1..2", "-n", "3"]) == 2
    assert "n is 3, but 2 seeds are listed" in capsys.readouterr().err
    assert main(["interpolate", "a cat", "a dog", "--seed", "1,9", "--frames", "2"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["1", "1", "9", "9"]


@pytest.fixture
def type_in(monkeypatch):
    """type_in(text): what standard input holds."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_prompts_from_a_pipe(painter, capsys, type_in):
    type_in("# animals\na cat\n\na dog -- --seed 9 -n 2 --steps 3\n{red|blue} owl\n")
    assert main(["generate", "-", "--seed", "1", "--steps", "7"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "out/a-cat-1.png  seed 1",
        "out/a-dog-9.png  seed 9",
        "out/a-dog-10.png  seed 10",
    ]
    assert [request.steps for request in painter.requests] == [7, 3, 7]
    assert painter.requests[-1].prompt in ("red owl", "blue owl")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "standard input holds no prompts"),
        ("# a\n\n", "standard input holds no prompts"),
        ("a cat\na dog -- --sede 3\n", "standard input, line 2: options: unrecognized arguments: --sede"),
        ("a cat -- --mode vary --image a.png\n", "its mode is not generate; give it to `unclip batch -`"),
        ("(a cat:1.2)\n", "weights are not read"),
    ],
)
def test_a_bad_pipe_is_one_line(painter, capsys, type_in, tmp_path, text, says):
    type_in(text)
    assert main(["generate", "-"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_wildcards_choose_by_the_seed_of_each_image(painter, tmp_path):
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "animals.txt").write_text("cat\ndog\nowl\n")
    assert main(["generate", "a {red|blue} __animals__", "-n", "20", "--seed", "0"]) == 0
    prompts = [request.prompt for request in painter.requests]
    assert len(set(prompts)) > 3 and all(prompt.split()[2] in ("cat", "dog", "owl") for prompt in prompts)
    assert main(["generate", "a {red|blue} __animals__", "--seed", "13"]) == 0
    assert [request.prompt for request in painter.requests] == [prompts[13]]
    assert main(["generate", "a {red|blue} __animals__", "--seed", "13", "-n", "2", "--best-of", "4"]) == 0
    [best] = painter.requests
    assert (best.prompt, best.n, best.best_of) == (prompts[13], 2, 4)
    assert main(["interpolate", "a cat", "a dog", "--prompt", "{a|b}", "--seed", "1", "--frames", "2", "-n", "2"]) == 0
    assert [(request.seed, request.frames) for request in painter.requests] == [(1, 2), (2, 2)]


def test_wildcards_as_text(painter, capsys):
    assert main(["generate", "a {cat} (b:1.2) __x__", "--seed", "0", "--no-wildcards"]) == 0
    assert painter.requests[0].prompt == "a {cat} (b:1.2) __x__"
    for prompt, says in (("a {cat}", "without a choice"), ("(b:1.2)", "has a weight"), ("__x__", "a word list")):
        assert main(["generate", prompt]) == 2
        assert says in capsys.readouterr().err


def test_a_prompt_without_quotation_marks_gets_a_hint(painter, capsys):
    assert main(["generate", "a", "red", "cat", "--seed", "0"]) == 0
    [hint, _] = capsys.readouterr().err.splitlines()
    assert hint == 'unclip: note: 3 prompts of one word each; quote a prompt of several words: "a red cat"'
    for arguments in (["cat"], ["a red cat", "dog"], ["cat", "dog", "--quiet"]):
        assert main(["generate", *arguments, "--seed", "0"]) == 0
        assert "quote" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--num-inference-steps", "20"], "did you mean --steps?"),
        (["--cfg-scale=7"], "did you mean --guidance?"),
        (["--num-images", "4"], "did you mean -n?"),
        (["--width", "64"], "use size, such as 64x64"),
        (["--batch-count", "4"], "use n, the number of images"),
    ],
)
def test_options_of_other_tools_name_ours(painter, capsys, arguments, says):
    assert main(["generate", "a cat", *arguments]) == 2
    error = capsys.readouterr().err
    assert "No such option" in error and error.endswith(f"; {says}\n") and error.count("\n") == 1


@pytest.mark.parametrize(("out", "folder"), [("new", "new/previews"), ("one.png", "one-previews")])
def test_previews_are_written_beside_the_result(painter, tmp_path, out, folder):
    assert main(["generate", "a cat", "--seed", "3", "-o", out]) == 0
    assert not (tmp_path / folder).exists()
    assert main(["generate", "a cat", "--seed", "3", "-o", out, "--preview"]) == 0
    [path] = (tmp_path / folder).iterdir()
    assert path.name == "0001-3-001-decoder.png"
    assert Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    assert main(["generate", "a cat", "--seed", "3", "-o", out, "--preview"]) == 0
    assert [path.name for path in (tmp_path / f"{folder}-2").iterdir()] == ["0001-3-001-decoder.png"]


def test_previews_of_every_image_and_step_have_names_of_their_own(tiny_model, tmp_path):
    drawing = ["--model", str(tiny_model), "--seed", "5", "--steps", "2", "--upsampler-steps", "1", "--preview"]
    out = tmp_path / "out"
    assert main(["generate", "a red cat", "a blue dog", "--batch-size", "1", *drawing, "-o", str(out)]) == 0
    names = sorted(path.name for path in (out / "previews").iterdir())
    steps = ["5-001-decoder.png", "5-002-decoder.png", "5-003-upsampler.png"]
    assert names == [f"{picture}-{step}" for picture in ("0001", "0002") for step in steps]
    assert main(["generate", "a red cat", "-n", "2", "--size", "16x16", *drawing, "-o", str(out)]) == 0
    names = sorted(path.name for path in (out / "previews-2").iterdir())
    assert names == [f"{name}-00{i}-decoder.png" for name in ("0001-5", "0002-6") for i in (1, 2)]


def test_previews_of_windows(tiny_model, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "in.png")
    wide = ["outpaint", str(tmp_path / "in.png"), "a cat", "--right", "32", "--model", str(tiny_model), "--steps", "1"]
    assert main([*wide, "--upsampler-steps", "1", "--seed", "5", "--preview", "-o", str(tmp_path / "wide.png")]) == 0
    names = sorted(path.name for path in (tmp_path / "wide-previews").iterdir())
    # the context view; then both windows, decoded as one and upsampled one by one
    steps = ["0001-5-001-decoder", "0002-5-001-decoder", "0002-5-002-upsampler", "0002-5-003-upsampler"]
    assert names == [f"{step}.png" for step in steps]
    with Image.open(tmp_path / "wide-previews" / names[1]) as image:
        assert image.width > image.height


def test_previews_of_windows_of_several_images(tiny_model, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "in.png")
    wide = ["outpaint", str(tmp_path / "in.png"), "a cat", "--right", "16", "--model", str(tiny_model), "--steps", "1"]
    wide += ["--upsampler-steps", "1", "--seed", "5", "--preview", "-n", "3", "--batch-size", "2"]
    assert main([*wide, "-o", str(tmp_path)]) == 0
    names = sorted(path.stem for path in (tmp_path / "previews").iterdir())
    first = ["0001-5-001-decoder", "0002-6-001-decoder", "0003-5-001-decoder", "0003-5-002-upsampler"]
    second = ["0004-6-001-decoder", "0004-6-002-upsampler", "0005-7-001-decoder", "0006-7-001-decoder"]
    assert names == [*first, *second, "0006-7-002-upsampler"]


def test_every_option_reaches_the_request(painter):
    options = ["--negative-prompt", "dog", "--steps", "3", "--prior-steps", "4", "--upsampler-steps", "5"]
    options += ["--guidance", "0", "--prior-guidance", "1.5", "--sampler", "ddim", "--prior-sampler", "unipc"]
    options += ["--size", "64x32", "--prior-best-of", "2", "--best-of", "4", "--seed", "9", "--noise-level", "7"]
    options += ["--embedding", "e.safetensors", "--image-encoder", "there"]
    options += ["--speed", "fast", "--spacing", "ays", "--guidance-interval", "0.3,5", "--guidance-every", "2"]
    options += ["--cache-every", "3", "--upsampler-cache-every", "4"]
    save_file({"image_embed": np.ones(4), "probe": np.ones(4)}, "e.safetensors")
    Path("here").mkdir()
    Path("here/model_index.json").write_text("{}")
    assert main(["generate", "a cat", "--model", "here", "--device", "cpu", "--dtype", "float32", *options]) == 0
    [request] = painter.requests
    expected = {
        "prompt": "a cat", "negative_prompt": "dog", "mode": "generate", "seed": 9, "n": 1, "steps": 3,
        "prior_steps": 4, "upsampler_steps": 5, "guidance": 0.0, "prior_guidance": 1.5, "sampler": "ddim",
        "prior_sampler": "unipc", "size": "64x32", "prior_best_of": 2, "id": None,
        "best_of": 4, "noise_level": 7, "embedding": "e.safetensors", "speed": "fast", "spacing": "ays",
        "guidance_interval": [0.3, 5.0], "guidance_every": 2, "cache_every": 3, "upsampler_cache_every": 4,
        "prior": None, "prior_temperature": None, "prior_top_p": None,
    }  # fmt: skip
    assert request.to_dict() == expected
    opened = {"device": "cpu", "dtype": "float32", "memory": "auto"}
    opened |= {"image_encoder": "there", "prior": None, "lora": ()}
    assert painter.opened == ("here", opened)


def test_json_lines(painter, capsys):
    assert main(["generate", "a “cat”", "--json", "--seed", "5", "-n", "2", "--size", "8x4", "-o", "o"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == {
        "file": "o/a-cat-6.png",
        "seed": 6,
        "prompt": "a “cat”",
        "model": "plain",
        "size": "8x4",
        "score": None,
    }


def test_formats_and_a_grid(painter, capsys, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(typer, "launch", lambda path: shown.append(path) or 0)
    options = ["--seed", "1", "-n", "4", "--grid", "--open", "--format", "webp", "-o", "o", "--quiet"]
    for _ in range(2):
        assert main(["generate", "a cat", *options]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "o/a-cat-1.webp  seed 1" and err.endswith("unclip: the grid is o/grid-2.png\n")
    assert shown == ["o/grid.png", "o/grid-2.png"]
    with Image.open(tmp_path / "o" / "grid.png") as grid:
        assert grid.size == (36, 36)
    assert main(["generate", "a cat", "--grid", "-o", "a.png"]) == 2
    assert "goes into a folder" in capsys.readouterr().err
    painter.requests = None
    assert main(["generate", "a cat", "--grid", "-n", "100000", "--size", "1000"]) == 2
    assert painter.requests is None and "--grid of 100,000" in capsys.readouterr().err


def test_a_random_seed_is_printed_and_recorded(painter, capsys, tmp_path):
    seeds = []
    for _ in range(2):
        assert main(["generate", "a cat", "--quiet", "-o", "cat.png"]) == 0
        out, err = capsys.readouterr()
        seeds.append(metadata.read(tmp_path / "cat.png")["seed"])
        assert out == f"cat.png  seed {seeds[-1]}\n"
        assert err == ""
    assert seeds[0] != seeds[1]


def test_an_interrupt_keeps_what_is_done(painter, capsys, tmp_path):
    painter.ends = 2
    assert main(["generate", "a cat", "-n", "4", "--seed", "1", "--quiet"]) == 130
    assert capsys.readouterr().err == "unclip: interrupted\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-cat-1.png", "a-cat-2.png"]


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
)
def test_no_memory_left_is_one_line(painter, capsys, error):
    def stream(*_, **__):
        raise error

    painter.stream = stream
    assert main(["generate", "a cat"]) == 1
    err = capsys.readouterr().err
    assert "--batch-size" in err and err.count("\n") == 1


def test_any_other_error_of_torch_is_raised(painter):
    def stream(*_, **__):
        raise RuntimeError("shapes do not match")

    painter.stream = stream
    with pytest.raises(RuntimeError, match="shapes"):
        main(["generate", "a cat"])


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_every_device_reaches_the_pipeline(painter, device):
    assert main(["generate", "a cat", "--device", device]) == 0
    assert painter.opened[1]["device"] == device


def test_the_bar_is_cleared_if_loading_fails(painter, monkeypatch, capsys):
    def from_pretrained(name, progress, **options):
        progress("loading", 1, 3)
        raise CheckpointError("a part of it is damaged")

    closed = []
    monkeypatch.setattr(painter, "from_pretrained", from_pretrained)
    monkeypatch.setattr(Progress, "close", lambda self: closed.append(True))
    assert main(["generate", "a cat"]) == 2
    assert closed == [True]
    assert "unclip: error: a part of it is damaged" in capsys.readouterr().err
