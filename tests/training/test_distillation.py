"""Distillation of tiny checkpoints of every layout: what the student learns, and how its checkpoint is sampled."""

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers import box_mask, difference, kept, noise_image
from tests.published import SIZES, add_image_encoder, published
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from tests.published_stable_unclip import SIZES as SIZES_STABLE
from tests.published_stable_unclip import image_variation
from unclip import Unclip
from unclip.checkpoints.distilled import DistilledStage, with_distilled
from unclip.diffusion.noise import make_generators
from unclip.errors import InputError, RequestError
from unclip.inference.run_context import Run, SamplingOptions
from unclip.modes.distilled import distillation_notes
from unclip.requests.request import Request
from unclip.training import run
from unclip.training.options import TrainingOptions
from unclip.training.tasks.distillation import ConsistencyDistillation, GuidanceDistillation

PROMPTS = ("a cat", "a dog", "a red cat", "a blue dog on red")
FIT = "batch_size = 4\nlr = 3e-3\nwarmup = 5\ndecay = 0.5\nema = 0.9\nworkers = 0\nweight_decay = 0.0"
STILL = "batch_size = 2\nlr = 0.0\nworkers = 0"  # the student stays as it is


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None:
    pass


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n\n".join(PROMPTS))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for n, prompt in enumerate(PROMPTS):
        # The same in every run: with one image in ten, rounded weights of the random networks change an image much.
        pixels = np.random.default_rng(n).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(prompt)
    return folder


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints of every family."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, folder / "native")
    few = shutil.copytree(tiny_model, folder / "few") / "decoder_scheduler" / "scheduler_config.json"
    few.write_text(json.dumps(json.loads(few.read_text()) | {"num_train_timesteps": 20}))
    kandinsky_prior(SIZES_2_2["one"], folder).save_pretrained(folder / "kandinsky-2-2-prior")
    kandinsky_decoder(SIZES_2_2["one"]).save_pretrained(folder / "kandinsky")
    kandinsky_decoder(SIZES_2_2["one"], inpaint=True).save_pretrained(folder / "inpaint")
    image_variation(SIZES_STABLE["one"], folder).save_pretrained(folder / "stable")
    published(SIZES["one"], folder).save_pretrained(folder / "karlo")
    shutil.copytree(folder / "karlo", folder / "variations")
    add_image_encoder(folder / "variations", SIZES["one"])
    return folder


@pytest.fixture
def recipe(tmp_path: Path):
    """A function: lines of [distill] -> a recipe file."""

    def write(lines: str = "", fit: str = FIT) -> Path:
        path = tmp_path / "distill.toml"
        lines = lines if "samples" in lines else f"samples = 0\n{lines}"
        path.write_text(f"[distill]\ngeneration_steps = 3\n{lines}\n[distill.fit]\n{fit}\n")
        return path

    return write


def train(stage: str, kind: str, teacher: Path, recipe: Path | None, out: Path, **options) -> Path:
    """Distil quietly on the CPU."""
    given = {"device": "cpu", "dtype": "float32", "quiet": True, "distill": kind, "teacher": teacher, **options}
    return run.train(stage, recipe, out, TrainingOptions(**given))


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def load(folder: Path, models: Path | None = None) -> Unclip:
    given = {} if models is None else {"prior": models / "kandinsky-2-2-prior"}
    return Unclip.from_pretrained(folder, "cpu", "float32", **given)


def embeds(pipe: Unclip, **options) -> tuple[Tensor, list[int]]:
    """Embeddings of the prompts from eight seeds each, and the rows of each evaluation of the prior's network."""
    rows: list[int] = []
    many = [prompt for prompt in PROMPTS for _ in range(8)]
    model = pipe.model
    hook = model.prior.stage.network.register_forward_hook(lambda _module, given, _output: rows.append(len(given[0])))
    try:
        run = Run(make_generators(range(len(many))), model.device, SamplingOptions(**options))
        found = model.sample_prior(model.encode_text(many), model.encode_text([""] * len(many)), run)
    finally:
        hook.remove()
    return found, rows


