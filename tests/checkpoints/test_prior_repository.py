"""Checkpoints of several repositories: downloaded together, used without a network, checked and shown as one."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.hub_server import Hub, serve
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from unclip import Unclip
from unclip.cli.main import main

DECODER, PRIOR = "owner/kandinsky-2-2-decoder", "kandinsky-community/kandinsky-2-2-prior"
FAST = ["--steps", "2", "--prior-steps", "2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The folders of a decoder and its prior."""
    folder, size = tmp_path_factory.mktemp("models"), SIZES_2_2["one"]
    kandinsky_prior(size, folder).save_pretrained(folder / "kandinsky-2-2-prior")
    kandinsky_decoder(size, inpaint=True).save_pretrained(folder / "decoder")
    return folder / "decoder", folder / "kandinsky-2-2-prior"


@pytest.fixture
def hub(folders, tmp_path, monkeypatch):
    """Both repositories on a local server, and an empty cache."""
    from huggingface_hub import constants

    decoder, prior = folders
    with serve(Hub(DECODER, decoder, others=[Hub(PRIOR, prior)])) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_decoder_is_shown_and_checked_with_its_prior(folders, capsys) -> None:
    decoder, prior = folders
    assert main(["models", "show", str(decoder)]) == 0
    out = capsys.readouterr().out
    assert "family      Kandinsky 2.2, decoder with inpainting inputs\n" in out
    assert f"prior       {prior}\n" in out and "sizes       32x32 and any multiple of 4\n" in out
    for part in ("unet ", "movq ", "prior/prior ", "prior/image_encoder ", "scheduler ", "prior/scheduler "):
        assert f"\n{part}" in out
    assert main(["models", "check", str(decoder)]) == 0
    out = capsys.readouterr().out
    assert "prior/prior " in out and "WRONG" not in out


def test_a_damaged_prior_is_found(folders, tmp_path, capsys) -> None:
    decoder, prior = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders)
    file = next((prior / "prior").glob("*.safetensors"))
    tensors = load_file(file)
    tensors.pop("clip_std")
    save_file(tensors, file)
    assert main(["models", "check", str(decoder)]) == 2
    assert "WRONG  prior/prior " in capsys.readouterr().out
    shutil.rmtree(prior)
    assert main(["models", "check", str(decoder)]) == 2
    assert "WRONG  prior " in capsys.readouterr().out
    assert main(["models", "show", str(decoder)]) == 0
    assert "prior       the prior of decoder is missing" in capsys.readouterr().out


def test_a_prior_alone_is_no_model(folders, capsys) -> None:
    assert main(["generate", "a cat", "--model", str(folders[1])]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is a prior without a decoder" in error


def test_another_prior_and_loras_are_recorded(folders, tmp_path, capsys) -> None:
    import torch

    from unclip.images import metadata

    decoder, prior = folders
    other = shutil.copytree(prior, tmp_path / "other-prior")
    unet = Unclip.from_pretrained(decoder, "cpu", "float32").model.decoder.network.unet
    name = "down_blocks.1.attentions.0.to_q"
    outputs, inputs = unet.get_submodule(name).weight.shape
    pair = {f"{name}.lora_A.weight": torch.randn(2, inputs), f"{name}.lora_B.weight": torch.randn(outputs, 2)}
    save_file(pair, tmp_path / "style.safetensors")
    lora, path = f"{tmp_path / 'style.safetensors'}:0.5", tmp_path / "cat.png"
    given = ["--model", str(decoder), *FAST, "--seed", "1"]
    assert main(["generate", "a cat", *given, "--prior", str(other), "--lora", lora, "-o", str(path)]) == 0
    record = metadata.read(path)
    assert (record["prior"], record["loras"]) == ("other-prior", ["style.safetensors:0.5"])
    capsys.readouterr()
    assert main(["reproduce", str(path), "--model", str(decoder), "--prior", str(other), "--lora", lora]) == 0
    assert "note" not in capsys.readouterr().err
    main(["reproduce", str(path), "--model", str(decoder)])
    notes = capsys.readouterr().err.splitlines()
    assert notes[:2] == [
        "unclip: note: the image was made with --lora 'style.safetensors:0.5'",
        "unclip: note: the image was made with --prior 'other-prior'",
    ]
    assert main(["generate", "a cat", *given, "-o", str(tmp_path / "plain.png")]) == 0
    assert not {"prior", "loras"} & metadata.read(tmp_path / "plain.png").keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora", "none.safetensors:0.5"], "no LoRA file 'none.safetensors'"),
        (["--lora", "none.safetensors:nan"], "the scale of LoRA none.safetensors is nan"),
        (["--prior", "none"], "no model 'none'"),
        (["--model", "stickers", "--prior", "stickers"], "has a prior of its own"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys) -> None:
    assert main(["generate", "a cat", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_download_fetches_the_prior_too_and_then_needs_no_network(hub, capsys, monkeypatch) -> None:
    assert main(["models", "download", DECODER]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "kandinsky-2-2-decoder" in lines[0] and "kandinsky-2-2-prior" in lines[1]
    requests = len(hub.requests)
    pipe = Unclip.from_pretrained(DECODER, "cpu", "float32")
    assert len(hub.requests) == requests
    assert pipe.generate("a cat", steps=2, prior_steps=2)[0].model == DECODER
    assert main(["models", "check", DECODER]) == 0
    assert "prior/hashes" in capsys.readouterr().out


def test_a_model_of_the_hub_finds_its_prior(hub) -> None:
    [result] = Unclip.from_pretrained(DECODER, "cpu", "float32").generate("a cat", steps=2, prior_steps=2)
    assert result.image.size == (32, 32) and result.prior is None


def test_a_prior_alone_is_downloaded_with_a_note(hub, capsys) -> None:
    assert main(["models", "download", PRIOR]) == 0
    assert "note: this is a prior alone" in capsys.readouterr().err
