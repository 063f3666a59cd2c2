"""`unclip reproduce` and `unclip show`."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import box_mask, noise_image
from unclip.cli.main import main
from unclip.images import metadata
from unclip.images.result import Result, record


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A folder with cat.png, cat.jpg and cat.webp by the tiny model."""
    folder = tmp_path_factory.mktemp("made")
    for suffix in ("png", "jpg", "webp"):
        options = ["--model", str(tiny_model), "--seed", "3", "--size", "16", "--dtype", "float32", "--quiet"]
        assert main(["generate", "a red cat", *options, "-o", str(folder / f"cat.{suffix}")]) == 0
    return folder


def reproduce(tiny_model, capsys, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["reproduce", *arguments, "--model", str(tiny_model), "--dtype", "float32", "--quiet"])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_same_pixels_again(made, tiny_model, capsys, suffix):
    file = str(made / f"cat.{suffix}")
    assert reproduce(tiny_model, capsys, file) == (0, f"{file}: identical pixels\n", "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])  # "auto" is only one of them
def test_the_recorded_precision_is_used(tiny_model, capsys, tmp_path, dtype):
    options = ["--model", str(tiny_model), "--quiet"]
    made = ["--seed", "3", "-n", "3", "--size", "16", "--dtype", dtype, "-o", str(tmp_path)]
    assert main(["generate", "a red cat", *options, *made]) == 0
    file = sorted(tmp_path.iterdir())[1]
    assert metadata.read(file)["dtype"] == dtype
    capsys.readouterr()
    assert main(["reproduce", str(file), *options, "-o", str(tmp_path / "again.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dtype"] == metadata.read(tmp_path / "again.png")["dtype"] == dtype
    assert told["tolerance"] == (1 if dtype == "float32" else 16)
    other = {"float32": "bfloat16", "bfloat16": "float32"}[dtype]
    main(["reproduce", str(file), *options, "--dtype", other, "--json"])
    assert (
        json.loads(capsys.readouterr().out)["tolerance"] == 1
    )  # the tolerance of the recorded precision does not apply


@pytest.mark.parametrize(
    ("touched", "dtype", "code"), [(False, "bfloat16", 0), (False, "float32", 1), (True, "bfloat16", 1)]
)
def test_only_rounding_differences_agree(tiny_model, capsys, tmp_path, touched, dtype, code):
    file = str(tmp_path / "cat.png")
    options = ["--model", str(tiny_model), "--quiet"]
    assert main(["generate", "a red cat", *options, "--seed", "3", "--size", "16", "--dtype", dtype, "-o", file]) == 0
    record = metadata.read(file)
    with Image.open(file) as image:
        pixel = image.getpixel((3, 3))
        image.putpixel((3, 3), tuple(value + 12 if value < 128 else value - 12 for value in pixel))
        if not touched:  # as if it had been made so, in a batch of another size
            record["pixels"] = metadata.pixel_hash(image)
        (tmp_path / "cat.png").write_bytes(metadata.image_bytes(image, record))
    capsys.readouterr()
    assert main(["reproduce", file, *options]) == code
    assert ("in this precision" if code == 0 else "differ by up to 12/255") in capsys.readouterr().out


def test_changed_pixels_are_found(made, tiny_model, capsys, tmp_path):
    record = metadata.read(made / "cat.png")
    with Image.open(made / "cat.png") as image:
        image.putpixel((3, 3), tuple((value + 128) % 256 for value in image.getpixel((3, 3))))
        (tmp_path / "changed.png").write_bytes(metadata.image_bytes(image, record))
        code, out, _ = reproduce(tiny_model, capsys, str(tmp_path / "changed.png"))
        assert code == 1 and "differ by up to 128/255" in out
        record["pixels"] = "0" * 64
        (tmp_path / "changed.webp").write_bytes(metadata.image_bytes(image, record, "webp"))
    code, out, _ = reproduce(tiny_model, capsys, str(tmp_path / "changed.webp"))
    assert code == 1 and "lossy" in out


def test_the_new_image_can_be_kept(made, tiny_model, capsys, tmp_path):
    new = tmp_path / "again.png"
    code, out, _ = reproduce(tiny_model, capsys, str(made / "cat.png"), "-o", str(new), "--json")
    told = json.loads(out)
    assert code == 0 and told["identical"] and told["difference"] == 0 and told["new_file"] == str(new)
    assert new.read_bytes() == (made / "cat.png").read_bytes()


def test_a_record_is_not_trusted(result: Result, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = record(result)

    def write(**changes) -> str:
        (tmp_path / "x.png").write_bytes(metadata.image_bytes(result.image, good | changes))
        return "x.png"

    request = good["request"]
    frames = {"prompt": "", "mode": "interpolate", "sources": ["a", "b"], "frames": 3, "seed": 1}
    for file, says in [
        (lambda: write(model="/etc"), "give it by --model"),
        (lambda: write(model=["a"]), "give it by --model"),
        (lambda: write(request={**request, "n": 100_000}), "not of one image"),
        (lambda: write(request={**request, "seed": None}), "not of one image"),
        (lambda: write(request=frames), "not of one image"),
        (lambda: write(request={**request, "steps": 10**9}), "steps must be"),
        (lambda: write(request={**request, "shell": "rm"}), "'shell' is not a field"),
    ]:
        assert main(["reproduce", file()]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1


def test_show_takes_many_files(result: Result, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in ("png", "jpg", "webp"):
        result.save(f"a.{suffix}")
    (tmp_path / "none.png").write_text("no")
    assert main(["show", "a.png", "none.png", "a.jpg", "a.webp", "--json"]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line.pop("file") for line in lines] == ["a.png", "a.jpg", "a.webp"]
    assert lines[0] == lines[1] == lines[2] == record(result)
    assert err.count("\n") == 1 and "'none.png' is not a PNG" in err


def test_a_recorded_image_encoder_is_noted(made, tiny_model, capsys, monkeypatch):
    file, read = str(made / "cat.png"), metadata.read
    monkeypatch.setattr(metadata, "read", lambda path: {**read(path), "image_encoder": "a/b\x1b[2J"})
    assert main(["reproduce", file, "--model", str(tiny_model), "--dtype", "float32"]) == 0
    told = capsys.readouterr()
    assert told.err == "unclip: note: the image was made with --image-encoder 'a/b\\x1b[2J'\n"
    assert told.out == f"{file}: identical pixels\n"
    assert reproduce(tiny_model, capsys, file)[2] == ""  # quiet


@pytest.fixture
def edited(tiny_model, tmp_path, monkeypatch):
    """new.png: photo.png inpainted in mask.png, and mixed.png: photo.png interpolated with a prompt."""
    monkeypatch.chdir(tmp_path)
    noise_image(24, 24).save("photo.png")
    box_mask((24, 24), (4, 4, 12, 12)).save("mask.png")
    options = ["--model", str(tiny_model), "--seed", "3", "--dtype", "float32", "--quiet", "--steps", "2"]
    assert main(["inpaint", "photo.png", "mask.png", "a cat", *options, "-o", "new.png"]) == 0
    mix = ["interpolate", "a red cat", "photo.png", "--fraction", "0.5", "--size", "16"]
    assert main([*mix, *options, "-o", "mixed.png"]) == 0
    return tmp_path


def test_inputs_that_are_elsewhere_are_given_by_options(edited, tiny_model, capsys):
    inputs = metadata.read("new.png")["inputs"]
    assert inputs == {
        name: "sha256:" + hashlib.sha256((edited / f"{file}.png").read_bytes()).hexdigest()
        for name, file in (("image", "photo"), ("mask", "mask"))
    }
    assert metadata.read("mixed.png")["inputs"] == {"sources": [None, inputs["image"]]}
    Path("photo.png").rename("moved.png")
    Path("mask.png").rename("moved-mask.png")
    for file, option in (("new.png", "--image"), ("mixed.png", "--source")):
        code, out, err = reproduce(tiny_model, capsys, file)
        assert (code, out) == (2, "") and err.endswith(f"'photo.png', which is not here; give it by {option} FILE\n")
    code, _, err = reproduce(tiny_model, capsys, "new.png", "--image", "moved.png")
    assert code == 2 and "'mask.png', which is not here; give it by --mask FILE" in err
    given = ["--image", "moved.png", "--mask", "moved-mask.png"]
    assert reproduce(tiny_model, capsys, "new.png", *given) == (0, "new.png: identical pixels\n", "")
    assert reproduce(tiny_model, capsys, "mixed.png", "--source", "moved.png")[:2] == (
        0,
        "mixed.png: identical pixels\n",
    )
    for arguments, says in (
        (["mixed.png", "--source", "moved.png", "--source", "moved.png"], "--source was given 2 times"),
        (["mixed.png", "--image", "moved.png"], "was made without --image; leave it out"),
    ):
        code, _, err = reproduce(tiny_model, capsys, *arguments)
        assert code == 2 and says in err


def test_a_changed_input_is_reported(edited, tiny_model, capsys):
    noise_image(24, 24).save("photo.png")
    code = main(["reproduce", "new.png", "--model", str(tiny_model), "--dtype", "float32"])
    out, err = capsys.readouterr()
    assert code == 1 and "; changed since: the image 'photo.png'" in out
    assert "unclip: note: the image 'photo.png' is not the file that was used" in err
    code, out, _ = reproduce(tiny_model, capsys, "new.png", "--json")
    assert code == 1 and json.loads(out)["changed_inputs"] == ["the image 'photo.png'"]
    record = metadata.read("new.png")
    del record["inputs"]  # as in older records
    with Image.open("new.png") as image:
        Path("old.png").write_bytes(metadata.image_bytes(image, record))
    code, out, err = reproduce(tiny_model, capsys, "old.png", "--json")
    assert code == 1 and json.loads(out)["changed_inputs"] == [] and err == ""


def test_an_image_in_memory_is_given_as_a_file(tiny, tiny_model, tmp_path, capsys):
    photo = noise_image(16, 16)
    [result] = tiny.vary(photo, seed=1, size=16)
    result.save(tmp_path / "v.png")
    photo.save(tmp_path / "photo.png")
    assert reproduce(tiny_model, capsys, str(tmp_path / "v.png"))[2].endswith("in memory; give it by --image FILE\n")
    code, out, err = reproduce(tiny_model, capsys, str(tmp_path / "v.png"), "--image", str(tmp_path / "photo.png"))
    assert code == 0 and out.endswith("identical pixels\n") and err == ""


def test_a_canvas_has_no_single_request(tmp_path, capsys):
    path = tmp_path / "canvas.png"
    path.write_bytes(metadata.canvas_bytes(noise_image(8, 8), {"version": "0.1.0", "canvas": []}))
    assert main(["show", str(path)]) == 0
    assert main(["reproduce", str(path)]) == 2
    error = capsys.readouterr().err
    assert "is a canvas, whose parts were made by requests of their own" in error and error.count("\n") == 1