def test_a_student_learns_the_guidance_of_its_teacher(models: Path, prompts: Path, recipe, tmp_path: Path):
    made = train("prior", "guidance", models / "native", recipe(), tmp_path / "run", data=prompts, steps=80)
    found = losses(tmp_path / "run" / "prior")
    assert np.mean(found[-8:]) < found[0] / 10

    teacher, student = load(models / "native"), load(made)
    guided, both = embeds(teacher)  # guidance 1.5, by default
    plain, _ = embeds(teacher, prior_guidance=1.0)
    learned, single = embeds(student)
    assert both == [64, 64, 64] and single == [32, 32, 32]
    assert (learned - guided).square().mean() < (plain - guided).square().mean() / 4
    # The other stages and all defaults are the teacher's.
    assert student.resolve(Request(prompt="a cat")).prior_guidance == 1.5
    assert (student.model.decoder.distillation, student.model.prior.stage.steps) == (None, 3)


def test_a_student_learns_to_need_one_step(models: Path, prompts: Path, recipe, tmp_path: Path):
    lines = "segments = 1\nsample_steps = 1"
    made = train("prior", "consistency", models / "native", recipe(lines), tmp_path / "run", data=prompts, steps=80)
    teacher, student = load(models / "native"), load(made)
    many, _ = embeds(teacher, prior_steps=32)
    one, _ = embeds(teacher, prior_steps=1)
    learned, rows = embeds(student)
    assert rows == [32] and student.model.prior.stage.sampler == "consistency"
    assert (learned - many).square().mean() < (one - many).square().mean() / 4
    again, rows = embeds(student, prior_steps=4)
    assert rows == [32] * 4 and not torch.equal(again, learned)


FAMILIES = {  # name: source of the samples
    "native": "teacher",
    "karlo": "teacher",
    "kandinsky": "teacher",
    "inpaint": "teacher",
    "stable": "images",
    "variations": "images",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_without_guidance_a_student_equals_its_teacher(name: str, models, prompts, images, recipe, tmp_path: Path):
    """At first student and teacher have the same weights: with guidance near 1, no input, mask or codec may differ."""
    source = FAMILIES[name]
    path = recipe(f'guidance = [1.0, 1.00001]\nsource = "{source}"\nknown = 0.9', STILL)
    options = {"data": prompts if source == "teacher" else images, "steps": 2}
    made = train("decoder", "guidance", models / name, path, tmp_path / "run", **options)
    assert max(losses(tmp_path / "run" / "decoder")) < 1e-9
    latent = name in ("kandinsky", "inpaint")
    pipes = [load(folder, models if latent else None) for folder in (models / name, made)]
    if source == "teacher":
        plain, student = (pipe.generate("a red cat", seed=3, steps=3, guidance=1.0)[0] for pipe in pipes)
    else:
        plain, student = (pipe.vary(images / "0.png", seed=3, steps=3, guidance=1.0)[0] for pipe in pipes)
    assert difference(plain, student) <= 2  # the student's weights were rounded to half precision


@pytest.mark.parametrize("name", ["native", "karlo", "stable"])
def test_a_family_is_distilled_for_guidance(name: str, models, prompts, images, recipe, tmp_path: Path):
    source = FAMILIES[name]
    options = {"data": prompts if source == "teacher" else images, "steps": 2}
    made = train("decoder", "guidance", models / name, recipe(f'source = "{source}"'), tmp_path / "run", **options)
    student = load(made)
    stage, rows = student.model.decoder, []
    scale = stage.guidance
    assert stage.distillation is not None and stage.distillation.guidance == (scale, scale) and scale > 1
    stage.network.register_forward_hook(lambda _module, given, _output: rows.append(len(given[0])))

    def generate(**fields):
        if source == "teacher":
            return student.generate("a red cat", seed=3, steps=3, **fields)
        return student.vary(images / "0.png", seed=3, steps=3, **fields)

    first, same = generate()[0], generate(guidance=scale)[0]
    assert rows == [1] * 6 and difference(first, same) == 0
    with pytest.raises(RequestError, match=rf"guidance is 3, and this model was distilled for {scale:g} only") as said:
        generate(guidance=3)
    assert "\n" not in str(said.value)


def test_the_scale_can_be_an_input(models: Path, prompts: Path, recipe, tmp_path: Path):
    path = recipe("guidance = [1.0, 4.0]")
    made = train("decoder", "guidance", models / "kandinsky", path, tmp_path / "run", data=prompts, steps=6)
    student = load(made, models)
    low, high = (student.generate("a cat", seed=1, steps=3, guidance=scale)[0] for scale in (1, 4))
    default, given = (student.generate("a cat", seed=1, steps=3, **fields)[0] for fields in ({}, {"guidance": 4.0}))
    assert difference(low, high) > 1 and difference(default, given) == 0
    with pytest.raises(
        RequestError, match="guidance is 5, and this model was distilled for 1 to 4, or use its teacher"
    ):
        student.generate("a cat", seed=1, guidance=5)
    # Guidance 1 is in the range, so that images can be inverted, and given back.
    image = noise_image(32, 32)
    assert len(student.vary(image, seed=1, strength=0.0)) == 1
    # diffusers has the same input for consistency models, and loads the checkpoint.
    from diffusers import KandinskyV22Pipeline

    unet = KandinskyV22Pipeline.from_pretrained(made, torch_dtype=torch.float32).unet
    assert unet.config.time_cond_proj_dim == 256
    ours = student.model.decoder.network.unet.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in unet.state_dict().items())


