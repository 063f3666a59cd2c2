"""Fine-tuning published checkpoints: LoRA files and whole checkpoints that load again, on every family."""

import csv
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers import difference
from tests.published import SIZES, add_image_encoder, published
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from tests.published_kandinsky_2_1 import SIZES_2_1, kandinsky_2_1_decoder, kandinsky_2_1_prior
from tests.published_stable_unclip import SIZES as SIZES_STABLE
from tests.published_stable_unclip import image_variation
from unclip import Unclip
from unclip.errors import InputError
from unclip.training import run
from unclip.training.fine_tuning import open_stage
from unclip.training.options import TrainingOptions
from unclip.training.tasks.fine_tuning import FineTunedDecoder
from unclip.training.tasks.options import FineTuningOptions

FAST = {"seed": 3, "steps": 3, "prior_steps": 2}
FIT = "batch_size = 8\nlr = 2e-2\nwarmup = 2\ndecay = 0.3\nema = 0.9\nworkers = 0\nweight_decay = 0.0"


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None:
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of blocks with captions."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for n in range(8):
        blocks = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(f"red cat {n}")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints: of each family, and the prior of another size."""
    folder = tmp_path_factory.mktemp("models")
    kandinsky_prior(SIZES_2_2["one"], folder).save_pretrained(folder / "kandinsky-2-2-prior")
    kandinsky_prior(SIZES_2_2["other"], folder).save_pretrained(folder / "other-prior")
    kandinsky_decoder(SIZES_2_2["one"]).save_pretrained(folder / "kandinsky")
    kandinsky_decoder(SIZES_2_2["one"], inpaint=True).save_pretrained(folder / "inpaint")
    kandinsky_2_1_prior(SIZES_2_1["one"], folder).save_pretrained(folder / "kandinsky-2-1-prior")
    kandinsky_2_1_decoder(SIZES_2_1["one"]).save_pretrained(folder / "kandinsky-2-1")
    image_variation(SIZES_STABLE["one"], folder).save_pretrained(folder / "stable")
    published(SIZES["one"], folder).save_pretrained(folder / "karlo")
    shutil.copytree(folder / "karlo", folder / "variations")
    add_image_encoder(folder / "variations", SIZES["one"])
    return folder


@pytest.fixture
def recipe(tmp_path: Path):
    """A function: lines of [finetune] -> a recipe file."""

    def write(lines: str = "", fit: str = FIT) -> Path:
        path = tmp_path / "fine.toml"
        path.write_text(f"[finetune]\nsamples = 2\nsample_steps = 2\n{lines}\n[finetune.fit]\n{fit}\n")
        return path

    return write


def train(stage: str, recipe: Path | None, out: Path, **options) -> Path:
    """Fine-tune quietly on the CPU."""
    return run.train(
        stage, recipe, out, TrainingOptions(**{"device": "cpu", "dtype": "float32", "quiet": True, **options})
    )


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


CONVOLUTIONS = '"conv1", "conv2", "conv_in", "conv_out", "conv_shortcut", "time_emb_proj"'
ALL = f'["to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj", {CONVOLUTIONS}]'


@pytest.fixture(scope="module")
def learned(images: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with LoRA layers in the whole U-Net of Kandinsky 2.2."""
    folder = tmp_path_factory.mktemp("learned")
    path = folder / "fine.toml"
    lines = f"alpha = 12\nsize = 16\ncheckpointing = false\nsamples = 2\nsample_steps = 2\ntargets = {ALL}"
    path.write_text(f"[finetune]\n{lines}\n[finetune.fit]\n{FIT}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        train("decoder", path, folder / "run", init=models / "kandinsky", lora=6, data=images, steps=60)
    return folder / "run"


def test_a_lora_learns_a_set_of_images(learned: Path, images: Path):
    found = losses(learned / "decoder")
    assert np.mean(found[-6:]) < np.mean(found[:3]) / 3
    sheet = Image.open(learned / "decoder" / "samples" / "0000060.png")
    assert sheet.size == (2 * 18 + 2, 2 * 18 + 2)  # two originals above two samples of 16 pixels


def test_a_merged_lora_equals_the_one_that_diffusers_applies(learned: Path, models: Path):
    path = learned / "decoder-lora.safetensors"
    applied = Unclip.from_pretrained(models / "kandinsky", "cpu", "float32")
    [without] = applied.generate("a cat", **FAST)
    unet = applied.model.decoder.network.unet
    with torch.inference_mode(False):
        unet.load_lora_adapter(str(path.parent), weight_name=path.name, prefix="unet")
    [expected] = applied.generate("a cat", **FAST)
    merged = Unclip.from_pretrained(models / "kandinsky", "cpu", "float32", lora=path)
    [found] = merged.generate("a cat", **FAST)
    assert difference(found, expected) <= 1 and difference(found, without) > 5
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert (about["base_model"], about["stage"], about["rank"], about["alpha"]) == ("kandinsky", "decoder", "6", "12")


FAMILIES = {
    "kandinsky": "decoder",
    "kandinsky-2-1": "decoder",
    "stable": "decoder",
    "variations": "decoder",
    "kandinsky-2-2-prior": "prior",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lora_of_each_family_loads(name: str, models: Path, images: Path, recipe, tmp_path: Path):
    stage = FAMILIES[name]
    made = train(stage, recipe(), tmp_path / "run", init=models / name, lora=2, data=images, steps=2)
    assert made == tmp_path / "run" / f"{stage}-lora.safetensors"
    base = models / ("kandinsky" if stage == "prior" else name)
    plain, changed = (Unclip.from_pretrained(base, "cpu", "float32", lora=lora) for lora in ((), made))
    if stage == "prior":
        results = [model.generate("red cat 3", **FAST)[0] for model in (plain, changed)]
    else:
        image = Image.open(images / "0.png")
        results = [model.vary(image, seed=1, steps=3)[0] for model in (plain, changed)]
    assert difference(*results) > 1 and changed.model.loras == (made.name,)


def test_a_prior_learns(models: Path, images: Path, recipe, tmp_path: Path):
    lines = 'targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_to_clip_embeddings"]'
    options = {"init": models / "kandinsky", "lora": 8, "data": images, "steps": 60}
    train("prior", recipe(lines), tmp_path / "run", **options)
    found = losses(tmp_path / "run" / "prior")
    assert np.mean(found[-6:]) < np.mean(found[:3]) / 3


def test_embeddings_are_noised_at_all_levels(models: Path):
    """Stable unCLIP's decoder learns every noise_level that a request may have."""
    options = TrainingOptions(init=models / "stable", device="cpu", dtype="float32")
    part = open_stage("decoder", options)
    part.load(whole=False)
    task = FineTunedDecoder(part, FineTuningOptions(drop=0.25), None)
    given: list[torch.Tensor] = []

    def network(x: torch.Tensor, t: torch.Tensor, image_embed: torch.Tensor, text_states: torch.Tensor):
        given.append(image_embed)
        return torch.zeros_like(x)

    count = 400
    images = torch.rand(1, 3, 16, 16).expand(count, -1, -1, -1) * 2 - 1
    with torch.no_grad():
        task.loss(network, images, ["red cat"] * count, torch.Generator().manual_seed(0))
        [embeds] = given
        dropped = (embeds == 0).all(1)
        assert 0.15 < dropped.float().mean() < 0.35
        noised, level_embed = embeds[~dropped].chunk(2, dim=1)  # b d, b d
        own = part.stage.network
        clean = task.encoder.encode_images(images[:1])
        every = own.augment(clean.expand(own.noise_levels, -1), torch.zeros(1), torch.arange(own.noise_levels))
    without, known = every.chunk(2, dim=1)  # levels d, levels d
    levels = torch.cdist(level_embed, known).argmin(1)
    torch.testing.assert_close(level_embed, known[levels])
    assert levels.min() < 50 and levels.max() >= 950 and 450 < levels.float().mean() < 550
    noise = (noised - without[levels]) / own.normalizer.std
    expected = (1 - own.alphas_cumprod[levels]) ** 0.5
    assert (noise.std(1) / expected).mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("stage", "name", "lora"),
    [("decoder", "kandinsky", 2), ("prior", "kandinsky", 2), ("decoder", "kandinsky", None), ("decoder", "stable", 2)],
)
def test_a_stopped_run_resumes_exactly(stage, name, lora, models, images, recipe, tmp_path: Path, monkeypatch):
    from unclip.training.tasks.fine_tuning import FineTunedPrior

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"init": models / name, "lora": lora, "data": images, "steps": 4}
    path = recipe("drop = 0.4")
    made = train(stage, path, whole, **options)
    task = FineTunedPrior if stage == "prior" else FineTunedDecoder
    with monkeypatch.context() as patch:
        calls, loss = [], task.loss

        def stopped(*args):
            calls.append(len(calls))
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
            return loss(*args)

        patch.setattr(task, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(stage, path, parts, **options)
    assert len(losses(parts / stage)) == 2 and not (parts / made.name).exists()
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        train(stage, path, parts, **options)
    again = train(stage, path, parts, **options, resume=True)
    first, second = (load_file(out / stage / "state.safetensors") for out in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert losses(whole / stage) == losses(parts / stage)
    files = [made] if made.is_file() else list(made.rglob("*.safetensors"))
    for file in files:
        first, second = (load_file(path) for path in (file, again.parent / file.relative_to(made.parent)))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_resumes_only_with_its_own_model(models: Path, images: Path, recipe, tmp_path: Path):
    options = {"data": images, "lora": 2, "steps": 1}
    train("prior", recipe(), tmp_path / "run", init=models / "kandinsky", **options)
    for changes, says in (
        ({"init": models / "kandinsky-2-1-prior"}, "has init = "),
        ({"init": models / "kandinsky", "lora": 3}, "does not fit this recipe"),
    ):
        with pytest.raises(InputError, match=says):
            train("prior", recipe(), tmp_path / "run", **{**options, **changes}, resume=True)


@pytest.mark.parametrize(
    ("stage", "name"), [("decoder", "kandinsky"), ("decoder", "variations"), ("prior", "kandinsky")]
)
def test_a_checkpoint_with_all_weights_trained_loads(stage, name, models, images, recipe, tmp_path: Path):
    made = train(stage, recipe(), tmp_path / "run", init=models / name, data=images, steps=2)
    given = {"prior": models / "kandinsky-2-2-prior"} if name == "kandinsky" else {}
    plain = Unclip.from_pretrained(models / name, "cpu", "float32", **given)
    base = (made, given) if stage == "decoder" else (models / name, {"prior": made})
    changed = Unclip.from_pretrained(base[0], "cpu", "float32", **base[1])
    image = Image.open(images / "0.png")
    if stage == "prior":
        results = [model.generate("red cat 3", **FAST)[0] for model in (plain, changed)]
    else:
        results = [model.vary(image, seed=1, steps=3)[0] for model in (plain, changed)]
    assert difference(*results) > 1
    state = load_file(tmp_path / "run" / stage / "state.safetensors")
    network = changed.model.decoder.network if stage == "decoder" else changed.model.prior.stage.network
    trained = {key.removeprefix("ema."): value for key, value in state.items() if key.startswith("ema.")}
    weights = dict(network.named_parameters())
    assert weights.keys() - trained.keys() <= {"transformer.clip_mean", "transformer.clip_std"}
    for key, value in trained.items():
        torch.testing.assert_close(weights[key], value.half().float())


def test_diffusers_loads_a_checkpoint_with_all_weights_trained(models: Path, images: Path, recipe, tmp_path: Path):
    from diffusers import KandinskyV22Pipeline

    made = train("decoder", recipe(), tmp_path / "run", init=models / "kandinsky", data=images, steps=1)
    ours = Unclip.from_pretrained(
        made, "cpu", "float32", prior=models / "kandinsky-2-2-prior"
    ).model.decoder.network.unet
    theirs = KandinskyV22Pipeline.from_pretrained(made, torch_dtype=torch.float32).unet.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


def test_checkpointing_changes_no_gradient(models: Path, images: Path, recipe, tmp_path: Path):
    for stage in ("decoder", "prior"):
        found = []
        for value in ("true", "false"):
            out = tmp_path / f"{stage}-{value}"
            options = {"init": models / "kandinsky", "lora": 2, "data": images, "steps": 3}
            train(stage, recipe(f"checkpointing = {value}"), out, **options)
            found.append(losses(out / stage))
        assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_bfloat16(models: Path, images: Path, recipe, tmp_path: Path):
    options = {"init": models / "kandinsky", "lora": 2, "data": images, "steps": 2}
    for stage in ("decoder", "prior"):
        both = []
        for dtype in ("float32", "bfloat16"):
            made = train(stage, recipe(), tmp_path / dtype, **options, dtype=dtype)
            both.append(losses(tmp_path / dtype / stage))
        assert both[0] == pytest.approx(both[1], rel=0.05)
        assert {tensor.dtype for tensor in load_file(made).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("stage", "name", "options", "says"),
    [
        ("decoder", "kandinsky", {"lora": 0}, "--lora 0: the rank must be at least 1"),
        ("decoder", "kandinsky", {"prior": "other-prior"}, "encoder_hid_dim is 16, and should be 24"),
        ("decoder", "inpaint", {"lora": 2}, "inpaint has an inpainting U-Net, .* fine-tune the decoder"),
        ("decoder", "kandinsky-2-2-prior", {"lora": 2}, "is a prior without a decoder"),
        ("decoder", "karlo", {"lora": 2}, "karlo has no image encoder: add one with --image-encoder"),
        ("prior", "stable", {"lora": 2}, "stable has no diffusion prior to train"),
        ("upsampler", "karlo", {"lora": 2}, "only the prior and the decoder of a model can be fine-tuned"),
        ("decoder", "kandinsky", {"lora": 2, "dtype": "float16"}, "training in float16 needs a GPU with CUDA"),
        ("decoder", None, {"lora": 2}, "--lora changes a model: name it by --init"),
        ("decoder", "missing", {"lora": 2}, "missing"),
        ("decoder", "kandinsky", {"lora": 2, "recipe": "stickers-cpu"}, r"has a table \[clip\], .* --recipe finetune"),
        ("decoder", "kandinsky", {"lora": 2, "data": None}, r"no \[data\] table; give --data FOLDER"),
        ("decoder", "kandinsky", {"lora": 2, "data": "nowhere"}, "nowhere: not a folder"),
        ("decoder", "kandinsky", {"lora": 2, "lines": "size = 50"}, "50x50 does not fit"),
        ("decoder", "variations", {"lora": 2, "lines": "size = 16"}, "images of 8 pixels only"),
        ("decoder", "kandinsky", {"lora": 2, "lines": 'targets = ["to_z"]'}, "ends with 'to_z'"),
        ("decoder", "kandinsky", {"lora": 2, "lines": "dropp = 1"}, "did you mean 'drop'"),
        ("decoder", "kandinsky", {"lora": 2, "image_encoder": "variations"}, "leave image_encoder out"),
        ("clip", None, {"prior": "other-prior"}, "belong to a published model"),
    ],
)
def test_bad_input_is_one_line(stage, name, options, says, models: Path, images: Path, recipe, tmp_path: Path):
    options = {"data": images, "steps": 1, **options}
    if "prior" in options:
        options["prior"] = models / options["prior"]
    path = options.pop("recipe", None) or recipe(options.pop("lines", ""))
    with pytest.raises(InputError, match=says) as caught:
        train(stage, path, tmp_path / "run", init=None if name is None else models / name, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_peft_is_named(models: Path, images: Path, tmp_path: Path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    with pytest.raises(InputError, match=r"needs peft: pip install 'unclip\[lora\]'"):
        train("decoder", None, tmp_path / "run", init=models / "kandinsky", lora=2, data=images)


def test_a_missing_bitsandbytes_is_named(models: Path, images: Path, recipe, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    path = recipe(fit=FIT + '\noptimizer = "adamw8bit"')
    with pytest.raises(InputError, match="needs bitsandbytes: pip install bitsandbytes"):
        train("decoder", path, tmp_path / "run", init=models / "kandinsky", lora=2, data=images)


def test_a_check_trains_nothing(models: Path, images: Path, recipe, tmp_path: Path):
    options = TrainingOptions(init=models / "kandinsky", lora=2, data=images, device="cpu", quiet=True)
    lines: list[str] = []
    run.check("decoder", recipe(), tmp_path / "run", options, lines.append)
    assert lines == [] and not (tmp_path / "run").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "bad" / "a.txt").write_text("a cat")
    with pytest.raises(InputError, match="1 bad file"):
        run.check(
            "decoder", recipe(), None, TrainingOptions(**{**vars(options), "data": tmp_path / "bad"}), lines.append
        )
    assert len(lines) == 1


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_karlo_takes_the_image_encoder_of_another_repository(stage, models, images, recipe, tmp_path: Path):
    options = {"init": models / "karlo", "image_encoder": models / "variations", "lora": 2, "data": images}
    made = train(stage, recipe(), tmp_path / "run", **options, steps=1)
    plain, changed = (Unclip.from_pretrained(models / "karlo", "cpu", "float32", lora=lora) for lora in ((), made))
    networks = [
        model.model.prior.stage.network if stage == "prior" else model.model.decoder.network
        for model in (plain, changed)
    ]
    first, second = (network.state_dict() for network in networks)
    changed_names = {key for key in first if not torch.equal(first[key], second[key])}
    assert changed_names and all(".to_" in key or ".add_" in key for key in changed_names)


def test_the_bundled_model_takes_a_lora(images: Path, recipe, tmp_path: Path):
    made = train("decoder", recipe(), tmp_path / "run", init="stickers", lora=2, data=images, steps=1)
    assert Unclip.from_pretrained("stickers", "cpu", "float32", lora=made).model.loras == ("decoder-lora.safetensors",)
