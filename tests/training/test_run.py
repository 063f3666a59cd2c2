"""From a recipe to a checkpoint: every stage resumes exactly, and the trained chain generates images."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unclip import Unclip
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.networks import load_network
from unclip.diffusion.noise import make_generators
from unclip.errors import CheckpointError, DataError, InputError, RecipeError, TrainingError
from unclip.inference.stage_inputs import StageInputs
from unclip.system.files import read_json
from unclip.training import run, sources
from unclip.training.recipe_tables import STAGES
from unclip.training.run import TrainingOptions
from unclip.training.stages import NEED_CLIP
from unclip.training.tasks.autoregressive_prior import AutoregressivePriorTask
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.inpainting_decoder import InpaintingDecoderTask
from unclip.training.tasks.prior import PriorTask
from unclip.training.tasks.second_upsampler import SecondUpsamplerTask
from unclip.training.tasks.upsampler import UpsamplerTask

TASKS = {
    "clip": ClipTask,
    "prior": PriorTask,
    "autoregressive_prior": AutoregressivePriorTask,
    "decoder": DecoderTask,
    "inpainting_decoder": InpaintingDecoderTask,
    "upsampler": UpsamplerTask,
    "second_upsampler": SecondUpsamplerTask,
}


def train(stage: str, recipe: Path, out: Path, **options) -> Path:
    """Train quietly on the CPU."""
    return run.train(stage, recipe, out, TrainingOptions(**{"device": "cpu", "quiet": True, **options}))


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None:
    pass


@pytest.fixture(scope="module")
def chain(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole chain, two steps a stage."""
    out = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        train("all", tiny_recipe, out, steps=2)
    return out


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "loss.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def step_of(folder: Path) -> int:
    with safe_open(folder / "state.safetensors", "pt") as file:
        return int(file.metadata()["progress"].split('"step": ')[1].split(",")[0])


def assert_same(a: Path, b: Path, stage: str) -> None:
    """The state, the curve and the exported networks of a stage are the same in two runs, bit for bit."""
    first, second = (load_file(out / stage / "state.safetensors") for out in (a, b))
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]
    assert step_of(a / stage) == step_of(b / stage)
    assert curve(a / stage) == curve(b / stage)
    files = [path.relative_to(a) for path in (a / "model").rglob("*.*")]
    assert files and all((a / file).read_bytes() == (b / file).read_bytes() for file in files)


