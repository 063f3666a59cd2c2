"""`unclip vary`, `interpolate`, `edit`, `reconstruct` and `embed`, as commands; the modes in prompt files."""

import json
from pathlib import Path

import pytest
from PIL import Image

from unclip.cli.main import main
from unclip.errors import RequestError
from unclip.images import metadata
from unclip.pipeline import Unclip

FEW = ["--steps", "2", "--size", "16", "--seed", "3", "--quiet"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNCLIP_MODEL", str(tiny_model))
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")
    monkeypatch.setenv("UNCLIP_DTYPE", "float32")
    Image.linear_gradient("L").resize((24, 20)).convert("RGB").save("photo.png")
    return tmp_path


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_vary(folder: Path, capsys) -> None:
    assert main(["vary", "photo.png", "-n", "2", "--strength", "0.5", *FEW, "-o", "out"]) == 0
    assert names("out") == ["photo-3.png", "photo-4.png"]
    request = metadata.read("out/photo-3.png")["request"]
    assert (request["mode"], request["strength"], request["image"]) == ("vary", 0.5, "photo.png")
    assert capsys.readouterr().out == "out/photo-3.png  seed 3\nout/photo-4.png  seed 4\n"


def test_a_sequence_as_files_a_strip_and_an_animation(folder: Path, tiny_model: Path, capsys) -> None:
    options = ["--frames", "3", "--strip", "--gif", *FEW, "-o", "out"]
    assert main(["interpolate", "photo.png", "a red cat", *options]) == 0
    frames = [f"photo-to-a-red-cat-3-{share}.png" for share in ("0000", "0500", "1000")]
    assert names("out") == sorted([*frames, "strip.png", "frames.gif"])
    with Image.open("out/strip.png") as strip, Image.open("out/frames.gif") as film:
        assert strip.size == (3 * 16 + 2 * 4, 16)
        assert film.n_frames == 4  # there and back
    capsys.readouterr()
    again = ["reproduce", f"out/{frames[1]}", "--model", str(tiny_model), "--dtype", "float32", "--device", "cpu"]
    assert main([*again, "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "identical" in told or "within 1/255" in told


def test_videos_of_a_sequence(folder: Path, capsys) -> None:
    av = pytest.importorskip("av")
    options = ["--frames", "3", "--mp4", "--webm", "--gif", "--fps", "10", *FEW]
    assert main(["edit", "photo.png", "a dog", *options, "-o", "out"]) == 0
    for name in ("frames.mp4", "frames.webm"):
        with av.open(f"out/{name}") as video:
            [stream] = video.streams
            assert (float(stream.average_rate), len(list(video.decode(stream)))) == (10, 4)
        assert f"unclip: the video is out/{name}\n" in capsys.readouterr().err or name == "frames.webm"
    with Image.open("out/frames.gif") as film:
        assert film.info["duration"] == 100
    for wrong, says in ((["--fps", "0"], "from 0.1 to 50"), (["--mp4", "-o", "x.png"], "is one file, for 3 images")):
        assert main(["edit", "photo.png", "a dog", "--frames", "3", *wrong, *FEW]) == 2
        assert says in capsys.readouterr().err


def test_edit_and_reconstruct(folder: Path, capsys) -> None:
    assert main(["edit", "photo.png", "a dog", "--from", "a cat", "--theta", "0.2", *FEW, "-o", "dog.png"]) == 0
    request = metadata.read("dog.png")["request"]
    assert (request["prompt"], request["from_prompt"], request["theta"]) == ("a dog", "a cat", 0.2)
    assert main(["reconstruct", "photo.png", *FEW, "-o", "again.png"]) == 0
    assert metadata.read("again.png")["request"]["mode"] == "reconstruct"
    assert main(["reconstruct", "photo.png", "--components", "5,10", *FEW]) == 2
    assert "make them with `unclip models components" in capsys.readouterr().err


def test_a_file_in_the_place_of_a_prompt_is_refused(folder: Path, tiny_model: Path, capsys) -> None:
    """As from `unclip vary *`, which a shell expands to the names of all files."""
    for name in ("b.gif", "LICENSE", "photo.heic"):
        Path(name).touch()
    pipe = Unclip.from_pretrained(tiny_model, device="cpu")
    for command in (["generate"], ["vary", "photo.png"], ["reconstruct", "photo.png"], ["edit", "photo.png"]):
        for name, says in (("b.gif", "an image file"), ("LICENSE", "a file; say"), ("photo.heic", "is not read")):
            assert main([*command, name]) == 2
            error = capsys.readouterr().err
            assert f"prompt {name!r} " in error and says in error and error.count("\n") == 1
            with pytest.raises(RequestError, match=f"^prompt {name!r} .*{says}"):
                getattr(pipe, command[0])(*command[1:], name)
    for more in (["outpaint", "photo.png", "b.gif", "--left", "8"], ["inpaint", "photo.png", "photo.png", "b.gif"]):
        assert main(more) == 2 and "prompt 'b.gif' ends like" in capsys.readouterr().err
    assert main(["edit", "photo.png", "a cat", "--from", "LICENSE"]) == 2
    assert "from_prompt 'LICENSE' is the name of a file" in capsys.readouterr().err
    for source in ("interpolate", "embed"):
        assert main([source, "LICENSE", *(["a cat"] if source == "interpolate" else ["-o", "e.safetensors"])]) == 2
        assert "'LICENSE' is the name of a file" in capsys.readouterr().err
    with pytest.raises(RequestError, match="^sources 'LICENSE' is the name of a file"):
        pipe.interpolate("photo.png", "LICENSE")
    assert not Path("out").exists()


def test_images_in_the_place_of_one_are_a_usage_error(folder: Path, capsys) -> None:
    assert main(["vary", "photo.png", "a.gif", "b.gif"]) == 2
    assert "(b.gif); give one image, and quote a prompt of several words" in capsys.readouterr().err
    assert main(["outpaint", "photo.png", "a", "wide", "beach", "--left", "8"]) == 2
    assert "(wide beach); give one image, and quote a prompt" in capsys.readouterr().err


def test_an_embedding_is_saved_and_used(folder: Path, tiny_model: Path, capsys) -> None:
    assert main(["embed", "photo.png", "-o", "e.safetensors"]) == 0
    assert capsys.readouterr().out == "e.safetensors\n"
    assert main(["generate", "--embedding", "e.safetensors", *FEW, "-o", "one.png"]) == 0
    assert main(["embed", "a cat", "-o", "cat.safetensors", "--seed", "4"]) == 0
    assert main(["interpolate", "e.safetensors", "cat.safetensors", "--share", "0.5", *FEW, "-o", "two.png"]) == 0
    assert main(["vary", "photo.png", *FEW, "-o", "three.png"]) == 0
    assert main(["edit", "photo.png", "--embedding", "cat.safetensors", *FEW, "-o", "four.png"]) == 0
    assert metadata.read("four.png")["request"]["embedding"] == "cat.safetensors"
    assert main(["edit", "photo.png", "--embedding", "cat.safetensors", *FEW, "-o", "out"]) == 0
    assert names("out") == ["photo-to-cat-3-0350.png"]
    assert main(["reproduce", "four.png", "--model", str(tiny_model), "--dtype", "float32", "--device", "cpu"]) == 0
    assert main(["edit", "photo.png", "a cat", "--embedding", "cat.safetensors"]) == 2
    assert "leave out the prompts" in capsys.readouterr().err
    pixels = [metadata.read(f"{name}.png")["pixels"] for name in ("one", "two", "three")]
    assert pixels[0] == pixels[2] != pixels[1]


def test_best_of(folder: Path, capsys) -> None:
    assert main(["generate", "a red cat", "--best-of", "4", "-n", "2", "--json", *FEW, "-o", "out"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 and lines[0]["score"] >= lines[1]["score"]
    for line in lines:
        record = metadata.read(line["file"])
        assert record["ranked"] == line["ranked"] == sorted(line["ranked"], reverse=True)
        assert len(record["ranked"]) == 4 and record["seed"] == line["seed"] == record["request"]["seed"]
        assert "best_of" in record["request"] and record["request"]["best_of"] is None


def test_all_modes_in_a_prompt_file(folder: Path, capsys) -> None:
    lines = [
        {"mode": "vary", "image": "photo.png", "n": 2},
        {"mode": "interpolate", "sources": ["photo.png", "a cat"], "frames": 2},
        {"mode": "edit", "image": "photo.png", "prompt": "a {dog|dog}", "frames": 2},
        {"mode": "reconstruct", "image": "photo.png"},
        {"prompt": "a cat", "best_of": 3, "n": 2},
        {"mode": "vary", "image": "gone.png"},
    ]
    Path("prompts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    arguments = ["batch", "prompts.jsonl", "-o", "out", "--steps", "2", "--size", "16", "--prior-steps", "2", "--quiet"]
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert "image 'gone.png' is not a file" in told.err
    entries = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert sorted((entry["line"], entry["image"]) for entry in entries) == [
        (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (5, 0), (5, 1)
    ]  # fmt: skip
    ranked = {entry["image"]: entry for entry in entries if entry["line"] == 5}
    assert ranked[0]["score"] == ranked[0]["ranked"][0] and ranked[1]["score"] == ranked[0]["ranked"][1]
    assert main(arguments) == 1
    assert Path("out/manifest.jsonl").read_text().count("\n") == 9  # nothing is made twice


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vary", "none.png"], "cannot read the image 'none.png'"),
        (["vary", "photo.png", "--strength", "2"], "strength must be a number from 0 to 1"),
        (["vary", "photo.png", "--prior-steps", "2"], "No such option"),
        (["interpolate", "photo.png"], "sources must be two or more"),
        (["interpolate", "a", "b", "c"], "weights are missing"),
        (["interpolate", "a", "b", "--frames", "3", "-o", "x.png"], "is one file, for 3 images"),
        (["interpolate", "a", "b", "--fraction", "0.5", "--gif", "-o", "x.png"], "--gif goes into a folder"),
        (["edit", "photo.png"], "or give an embedding"),
        (["generate"], "PROMPT"),
        (["generate", "--embedding", "photo.png"], "cannot read 'photo.png' as safetensors"),
        (["generate", "a cat", "--image-encoder", "stickers"], "takes no other image encoder"),
        (["embed", "photo.png", "-o", "e.bin"], "must end in .safetensors"),
        (["embed", "photo.heic", "-o", "e.safetensors"], "'photo.heic' is a file of a format that is not read"),
        (["embed", "e.safetensors", "-o", "f.safetensors"], "'e.safetensors' is the name of an embedding"),
        (["interpolate", "photo.png", "photo.heic"], "'photo.heic' is a file of a format"),
        (["embed", " ", "-o", "e.safetensors"], "prompt is empty"),
    ],
)
def test_mistakes_are_one_line_and_code_2(folder: Path, arguments: list[str], says: str, capsys) -> None:
    Path("photo.heic").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