@pytest.mark.parametrize(
    ("name", "stage", "segments"),
    [("native", "decoder", 2), ("native", "upsampler", 1), ("kandinsky", "decoder", 4), ("kandinsky", "prior", 2)],
)
def test_each_stage_is_distilled_for_few_steps(name, stage, segments, models, prompts, recipe, tmp_path: Path):
    path = recipe(f"segments = {segments}\nteacher_steps = 8\nsamples = 2")
    made = train(stage, "consistency", models / name, path, tmp_path / "run", data=prompts, steps=2)
    if name == "kandinsky":
        given = (made, models) if stage == "decoder" else (models / name, None)
        pipe = (
            load(*given) if stage == "decoder" else Unclip.from_pretrained(models / name, "cpu", "float32", prior=made)
        )
    else:
        pipe = load(made)
    model = pipe.model
    of = {"decoder": model.decoder, "prior": model.prior.stage, "upsampler": (*model.upsamplers, None)[0]}[stage]
    steps = 4 if segments == 1 else segments
    assert (of.sampler, of.steps) == ("consistency" if segments == 1 else "ddim", steps)
    assert of.distillation.segments == segments and of.schedule.spacing == "linspace"
    calls: list[int] = []
    of.network.register_forward_hook(lambda _module, given, _output: calls.append(int(given[1][0])))
    [result] = pipe.generate("a cat", seed=1)
    assert calls == [round(i * 999 / steps) for i in range(steps, 0, -1)] and result.notes == ()
    sheets = list((tmp_path / "run" / stage / "samples").glob("*.png"))
    assert len(sheets) == (stage != "prior")  # two of the teacher's samples above two of the student's