def write_decoder(model: Path, folder: Path) -> None:
    """Write a checkpoint folder with the CLIP and the decoder of a model, and no other stages."""
    for part in ("clip", "decoder", "text_proj", "decoder_text", "decoder_scheduler"):
        shutil.copytree(model / part, folder / part)
    index = read_json(model / "model_index.json")
    index = {key: value for key, value in index.items() if (folder / key).exists() or not isinstance(value, list)}
    index["stages"] = {"decoder": index["stages"]["decoder"]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_stage_resumes_exactly(stage, chain, tiny_recipe, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        if stage == "inpainting_decoder":
            write_decoder(chain / "model", out / "model")
        elif stage in NEED_CLIP:
            shutil.copytree(chain / "model" / "clip", out / "model" / "clip")
    train(stage, tiny_recipe, whole, steps=4)
    with monkeypatch.context() as patch:
        task, calls = TASKS[stage], []
        loss = task.loss

        def stopped(*args):
            calls.append(len(calls))
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
            return loss(*args)

        patch.setattr(task, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(stage, tiny_recipe, parts, steps=4)
    assert step_of(parts / stage) == len(curve(parts / stage)) == 2
    index = parts / "model" / "model_index.json"
    assert not index.exists() or stage not in read_json(index)["stages"]  # nothing half-trained is exported
    train(stage, tiny_recipe, parts, steps=4, resume=True)
    assert_same(whole, parts, stage)


PROGRAM = """
import os, signal, sys
from unclip.cli.main import main
from unclip.training.tasks.clip import ClipTask
loss, calls = ClipTask.loss, []
def act(*args):
    calls.append(0)
    if len(calls) == int(sys.argv[1]):
        {act}
    return loss(*args)
ClipTask.loss = act
sys.modules["torch.utils.tensorboard"] = None
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_and_then_terminated_process_resumes_exactly(tiny_recipe, tmp_path):
    """SIGKILL after a save; then SIGTERM to the whole process group, as a batch system sends it, workers included."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny_recipe.read_text().replace("workers = 0", "workers = 1\nsave_minutes = 0"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def process(act: str, step: int, *more: str) -> subprocess.CompletedProcess:
        words = ["train", "clip", "--recipe", recipe, "--out", parts, "--steps", "7", "--device", "cpu", "--quiet"]
        return subprocess.run(
            [sys.executable, "-c", PROGRAM.format(act=act), str(step), *map(str, words), *more],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell starts background jobs
            timeout=600,
        )

    assert process("os.kill(os.getpid(), signal.SIGKILL)", 4).returncode == -signal.SIGKILL
    assert step_of(parts / "clip") == 3
    done = process("os.killpg(0, signal.SIGTERM)", 2, "--resume")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1:]) == (130, "", ["unclip: interrupted"])
    assert step_of(parts / "clip") == 5
    train("clip", recipe, parts, steps=7, resume=True)
    train("clip", recipe, whole, steps=7)
    assert_same(whole, parts, "clip")


def test_the_trained_chain_generates_images(chain: Path):
    pipe = Unclip.from_pretrained(chain / "model", device="cpu")
    assert (pipe.model.name, pipe.model.sizes) == ("tiny", [(16, 16), (32, 32), (128, 128)])
    results = [pipe.generate("colour number 3", seed=0, size=size)[0] for size in (None, 128)]
    assert [result.image.size for result in results] == [(32, 32), (128, 128)]
    index = read_json(chain / "model" / "model_index.json")
    assert index["stages"]["decoder"] == {
        "sampler": "dpmpp-2m",
        "steps": 2,
        "guidance": 2.0,
        "size": [16, 16],
        "codec": {"type": "pixel_unshuffle", "factor": 4},
        "shown_above": 1.0,
    }
    assert index["stages"]["second_upsampler"] == {
        "sampler": "ddim",
        "steps": 1,
        "guidance": 1.0,
        "size": [128, 128],
        "codec": {"type": "pixel_unshuffle", "factor": 4},
    }
    assert not (chain / "model" / "vocabulary.json").exists()  # captions of own images are no closed set of words


def test_the_model_holds_the_averaged_weights(chain: Path):
    state = load_file(chain / "upsampler" / "state.safetensors")
    for name, value in load_network(chain / "model" / "upsampler").state_dict().items():
        assert torch.equal(value, state[f"ema.unet.{name}"].half().float())


def test_the_token_embedding_of_clip_is_stored_once(chain: Path):
    assert read_json(chain / "model" / "decoder_text" / "config.json")["_token_embedding"] == "clip"
    model = load_checkpoint(chain / "model", torch.device("cpu"), torch.float32)
    encoder = model.decoder.network.text_encoder.transformer
    assert torch.equal(encoder.token_embedding.weight, model.clip.text.token_embedding.weight)
    assert not torch.equal(encoder.positional_embedding, model.clip.text.positional_embedding)  # the rest is trained


def test_a_new_clip_removes_the_decoder_that_used_the_one_before(chain, tiny_recipe, tmp_path, capsys):
    for name in ("model", "clip", "decoder"):
        shutil.copytree(chain / name, tmp_path / name)
    train("clip", tiny_recipe, tmp_path, steps=2, resume=True)  # exports the same weights again
    index = tmp_path / "model" / "model_index.json"
    assert read_json(index) == read_json(chain / "model" / "model_index.json")
    train("clip", tiny_recipe, tmp_path, steps=4, resume=True)
    assert "removed the decoder" in capsys.readouterr().err
    names = {"decoder", "text_proj", "decoder_text", "decoder_scheduler", "inpainting_decoder"}
    assert not names & (read_json(index).keys() | read_json(index)["stages"].keys())
    assert {"clip", "prior", "upsampler"} < read_json(index).keys()
    with pytest.raises(CheckpointError, match="lists no decoder: train it"):
        load_checkpoint(tmp_path / "model", torch.device("cpu"), torch.float32)
    with pytest.raises(CheckpointError, match="has token embedding = "):  # it is not trained, nor in the state
        train("decoder", tiny_recipe, tmp_path, steps=4, resume=True)
    shutil.rmtree(tmp_path / "decoder")
    train("decoder", tiny_recipe, tmp_path, steps=1)
    load_checkpoint(tmp_path / "model", torch.device("cpu"), torch.float32)
    assert read_json(tmp_path / "model" / "decoder_text" / "config.json")["_token_embedding"] == "clip"


def test_a_text_encoder_of_another_clip_keeps_its_own_token_embedding(chain: Path, tiny_recipe: Path, tmp_path: Path):
    train("clip", tiny_recipe, tmp_path, steps=4)
    train("decoder", tiny_recipe, tmp_path, steps=1, init=chain / "model")
    assert "_token_embedding" not in read_json(tmp_path / "model" / "decoder_text" / "config.json")
    name = "transformer.token_embedding.weight"
    old, new = (load_network(out / "model" / "decoder_text").state_dict()[name] for out in (chain, tmp_path))
    assert torch.equal(old, new)


def test_each_stage_writes_its_curve_samples_and_states(chain: Path):
    for stage in STAGES:
        names = {path.name for path in (chain / stage).iterdir()}
        assert names >= {"loss.csv", "loss.png", "state.safetensors", "portable.safetensors"}
        assert not [name for name in names if name.endswith(".tmp")]
        assert (chain / stage / "samples" / "0000002.png").exists() == (stage.endswith(("decoder", "upsampler")))


def test_a_chain_resumes_with_the_stages_that_it_has_reached(chain: Path, tiny_recipe: Path, tmp_path: Path):
    shutil.copytree(chain, tmp_path, dirs_exist_ok=True)
    for stage in ("decoder", "upsampler"):
        shutil.rmtree(tmp_path / stage)
    for name in ("decoder", "text_proj", "upsampler"):
        shutil.rmtree(tmp_path / "model" / name)
    (tmp_path / "prior" / "state.safetensors").unlink()  # the portable one suffices
    train("all", tiny_recipe, tmp_path, steps=2, resume=True)
    for stage in ("clip", "decoder", "upsampler"):
        first, second = (load_file(out / stage / "state.safetensors") for out in (chain, tmp_path))
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_second_upsampler_learns_from_the_images_of_the_first(chain: Path, tiny_recipe: Path, tmp_path: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tiny_recipe.read_text().replace("upsampled = 0.0", "upsampled = 0.5"))
    with pytest.raises(RecipeError, match="needs a trained upsampler in .*: run `unclip train upsampler` first"):
        train("second_upsampler", recipe, tmp_path / "run", steps=1)
    shutil.copytree(chain / "model", tmp_path / "run" / "model")
    train("second_upsampler", recipe, tmp_path / "run", steps=2)
    losses = [[row["loss"] for row in curve(out / "second_upsampler")] for out in (tmp_path / "run", chain)]
    assert losses[0] != losses[1]
    index = tmp_path / "run" / "model" / "model_index.json"
    index.write_text(index.read_text().replace("32,\n        32", "64,\n        64"))
    with pytest.raises(RecipeError, match="makes images of 64 px, not small = 32"):
        train("second_upsampler", recipe, tmp_path / "run", steps=3, resume=True)


@pytest.mark.parametrize("stage", ["prior", "all"])
def test_a_run_is_not_started_over_by_mistake(stage: str, chain: Path, tiny_recipe: Path):
    first = chain / ("clip" if stage == "all" else stage)
    before = (first / "state.safetensors").read_bytes()
    with pytest.raises(InputError) as caught:
        train(stage, tiny_recipe, chain, steps=2)
    assert str(caught.value) == f"{first} holds a run already: add --resume to continue, or choose another --out"
    assert (first / "state.safetensors").read_bytes() == before


def test_sizes_that_do_not_match_are_refused_before_any_training(tiny_recipe: Path, tmp_path: Path):
    recipe = tmp_path / "odd.toml"
    recipe.write_text(tiny_recipe.read_text().replace("small = 16", "small = 8"))
    with pytest.raises(RecipeError, match="small = 8 must equal"):
        train("all", recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_images_are_listed_once(tiny_recipe: Path, tmp_path: Path, monkeypatch):
    opened, open_source = [], sources.open_source
    monkeypatch.setattr(sources, "open_source", lambda *args: (opened.append(args[0]), open_source(*args))[1])
    train("all", tiny_recipe, tmp_path, steps=1)
    assert [table["kind"] for table in opened] == ["folder"]


def test_a_stage_uses_its_own_data_table(tiny_recipe: Path, tmp_path: Path, monkeypatch):
    opened, open_source = [], sources.open_source
    monkeypatch.setattr(sources, "open_source", lambda *args: (opened.append(args[0]), open_source(*args))[1])
    recipe = tmp_path / "own.toml"
    text = re.sub(
        r"\[data\]\n(.*\n)*?\n", '[data]\nkind = "scenes"\n\n', tiny_recipe.read_text(encoding="utf-8"), count=1
    )
    recipe.write_text(text + "\n[clip.data]\nalike = 4\nnouns = ['cat', 'dog']\n", encoding="utf-8")
    train("clip", recipe, tmp_path / "run", steps=1)
    train("upsampler", recipe, tmp_path / "run", steps=1)
    assert opened == [{"kind": "scenes", "alike": 4, "nouns": ("cat", "dog")}, {"kind": "scenes"}]
    words = set(json.loads((tmp_path / "run" / "model" / "vocabulary.json").read_text(encoding="utf-8"))["words"])
    assert {"cat", "kitten", "pink"} <= words and not words & {"penguin", "apple"}  # the words of all stages
    recipe.write_text(text + "\n[clip.data]\nalyke = 4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"own.toml \[data\] and \[clip.data\]: .* did you mean 'alike'"):
        train("clip", recipe, tmp_path / "other")


def test_a_stage_starts_from_another_models_weights(chain: Path, tiny_recipe: Path, tmp_path: Path):
    recipe = tmp_path / "still.toml"
    text = tiny_recipe.read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"lr = [^\n]*", "lr = 1e-12", text), encoding="utf-8")
    train("decoder", recipe, tmp_path / "run", steps=1, init=chain / "model")
    for component in ("clip", "decoder", "text_proj"):
        old, new = (load_network(out / component).state_dict() for out in (chain / "model", tmp_path / "run" / "model"))
        assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)
    train("prior", recipe, tmp_path / "same", steps=1, init=chain / "model")
    old, new = (load_network(out / "prior").state_dict() for out in (chain / "model", tmp_path / "same" / "model"))
    assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)
    # A prior measures the embeddings of the CLIP that it has now: the weights may come from one with another.
    again = tmp_path / "again"
    train("clip", tiny_recipe, again, steps=4)
    train("prior", recipe, again, steps=1, init=chain / "model")
    old, new = (load_network(out / "prior").state_dict() for out in (chain / "model", again / "model"))
    changed = {key for key in old if not torch.allclose(old[key], new[key], atol=1e-6)}
    assert changed == {"clip_mean", "clip_std"}
    recipe.write_text(re.sub(r"cross_attention_dim = \d+", "cross_attention_dim = 40", text), encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not have the recipe's sizes"):
        train("decoder", recipe, tmp_path / "other", device="cpu", init=chain / "model")


def changed(recipe: Path, to: Path, table: str, line: str) -> Path:
    """A recipe with a line at the top of a table, there or new."""
    text, head = recipe.read_text(encoding="utf-8"), f"[{table}]\n"
    text = text.replace(head, head + line) if head in text else f"{text}\n{head}{line}"
    to.write_text(text, encoding="utf-8")
    return to


@pytest.mark.parametrize("stage", ["decoder", "upsampler"])
def test_a_stage_continues_only_with_the_prediction_of_its_weights(
    chain: Path, tiny_recipe: Path, tmp_path: Path, stage: str
):
    line = 'prediction = "v_prediction"\n'
    recipe = changed(tiny_recipe, tmp_path / "velocity.toml", f"{stage}.task", line)
    theirs = {"decoder": "sample", "upsampler": "difference"}[stage]
    out = tmp_path / "run"
    with pytest.raises(RecipeError, match=f'predicts "{theirs}".* set prediction = "{theirs}"'):
        train("all", recipe, out, steps=1, init=chain / "model")
    assert not out.exists()  # refused before any stage trains
    train(stage, tiny_recipe, out, steps=1, init=chain / "model")
    with pytest.raises(CheckpointError, match=f"has prediction = '{theirs}', and the recipe 'v_prediction'"):
        train(stage, recipe, out, steps=2, resume=True)


def test_a_model_with_a_prediction_that_no_recipe_has(chain: Path, tiny_recipe: Path, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(chain / "model", model)
    index = read_json(model / "model_index.json")
    del index["stages"]["upsampler"]
    (model / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    schedule = model / "upsampler_scheduler" / "scheduler_config.json"
    schedule.write_text(schedule.read_text(encoding="utf-8").replace('"sample"', '"epsilon"'), encoding="utf-8")
    with pytest.raises(RecipeError, match='predicts "epsilon", .* "difference": train it without --init'):
        train("upsampler", tiny_recipe, tmp_path / "run", steps=1, init=model)


def test_settings_that_no_shape_shows_must_be_those_of_the_weights(chain: Path, tiny_recipe: Path, tmp_path: Path):
    text = tiny_recipe.read_text(encoding="utf-8")
    recipe = tmp_path / "groups.toml"
    recipe.write_text(text.replace("norm_num_groups = 8", "norm_num_groups = 4"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="upsampler norm_num_groups = 8, and the recipe 4"):
        train("upsampler", recipe, tmp_path / "run", steps=1, init=chain / "model")
    train("upsampler", tiny_recipe, tmp_path / "other", steps=1)
    with pytest.raises(CheckpointError, match="upsampler norm_num_groups = 8, and the recipe 4"):
        train("upsampler", recipe, tmp_path / "other", steps=2, resume=True)


def test_an_upsampler_older_than_the_difference_is_not_resumed_as_one(tiny_recipe: Path, tmp_path: Path):
    train("upsampler", tiny_recipe, tmp_path, steps=1)
    state = tmp_path / "upsampler" / "state.safetensors"
    with safe_open(state, "pt") as file:
        progress = {"progress": file.metadata()["progress"]}
    save_file(load_file(state), state, progress)
    with pytest.raises(CheckpointError, match="prediction = 'sample', and the recipe 'difference'"):
        train("upsampler", tiny_recipe, tmp_path, steps=2, resume=True)


def test_a_trained_upsampler_adds_the_difference(chain: Path):
    upsampler, _ = load_checkpoint(chain / "model", torch.device("cpu"), torch.float32).upsamplers
    enlarged = torch.rand(1, *upsampler.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    output = upsampler.codec.encode(upsampler.run(StageInputs({"enlarged": enlarged}), make_generators([0])))
    assert 0 < (output - enlarged).abs().mean() < 0.05  # two training steps from no difference


def test_initial_weights_are_checked_before_the_first_stage(chain: Path, tiny_recipe: Path, tmp_path: Path):
    recipe = tmp_path / "wide.toml"
    text = tiny_recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("cross_attention_dim = 24", "cross_attention_dim = 40"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="the decoder of .* does not have the recipe's sizes"):
        train("all", recipe, tmp_path / "run", steps=1, init=chain / "model")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def cut_off(pictures: Path, tiny_recipe: Path, tmp_path: Path) -> Path:
    """The tiny recipe for a copy of the images, two of which have good headers but are cut off."""
    shutil.copytree(pictures, tmp_path / "images")
    for n in (3, 7):
        path = tmp_path / "images" / f"{n}.png"
        path.write_bytes(path.read_bytes()[:44])
    recipe = tmp_path / "cut.toml"
    recipe.write_text(tiny_recipe.read_text(encoding="utf-8").replace(str(pictures), str(tmp_path / "images")))
    return recipe


def test_images_that_are_cut_off_are_passed_over_in_every_stage(cut_off: Path, tmp_path: Path, capsys):
    model = train("all", cut_off, tmp_path / "run", steps=3, skip_bad=True, quiet=False)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unclip: note: ")]
    assert notes.count("unclip: note: files passed over during the run: 2") == len(STAGES)
    assert sum("passed over: cannot read" in note for note in notes) == 2 * len(STAGES)
    assert Unclip.from_pretrained(model, device="cpu").generate("colour number 3", seed=0, steps=1)


def test_an_image_that_is_cut_off_ends_the_run_and_mending_it_resumes_it(cut_off, pictures, tiny_recipe, tmp_path):
    with pytest.raises(DataError, match=r"[37].png .*--skip-bad.*(saved for --resume|no step has been saved)$"):
        train("clip", cut_off, tmp_path / "run", steps=3)
    shutil.copytree(pictures, tmp_path / "images", dirs_exist_ok=True)
    train("clip", cut_off, tmp_path / "run", steps=3, resume=(tmp_path / "run" / "clip" / "state.safetensors").exists())
    train("clip", tiny_recipe, tmp_path / "whole", steps=3)
    assert_same(tmp_path / "whole", tmp_path / "run", "clip")


def test_old_temporary_files_of_the_checkpoint_are_removed(tiny_recipe: Path, tmp_path: Path):
    """Those of another run that is writing now are not."""
    folder = tmp_path / "model" / "clip"
    folder.mkdir(parents=True)
    old, new = (folder / f".unclip-{digit * 16}.tmp" for digit in "01")
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    train("clip", tiny_recipe, tmp_path, steps=1)
    assert new.exists() and not old.exists()


def test_out_of_memory_outside_the_loop(tiny_recipe: Path, tmp_path: Path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UpsamplerTask, "sample_grid", fail)
    with pytest.raises(TrainingError, match="^the upsampler ran out of memory: lower batch_size, or use a smaller"):
        train("upsampler", tiny_recipe, tmp_path, steps=1)
    assert step_of(tmp_path / "upsampler") == 1


def test_a_stage_needs_the_stages_before_it(tiny_recipe: Path, tmp_path: Path):
    for stage in ("prior", "decoder"):
        with pytest.raises(RecipeError, match=f"the {stage} needs a trained CLIP in .*: run `unclip train clip` first"):
            train(stage, tiny_recipe, tmp_path)
    with pytest.raises(RecipeError, match=r"has no table \[vae\]"):
        train("vae", tiny_recipe, tmp_path)
    assert not list(tmp_path.iterdir())
