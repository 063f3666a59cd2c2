"""`--prior diffusion|autoregressive`, wherever a prompt guides; and another prior's folder or hub id, as before."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import box_mask, difference, noise_image
from unclip import Unclip
from unclip.cli.main import main
from unclip.errors import CheckpointError, RequestError
from unclip.images import metadata
from unclip.requests.fields import PRIORS
from unclip.requests.request import Request

SHORT = ["--seed", "3", "--steps", "2", "--upsampler-steps", "1", "--quiet", "--dtype", "float32"]


@pytest.fixture
def call(tiny_model: Path, tmp_path: Path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns its exit code and the last line of standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, model: bool = True) -> tuple[int, str]:
        code = main([*words, *(["--model", str(tiny_model)] if model else [])])
        return code, (capsys.readouterr().err.splitlines() or [""])[-1]

    return run


def request_of(file: str) -> dict:
    return metadata.read(file)["request"]


def test_each_kind_is_recorded_and_reproduced(call):
    for kind in PRIORS:
        assert call("generate", "a red cat", "--prior", kind, *SHORT, "-o", f"{kind}.png") == (0, "")
        record = metadata.read(f"{kind}.png")
        assert record["request"]["prior"] == kind and "prior" not in record
        assert call("reproduce", f"{kind}.png", "--quiet") == (0, "")
    assert request_of("diffusion.png")["prior_steps"] == 3 and request_of("diffusion.png")["prior_top_p"] is None
    found = request_of("autoregressive.png")
    assert (found["prior_temperature"], found["prior_top_p"], found["prior_guidance"]) == (0.9, 0.95, 1.5)
    assert found["prior_steps"] is None and found["prior_sampler"] is None
    one, other = (Image.open(f"{kind}.png") for kind in PRIORS)
    assert difference(one, other) > 1
    assert call("generate", "a red cat", *SHORT, "-o", "plain.png") == (0, "")
    assert difference(Image.open("plain.png"), one) == 0  # the diffusion prior remains the default


def test_every_command_with_a_prompt_takes_it(call):
    noise_image(32, 32).save("in.png")
    box_mask((32, 32), (8, 8, 24, 24)).save("mask.png")
    for name, words in {
        "inpaint": ["in.png", "mask.png", "a cat"],
        "outpaint": ["in.png", "a cat", "--right", "8"],
        "interpolate": ["a cat", "in.png", "--fraction", "0.5"],
    }.items():
        options = ["--prior", "autoregressive", "--prior-temperature", "0.5", "--prior-top-p", "0.8", *SHORT]
        assert call(name, *words, *options, "-o", f"{name}.png") == (0, "")
        found = request_of(f"{name}.png")
        assert (found["prior"], found["prior_temperature"], found["prior_top_p"]) == ("autoregressive", 0.5, 0.8)
    for kind in PRIORS:
        assert call("embed", "a cat", "-o", f"{kind}.safetensors", "--prior", kind) == (0, "")
    assert Path("diffusion.safetensors").read_bytes() != Path("autoregressive.safetensors").read_bytes()


def test_prompt_files_have_it_by_line(call):
    lines = [{"prompt": "a cat", "seed": 1, "prior": kind} for kind in PRIORS]
    lines += [{"prompt": "a dog", "seed": 1, "prior": "diffusion", "prior_steps": 2}, {"prompt": "a dog", "seed": 2}]
    Path("p.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = ["--size", "16", "--steps", "2", "--prior", "autoregressive", "--quiet"]
    assert call("batch", "p.jsonl", "-o", "out", *options) == (0, "")
    made = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    kinds = {entry["line"]: entry["request"]["prior"] for entry in made}
    assert kinds == {1: "diffusion", 2: "autoregressive", 3: "diffusion", 4: "autoregressive"}
    narrow = ["--prior", "autoregressive", "--prior-top-p", "0.9", "--steps", "2", "--size", "16", "--quiet"]
    assert call("batch", "p.jsonl", "-o", "narrow", *narrow) == (0, "")  # the default is not for diffusion's lines
    Path("p.csv").write_text("prompt,prior,prior_top_p\na cat,autoregressive,0.5\na dog,diffusion,\n")
    assert call("batch", "p.csv", "-o", "csv", "--size", "16", "--steps", "2", "--quiet") == (0, "")
    Path("p.txt").write_text("a cat -- --prior autoregressive --prior-temperature 0.5\n")
    assert call("batch", "p.txt", "-o", "txt", "--size", "16", "--steps", "2", "--quiet") == (0, "")
    [entry] = [json.loads(line) for line in Path("txt/manifest.jsonl").read_text().splitlines()]
    assert (entry["request"]["prior"], entry["request"]["prior_temperature"]) == ("autoregressive", 0.5)


@pytest.mark.parametrize(
    "words, says",
    [
        (["--prior", "autoregresive"], "or give a kind of prior: diffusion or autoregressive"),
        (["--prior", "autoregressive", "--prior-steps", "3"], "prior_steps belongs to the diffusion prior"),
        (
            ["--prior-top-p", "0.5"],
            "prior_top_p belongs to the autoregressive prior, and this request's prior is diffusion",
        ),
        (["--prior-top-p", "0.5", "--prior-steps", "3"], "leave one out"),
        (["--prior-top-p", "1.5"], "prior_top_p must be a number from 0 to 1"),
        (["--prior-temperature", "-1"], "prior_temperature must be a number from 0 to 100"),
    ],
)
def test_mistakes_get_one_line(call, words: list[str], says: str):
    code, line = call("generate", "a cat", *words, "--quiet")
    assert code == 2 and says in line


def test_commands_without_a_prompt_refuse_a_kind_and_pass_over_a_setting(call, monkeypatch):
    noise_image(32, 32).save("in.png")
    code, line = call("vary", "in.png", "--prior", "autoregressive", *SHORT, "-o", "vary.png")
    assert code == 2 and "--prior autoregressive is for commands that take a prompt" in line
    monkeypatch.setenv("UNCLIP_PRIOR", "autoregressive")
    assert call("vary", "in.png", *SHORT, "-o", "vary.png") == (0, "")
    assert call("generate", "a cat", *SHORT, "-o", "cat.png") == (0, "")
    assert request_of("cat.png")["prior"] == "autoregressive"
    assert call("reproduce", "cat.png", "--quiet") == (0, "")


def test_another_prior_is_still_given_by_folder(call, tiny_model: Path):
    Path("diffusion").symlink_to(tiny_model)
    for folder in (str(tiny_model), "./diffusion"):
        code, line = call("generate", "a cat", "--prior", folder, "--quiet")
        assert code == 2 and "has a prior of its own, and takes no other" in line


def test_the_kind_can_be_the_models_default(tiny_model: Path):
    pipe = Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32", prior="autoregressive")
    request = pipe.resolve(Request(prompt="a cat", seed=1))
    assert request.prior == "autoregressive" and request.prior_steps is None
    assert pipe.resolve(Request(prompt="a cat", prior="diffusion")).prior_steps == 3
    assert pipe.resolve(Request(prompt="a cat", prior_top_p=0.5)).prior_temperature == 0.9
    with pytest.raises(RequestError, match="prior_steps belongs to the diffusion prior"):
        pipe.resolve(Request(prompt="a cat", prior_steps=3))


def test_a_model_without_an_autoregressive_prior_says_so(tiny_model: Path, tmp_path: Path):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "plain")
    index = json.loads((folder / "model_index.json").read_text())
    del index["stages"]["autoregressive_prior"], index["autoregressive_prior"]
    (folder / "model_index.json").write_text(json.dumps(index))
    says = "tiny has no autoregressive prior, only diffusion: leave prior out, or use another model"
    with pytest.raises(RequestError, match=says):
        Unclip.from_pretrained(folder, device="cpu", prior="autoregressive")
    pipe = Unclip.from_pretrained(folder, device="cpu")
    with pytest.raises(RequestError, match=says):
        pipe.generate("a cat", prior="autoregressive")
    # One of both suffices.
    index["stages"]["autoregressive_prior"] = {"guidance": 2.0}
    index["autoregressive_prior"] = ["unclip", "AutoregressiveTransformer"]
    del index["stages"]["prior"], index["prior"], index["prior_scheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    pipe = Unclip.from_pretrained(folder, device="cpu", dtype="float32")
    [result] = pipe.generate("a cat", seed=1, size=16, steps=2)
    assert (result.request.prior, result.request.prior_guidance, result.request.prior_top_p) == (
        "autoregressive",
        2.0,
        1.0,
    )


def test_images_alone_and_in_a_batch(tiny: Unclip):
    prompts = ["a red cat", "a dog", "blue"]
    fields = {"prior": "autoregressive", "seed": 7, "prior_best_of": 2}
    together = tiny.generate(prompts, **fields)
    for prompt, result in zip(prompts, together, strict=True):
        [alone] = tiny.generate(prompt, **fields)
        assert difference(alone, result) <= 1


@pytest.mark.parametrize(
    "change, says",
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"guidance": "high"}, "guidance"),
        ({"dot_from": 2}, "dot_from"),
    ],
)
def test_damaged_settings_of_the_prior_are_one_line(tiny_model: Path, tmp_path: Path, change: dict, says: str):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "damaged")
    index = json.loads((folder / "model_index.json").read_text())
    index["stages"]["autoregressive_prior"] |= change
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"autoregressive_prior: {says} must be a number"):
        Unclip.from_pretrained(folder, device="cpu")