@pytest.mark.parametrize("kind", ["guidance", "consistency"])
def test_a_stopped_run_resumes_exactly(kind: str, models: Path, prompts: Path, recipe, tmp_path: Path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"data": prompts, "steps": 4}
    path = recipe("levels = 2\nguidance = [1.0, 3.0]")
    made = train("decoder", kind, models / "native", path, whole, **options)
    task = GuidanceDistillation if kind == "guidance" else ConsistencyDistillation
    with monkeypatch.context() as patch:
        calls, loss = [], task.loss

        def stopped(*args):
            calls.append(len(calls))
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
            return loss(*args)

        patch.setattr(task, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            train("decoder", kind, models / "native", path, parts, **options)
    assert len(losses(parts / "decoder")) == 2 and not (parts / "model").exists()
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        train("decoder", kind, models / "native", path, parts, **options)
    again = train("decoder", kind, models / "native", path, parts, **options, resume=True)
    first, second = (load_file(out / "decoder" / "state.safetensors") for out in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert losses(whole / "decoder") == losses(parts / "decoder")
    for file in made.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (again / file.relative_to(made)).read_bytes(), file
    with pytest.raises(InputError, match="has guidance = "):
        other = recipe("levels = 2\nguidance = [1.0, 2.0]")
        train("decoder", kind, models / "native", other, parts, **options, resume=True)


def test_what_a_student_cannot_do(models: Path, prompts: Path, recipe, tmp_path: Path):
    made = train("decoder", "consistency", models / "native", recipe(), tmp_path / "run", data=prompts, steps=1)
    student, image = load(made), noise_image(32, 32)
    for call in (
        lambda: student.edit(image, "a cat", seed=1),
        lambda: student.vary(image, seed=1, strength=0.5),
        lambda: student.reconstruct(image, seed=1),
    ):
        with pytest.raises(
            RequestError, match="noise of an image cannot be found .* use its teacher tiny, or new noise"
        ):
            call()
    assert len(student.vary(image, seed=1)) == 1
    # The prior is guided still, so a negative prompt has a part of its effect.
    [result] = student.generate("a cat", seed=1, negative_prompt="a dog")
    assert result.notes == (
        "the negative prompt reaches the prior only, because guidance was distilled into the decoder",
    )
    [result] = student.generate("a cat", seed=1, steps=7)
    assert result.notes == (
        "the decoder was distilled for 4 steps of ddim; other steps and samplers give worse images",
    )
    [result] = student.generate("a cat", seed=1, prior_sampler="consistency")
    assert result.notes[0].startswith("prior_sampler consistency is for a prior that was distilled for it")
    [result] = student.generate("a cat", seed=1, guidance_every=2)
    assert result.notes[0].startswith("guidance_every: no effect, because guidance was distilled")
    with pytest.raises(RequestError, match="no settings for speed fast"):  # those are the teacher's
        student.generate("a cat", seed=1, speed="fast")
    # Kept pixels are kept.
    mask = box_mask((32, 32), (8, 8, 24, 24))
    [edited] = student.inpaint(image, mask, "a cat", seed=1)
    assert kept(edited, image, mask)


def test_both_distillations_one_after_the_other(models: Path, prompts: Path, images: Path, recipe, tmp_path: Path):
    first = train("decoder", "guidance", models / "native", recipe(), tmp_path / "a", data=prompts, steps=1)
    second = train("decoder", "consistency", first, recipe(), tmp_path / "b", data=prompts, steps=1)
    third = train("prior", "guidance", second, recipe(), tmp_path / "c", data=prompts, steps=1)
    model = load(third).model
    assert model.decoder.distillation.guidance == (2.0, 2.0) and model.decoder.distillation.segments == 4
    assert model.prior.stage.distillation.guidance == (1.5, 1.5)
    with pytest.raises(InputError, match="is distilled, .* fine-tune its teacher tiny, and distil that"):
        options = TrainingOptions(init=third, lora=2, data=images, device="cpu", quiet=True, steps=1)
        run.train("decoder", None, tmp_path / "d", options)
    with pytest.raises(RequestError, match="negative_prompt has no effect"):
        load(third).generate("a cat", seed=1, negative_prompt="a dog")
    # The other kind of prior has its own guidance, which the negative prompt reaches.
    other = {"prior": "autoregressive", "prior_guidance": 2.5}
    [result] = load(third).generate("a cat", seed=1, negative_prompt="a dog", **other)
    assert result.notes == (
        "the negative prompt reaches the prior only, because guidance was distilled into the decoder",
    )


def test_a_teacher_generates_by_its_autoregressive_prior(models: Path, prompts: Path, recipe, tmp_path: Path):
    made = train("decoder", "guidance", models / "native", recipe(), tmp_path / "both", data=prompts, steps=1)
    options = {"data": prompts, "steps": 1}
    chosen = train(
        "decoder", "guidance", models / "native", recipe(), tmp_path / "chosen", prior="autoregressive", **options
    )
    alone = shutil.copytree(models / "native", tmp_path / "alone")
    index = json.loads((alone / "model_index.json").read_text())
    del index["prior"], index["prior_scheduler"], index["stages"]["prior"]
    (alone / "model_index.json").write_text(json.dumps(index))
    only = train("decoder", "guidance", alone, recipe(), tmp_path / "only", **options)
    weights = [load_file(each / "decoder" / "model.safetensors") for each in (made, chosen, only)]
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.parametrize("stage", ["prior", "upsampler"])
def test_a_speed_keeps_the_steps_that_a_stage_was_distilled_for(stage: str, tiny: Unclip):
    settings = {"teacher": "tiny", "guidance": (1.0, 1.0), "scale": 1.0, "sampler": "consistency", "steps": 3}
    model = with_distilled(tiny.model, {stage: DistilledStage(**settings, segments=1)})
    own, fast = (Unclip(model).resolve(Request(prompt="a cat", seed=1, speed=each)) for each in ("best", "fast"))
    names = {"prior": ("prior_steps", "prior_sampler"), "upsampler": ("upsampler_steps",)}[stage]
    assert all(getattr(fast, name) == getattr(own, name) for name in names)
    assert not list(distillation_notes(model, fast))


@pytest.mark.parametrize(
    ("stage", "kind", "name", "options", "says"),
    [
        ("decoder", "guidence", "native", {}, "did you mean 'guidance'"),
        ("decoder", "guidance", None, {}, "name it by --teacher"),
        ("decoder", "guidance", "native", {"init": "native"}, "leave out --init and --lora"),
        ("clip", "guidance", "native", {}, "only the prior, decoder, upsampler of a model can be distilled"),
        ("upsampler", "guidance", "native", {}, "no guidance to distil: use --distill consistency"),
        ("upsampler", "consistency", "karlo", {}, "has another network for its last step"),
        ("upsampler", "consistency", "kandinsky", {}, "has no upsampler"),
        ("upsampler", "consistency", "native", {"lines": "guidance = 2.0"}, "an upsampler has no guidance"),
        ("decoder", "consistency", "karlo", {}, "predicts noise down to no signal"),
        ("decoder", "guidance", "native", {"lines": "segments = 2"}, "segments belongs to --distill consistency"),
        ("decoder", "guidance", "native", {"lines": "guidance = 1.0"}, "leaves nothing to distil"),
        ("decoder", "guidance", "native", {"lines": "guidance = [3.0, 2.0]"}, r"or \[low, high\] of two such numbers"),
        ("prior", "guidance", "native", {"lines": "guidance = [1.0, 2.0]"}, "set a single one"),
        ("decoder", "consistency", "native", {"lines": "segments = 3"}, "teacher_steps = 32 should be a multiple"),
        ("decoder", "consistency", "few", {}, "teacher_steps = 32 should be below the 20 timesteps of tiny"),
        ("decoder", "guidance", "native", {"lines": 'source = "images"'}, 'the data are prompts: use "teacher"'),
        ("decoder", "guidance", "variations", {}, 'has no prior to generate from prompts: set source = "images"'),
        ("decoder", "guidance", "native", {"recipe": "stickers-cpu"}, r"has a table \[clip\], .* --recipe distill"),
        ("decoder", "guidance", "native", {"data": None}, r"no \[data\] table; give --data FOLDER"),
        ("decoder", "guidance", "native", {"data": "nowhere.txt"}, "nowhere.txt: cannot be read"),
        ("decoder", None, "native", {}, "--teacher belongs to --distill"),
    ],
)
def test_bad_input_is_one_line(stage, kind, name, options, says, models: Path, prompts: Path, recipe, tmp_path: Path):
    options = {"data": prompts, "steps": 1, **options}
    path = options.pop("recipe", None) or recipe(options.pop("lines", ""))
    with pytest.raises(InputError, match=says) as caught:
        train(stage, kind, None if name is None else models / name, path, tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_prompts_without_images_train_nothing_else(models: Path, prompts: Path, tiny_recipe: Path, tmp_path: Path):
    with pytest.raises(InputError, match="prompts without images are for --distill only"):
        options = TrainingOptions(data=prompts, device="cpu", quiet=True, steps=1)
        run.train("clip", tiny_recipe, tmp_path / "run", options)


def test_a_check_trains_nothing(models: Path, prompts: Path, recipe, tmp_path: Path, capsys):
    options = TrainingOptions(distill="guidance", teacher=models / "native", data=prompts, device="cpu")
    run.check("decoder", recipe(), tmp_path / "run", options)
    assert "4 prompts" in "".join(capsys.readouterr()) and not (tmp_path / "run").exists()


def test_a_damaged_entry_is_refused(models: Path, tmp_path: Path):
    whole = {
        "teacher": "x",
        "guidance": [2.0, 2.0],
        "scale": 2.0,
        "segments": 0,
        "sampler": "ddim",
        "steps": 4,
    }
    for stage, change, says in (
        ("decoder", {"guidance": [3.0]}, "the lowest and the highest scale"),
        ("decoder", {"guidance": [1.0, 3.0]}, "no input of 256 values for the guidance scale"),
        ("decoder", {"scale": 5.0}, "scale 5.0 is out of its range"),
        ("decoder", {"sampler": "dimm"}, "sampler 'dimm' is unknown"),
        ("decoder", {"steps": 0}, "steps"),
        ("flux", {}, "has no flux"),
    ):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(models / "native", folder)
        index = json.loads((folder / "model_index.json").read_text())
        index["_distilled"] = {stage: whole | change}
        (folder / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match=says) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
