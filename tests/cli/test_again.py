"""`unclip again`: a recorded request with changes."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import noise_image
from unclip.cli.main import main
from unclip.images import metadata


@pytest.fixture
def again(tiny_model, capsys, tmp_path, monkeypatch):
    """again(*arguments) -> (exit code, records of the new images, errors), with the tiny model."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, list[dict], str]:
        capsys.readouterr()
        code = main(["again", *arguments, "--model", str(tiny_model), "-o", "again", "--json"])
        out, err = capsys.readouterr()
        return code, [metadata.read(json.loads(line)["file"]) for line in out.splitlines()], err

    return call


def make(tiny_model, *arguments: str) -> None:
    quick = ["--model", str(tiny_model), "--dtype", "float32", "--quiet", "--seed", "3"]
    assert main([*arguments, *quick]) == 0


def test_what_is_not_given_is_as_recorded(again, tiny_model):
    make(tiny_model, "generate", "a red cat", "--size", "16", "--guidance", "0", "--steps", "2", "-o", "cat.png")
    made = metadata.read("cat.png")
    assert again("cat.png")[1] == [made]  # its pixels too
    code, [found], _ = again("cat.png", "--steps", "3", "--prompt", "a dog")
    assert code == 0 and found["request"] == made["request"] | {"steps": 3, "prompt": "a dog"}
    assert (found["seed"], found["dtype"]) == (3, "float32") and found["pixels"] != made["pixels"]


def test_other_fields_seeds_and_defaults(again, tiny_model):
    make(tiny_model, "generate", "a red cat", "--size", "16", "--negative-prompt", "a dog", "-o", "cat.png")
    code, found, _ = again("cat.png", "--seed", "8,5", "--set", "prior-best-of=2", "--set", "size=", "--quiet")
    assert code == 0 and [(one["seed"], one["request"]["size"]) for one in found] == [(8, "32x32"), (5, "32x32")]
    assert {one["request"]["prior_best_of"] for one in found} == {2}
    assert [one["seed"] for one in again("cat.png", "-n", "3")[1]] == [3, 4, 5]
    assert [one["seed"] for one in again("cat.png", "--seed", "7", "-n", "2")[1]] == [7, 8]
    assert [one["seed"] for one in again("cat.png", "--set", "seed=1..2")[1]] == [1, 2]
    [found] = again("cat.png", "--negative-prompt", "")[1]
    assert found["request"]["negative_prompt"] == ""
    [found] = again("cat.png", "--prompt", "a {cat|dog}")[1]
    assert found["request"]["prompt"] in ("a cat", "a dog")


def test_a_speed_sets_what_the_record_holds(again, tiny_model):
    make(tiny_model, "generate", "a red cat", "--size", "32", "-o", "cat.png")
    fast = ["--size", "32", "--speed", "fast", "-o", "fast.png"]
    make(tiny_model, "generate", "a red cat", *fast)
    [found] = again("cat.png", "--speed", "fast")[1]
    assert found["request"] == metadata.read("fast.png")["request"]
    [found] = again("cat.png", "--speed", "fast", "--steps", "2")[1]
    assert found["request"]["steps"] == 2


def test_a_speed_leaves_what_it_does_not_set(again, tiny_model):
    make(tiny_model, "generate", "a red cat", "--guidance", "5", "--prior-guidance", "3", "-o", "cat.png")
    [found] = again("cat.png", "--speed", "fast")[1]
    assert (found["request"]["guidance"], found["request"]["prior_guidance"]) == (5, 3)
    noise_image(16, 16).save("photo.png")  # its own noise was found in 3 steps; a speed sets the upsampler only
    make(tiny_model, "vary", "photo.png", "--strength", "0.5", "--steps", "3", "--size", "32", "-o", "v.png")
    [found] = again("v.png", "--speed", "fast")[1]
    assert (found["request"]["steps"], found["request"]["upsampler_steps"]) == (3, 1)


def test_the_recorded_prompt_is_taken_as_it_is(again, tiny_model):
    make(tiny_model, "generate", "a {cat} (b:1.2) __x__", "--no-wildcards", "--size", "16", "-o", "cat.png")
    [found] = again("cat.png", "--steps", "1")[1]
    assert found["request"]["prompt"] == "a {cat} (b:1.2) __x__"


def test_an_edit_with_its_inputs(again, tiny_model):
    noise_image(16, 16).save("photo.png")
    make(tiny_model, "vary", "photo.png", "-n", "1", "--strength", "0.5", "--steps", "2", "--size", "16", "-o", "v.png")
    [found] = again("v.png", "--set", "strength=0.25")[1]
    assert (found["request"]["strength"], found["request"]["mode"]) == (0.25, "vary")
    Path("photo.png").rename("moved.png")
    code, _, err = again("v.png")
    assert code == 2 and "which is not here; give it by --image FILE" in err
    [found] = again("v.png", "--image", "moved.png")[1]
    assert found["request"]["image"] == "moved.png"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "steps must be"),
        (["--set", "steps=2", "--steps", "3"], "given twice"),
        (["--set", "steps"], "write FIELD=VALUE"),
        (["--set", "stepz=3"], "did you mean 'steps'?"),
        (["--set", "strength=0.5"], "strength is a field of vary"),
        (["--image", "b.png"], "was made without --image"),
        (["--prompt", " "], "prompt is empty"),
        (["--seed", "3-5"], "such as 1,2,3 or 1..8"),
    ],
)
def test_a_mistake_is_one_line(again, result, tmp_path, arguments, says):
    result.save(tmp_path / "cat.png")
    code, _, err = again("cat.png", *arguments)
    assert code == 2 and says in err and err.count("\n") == 1
    assert not (tmp_path / "again").exists()


def test_files_without_a_record_and_other_models(again, result, tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert again("plain.png")[0] == 2
    dataclasses.replace(result, model="/models/theirs").save(tmp_path / "cat.png")
    assert main(["again", "cat.png"]) == 2
    assert "give it by --model" in capsys.readouterr().err
