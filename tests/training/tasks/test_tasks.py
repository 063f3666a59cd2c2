"""What each stage trains: losses that vanish for a perfect network, gradients everywhere, what is drawn and dropped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.checkpoints.networks import save_network
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.errors import RecipeError
from unclip.training.augmentation import is_bare, with_known
from unclip.training.losses import draw_noise, velocity_error
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.samples import to_picture
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.decoder import DecoderTask, whiten_
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.options import PREDICTIONS, check_sizes
from unclip.training.tasks.prior import PriorTask
from unclip.training.tasks.upsampler import UpsamplerTask

CAPTIONS = ["a red cat", "a dog", "two blue apples on a pink background", "a tree"]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe)


@pytest.fixture(scope="module")
def clip(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> FrozenClip:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    save_network(ClipTask(recipe.stage("clip")).network, folder, torch.float32)
    return FrozenClip(folder, torch.device("cpu"))


def pictures(size: int, count: int = 16) -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(size)
    return torch.rand(count, 3, size, size, generator=generator) * 2 - 1, [CAPTIONS[i % 4] for i in range(count)]


@pytest.fixture(params=["clip", "prior", "decoder", "upsampler"])
def task(request, recipe: Recipe, clip: FrozenClip):
    torch.manual_seed(1)
    return make(request.param, recipe, clip)


def make(name: str, recipe: Recipe, clip: FrozenClip, **options):
    table = replace(recipe.stage(name), task={**recipe.stage(name).task, **options})
    if name == "clip":
        return ClipTask(table)
    if name == "upsampler":
        return UpsamplerTask(table, pictures)
    return {"prior": PriorTask, "decoder": DecoderTask}[name](table, clip, pictures)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Perfect(nn.Module):
    """A network that knows what the pictures were, and keeps what it was asked."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor, *args: Tensor, **conditioning: Tensor) -> Tensor:
        self.x, self.t, self.args, self.conditioning = x, t, args, conditioning
        return self.answer


# ---- every task


def test_every_weight_learns_also_those_used_outside_the_network(task):
    """The decoder projects its conditioning by itself, before the network that is wrapped and compiled is called."""
    images, captions = pictures(task.size, 4)
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # some start at 0, and then nothing before them learns
    with torch.autocast("cpu", torch.bfloat16):
        for seed in range(8):  # several draws: the null embedding is used only where the embedding is dropped
            loss, figures = task.loss(task.network, images, captions, seeded(seed))
            assert loss.dtype == torch.float32 and loss.ndim == 0 and loss.isfinite()
            assert all(not figure.requires_grad for figure in figures.values())
            loss.backward()
    for name, parameter in task.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            # What no output can depend on: softmax ignores a shift of all keys.
            assert parameter.grad.abs().max() > 0 or "k_proj.bias" in name or "to_k.bias" in name, name


def test_the_loss_is_a_function_of_the_generator(task):
    images, captions = pictures(task.size, 4)
    torch.manual_seed(0)
    first = task.loss(task.network.eval(), images, captions, seeded())[0]
    again = task.loss(task.network, images, captions, seeded())[0]
    assert torch.equal(first, again)
    if not isinstance(task, ClipTask):
        assert not torch.equal(first, task.loss(task.network, images, captions, seeded(1))[0])


def test_no_weight_of_the_frozen_clip_is_trained(task, clip: FrozenClip):
    own = {id(parameter) for parameter in clip.clip.parameters()}
    assert not own & {id(parameter) for parameter in task.network.parameters()}
    assert not any(parameter.requires_grad for parameter in clip.clip.parameters())
    assert not clip.clip.training


def test_the_frozen_clip_says_under_autocast_what_it_says_in_inference(clip: FrozenClip):
    images, captions = pictures(16, 4)
    image, text = clip.image(images), clip.text(captions)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip.image(images), image)
        assert all(torch.equal(a, b) for a, b in zip(clip.text(captions), text, strict=True))


# ---- each task


def test_clip_is_perfect_where_each_picture_is_nearest_to_its_caption(recipe: Recipe, clip: FrozenClip):
    task = make("clip", recipe, clip)
    with torch.no_grad():
        task.network.logit_scale.fill_(9.0)
    same = lambda images, tokens: (torch.eye(4), torch.eye(4), task.network.logit_scale)  # noqa: E731
    loss, figures = task.loss(same, torch.zeros(4, 3, 16, 16), CAPTIONS, seeded())
    assert figures["rank1"] == 1 and loss < 1e-6
    assert task.network.logit_scale.exp().item() == pytest.approx(100)  # CLIP, section 2.5


def test_the_prior_works_on_whitened_embeddings(recipe: Recipe, clip: FrozenClip):
    task = make("prior", recipe, clip)
    white = task.network.whiten(clip.image(pictures(task.size, 2048)[0]))
    torch.testing.assert_close(white.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.std(0), torch.ones(16), atol=1e-3, rtol=0)
    images, captions = pictures(task.size, 4)
    perfect = Perfect(task.network.whiten(clip.image(images)))
    loss, figures = task.loss(perfect, images, captions, seeded())
    assert loss == 0 and figures["cosine"].item() == pytest.approx(1)


def test_the_prior_of_pictures_that_are_all_alike_is_finite(recipe: Recipe, clip: FrozenClip):
    task = PriorTask(recipe.stage("prior"), clip, lambda size, count: (torch.zeros(count, 3, size, size), []))
    assert task.loss(task.network, torch.zeros(4, 3, 16, 16), CAPTIONS, seeded())[0].isfinite()


@pytest.mark.parametrize("name", ["prior", "decoder"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_texts_are_dropped(recipe: Recipe, clip: FrozenClip, monkeypatch, name: str, share: float):
    task, texts = make(name, recipe, clip, text_drop=share), []
    condition = task.network.condition

    def noted(*args, **options):
        texts.append(args[-3 if len(args) == 4 else 0])
        return condition(*args, **options)

    monkeypatch.setattr(task.network, "condition", noted)
    images, captions = pictures(task.size, 4)
    task.loss(task.network, images, captions, seeded())
    expected = clip.text([""] * 4 if share else captions)
    read = ("mask", "tokens") if name == "decoder" else expected._fields  # the decoder reads the tokens itself
    assert all(torch.equal(getattr(texts[0], field), getattr(expected, field)) for field in read)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_embeddings_are_dropped(recipe: Recipe, clip: FrozenClip, monkeypatch, share: float):
    task, embeds = make("decoder", recipe, clip, embed_drop=share), []
    condition = task.network.condition
    monkeypatch.setattr(
        task.network, "condition", lambda *args, **kw: (embeds.append(args[0]), condition(*args, **kw))[1]
    )
    images, captions = pictures(task.size, 4)
    task.loss(task.network, images, captions, seeded())
    null = task.network.projection.null_embed.expand(4, -1)
    assert torch.equal(embeds[0], null if share else clip.image(images))


def test_the_decoders_own_text_encoder_starts_as_clips(recipe: Recipe, clip: FrozenClip):
    task = make("decoder", recipe, clip)
    text = clip.text(CAPTIONS)
    own = task.network.text_encoder(text)
    torch.testing.assert_close(own.states, text.states)
    assert set(task.networks()) == {"decoder", "text_proj", "decoder_text"}
    assert set(make("decoder", recipe, clip, own_text=False).networks()) == {"decoder", "text_proj"}


def test_a_fresh_projection_passes_on_each_direction_alike():
    """Two loud directions and six quiet ones come out as loud as each other; what is far quieter stays so."""
    g = seeded()
    loudness = torch.tensor([5.0, 5.0, *[0.5] * 6, 1e-3])
    turned = torch.linalg.qr(torch.randn(9, 9, generator=g)).Q
    inputs = torch.randn(4000, 9, generator=g) * loudness @ turned
    torch.manual_seed(0)
    linear = nn.Linear(9, 64)
    plain = linear.weight.detach() @ turned.T
    whiten_(linear, inputs, floor=0.1)
    gain = (linear.weight @ turned.T / plain).mean(0) * loudness  # of each direction, times how loud it is
    assert gain[:8].max() / gain[:8].min() < 1.3
    assert gain[8] < 0.02 * gain[0]
    torch.testing.assert_close((inputs @ linear.weight.T).std(), torch.tensor(1.0))


def test_the_decoder_sees_what_is_known_and_nothing_else(recipe: Recipe, clip: FrozenClip):
    task = make("decoder", recipe, clip, known=1.0)
    images, captions = pictures(task.size, 16)
    x0 = task.codec.encode(images)
    perfect = Perfect(x0)
    assert task.loss(perfect, images, captions, seeded())[0].item() == pytest.approx(0, abs=1e-10)
    hint = perfect.conditioning["hint"]  # b 48+16 4 4
    picture, mask = hint[:, :48], hint[:, 48:].repeat(1, 3, 1, 1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(picture, x0 * mask)
    assert make("decoder", recipe, clip, known=0.0).loss(perfect, images, captions, seeded())
    assert not perfect.conditioning["hint"].any()


def test_the_decoder_learns_windows_from_the_embedding_of_the_whole_picture(recipe: Recipe, clip: FrozenClip):
    options = {"embed_drop": 0.0, "text_drop": 1.0, "pooled_drop": 1.0}
    images, captions = pictures(16, 16)
    told = {}
    for moved in (0.0, 1.0):
        torch.manual_seed(1)
        task = make("decoder", recipe, clip, known=1.0, moved=moved, **options)
        perfect = Perfect(task.codec.encode(images))
        task.loss(perfect, images, captions, seeded())
        told[moved] = perfect.conditioning
        hint = perfect.conditioning["hint"]
        seen = task.codec.decode(hint[:, :48])  # b 3 16 16
        mask = hint[:, 48:].unflatten(1, (1, 16)).any(2)  # b 1 4 4: where anything is known
        apart = ((seen != images) & (seen != 0)).flatten(1).any(1)
        assert bool(apart.any()) == bool(moved)  # other pixels than the picture has there
        if moved:
            assert torch.stack([mask[..., 0, 0], mask[..., 0, -1], mask[..., -1, 0], mask[..., -1, -1]]).any(0).all()
    same = (told[0.0]["time_condition"] == told[1.0]["time_condition"]).all(1)
    assert same.sum() >= 12  # in the others, all that moved is beyond the window, and nothing is told


def test_the_decoder_is_told_nothing_of_windows_that_are_bare_of_more(recipe: Recipe, clip: FrozenClip):
    images = torch.full((64, 3, 16, 16), -0.5)
    images[..., 4:-4, 4:-4] = torch.linspace(-0.2, 0.9, 64)[:, None, None, None]
    generator = seeded()
    torch.rand(2, 64, generator=generator)  # what is left out by chance
    drawn, known, window = with_known(images, 1.0, 1.0, 0.5, 0.5, generator)
    bare = window & is_bare(drawn, known)
    options = {"known": 1.0, "moved": 1.0, "beside": 0.5, "views": 0.5}
    task = make("decoder", recipe, clip, embed_drop=0.0, text_drop=0.9, **options)
    perfect = Perfect(task.codec.encode(images))
    task.loss(perfect, images, [CAPTIONS[i % 4] for i in range(64)], seeded())
    tokens, times = perfect.conditioning["token_mask"].sum(1), perfect.conditioning["time_condition"]
    assert 8 < bare.sum() < 56
    assert len(times[bare].unique(dim=0)) == 1 and len(times[window & ~bare].unique(dim=0)) > 8
    assert len(tokens[bare].unique()) == 1
    assert tokens[window & ~bare].min() > tokens[bare].max()  # where there is something it is said, whatever text_drop


def test_where_more_is_to_be_painted_in_what_is_known_it_is_told(recipe: Recipe, clip: FrozenClip):
    """However often both are left out: a text where the embedding is, and of what is bare often neither."""
    images = torch.full((64, 3, 16, 16), -0.5)
    images[..., 4:-4, 4:-4] = torch.linspace(-0.2, 0.9, 64)[:, None, None, None]
    generator = seeded()
    torch.rand(2, 64, generator=generator)  # what is left out by chance
    drawn, known, _ = with_known(images, 0.9, 1e-9, 0.0, 0.0, generator)
    given = known.flatten(1).any(1)
    bare = given & is_bare(drawn, known)
    assert given.sum() > 50 and bare.sum() > 6 and not given.all()

    def told(**options) -> tuple[Tensor, Tensor]:
        perfect = Perfect(make("decoder", recipe, clip).codec.encode(images))
        task = make("decoder", recipe, clip, known=0.9, moved=1e-9, pooled_drop=1.0, **options)
        task.loss(perfect, images, [CAPTIONS[i % 4] for i in range(64)], seeded())
        tokens, times = perfect.conditioning["token_mask"].sum(1), perfect.conditioning["time_condition"]
        return tokens > tokens.min(), (times != times[bare][:1]).any(1)  # has it a text, has it an embedding

    read, shown = told(embed_drop=1.0, text_drop=1.0)
    assert not shown.any() and not read[~given].any() and read[given & ~bare].all()
    assert 0 < read[bare].sum() < bare.sum()
    read, shown = told(embed_drop=0.5, text_drop=1.0)
    assert (read ^ shown)[given & ~bare].all() and shown[given & ~bare].any() and not read[~given].any()


def test_the_decoder_learns_drafts_at_the_noise_levels_of_drafts(recipe: Recipe, clip: FrozenClip):
    images, captions = pictures(16, 64)
    seen = {}
    for drafts in (0.0, 1.0):
        task = make("decoder", recipe, clip, known=0.5, drafts=drafts)
        perfect = Perfect(task.codec.encode(images))
        loss, _ = task.loss(perfect, images, captions, seeded())
        seen[drafts] = perfect.t, perfect.conditioning["hint"].flatten(1).any(1), loss.item()
    (t, known, loss), (drafted, still_known, moved_loss) = seen[0.0], seen[1.0]
    assert torch.equal(known, still_known) and known.any() and not known.all()
    assert t[~known].max() > 800 and drafted[~known].max() < 600 and drafted[known].max() > 600
    assert loss == pytest.approx(0, abs=1e-10) and moved_loss > 0.01  # other pictures were to be drawn


def test_the_pooled_text_is_left_out_as_often_as_told(recipe: Recipe, clip: FrozenClip):
    def times(**options) -> Tensor:
        torch.manual_seed(1)
        task = make("decoder", recipe, clip, embed_drop=1.0, text_drop=0.0, **options)
        images, captions = pictures(task.size, 16)
        perfect = Perfect(task.codec.encode(images))
        task.loss(perfect, images, captions, seeded())
        return perfect.conditioning["time_condition"]  # b t: by the text alone

    heard, silent, mixed = times(), times(pooled_drop=1.0), times(pooled_drop=0.5)
    assert len(heard.unique(dim=0)) == len(CAPTIONS) and len(silent.unique(dim=0)) == 1
    which = [bool(torch.allclose(row, quiet)) for row, quiet in zip(mixed, silent, strict=True)]
    assert 0 < sum(which) < 16
    assert all(quiet or torch.allclose(row, loud) for row, loud, quiet in zip(mixed, heard, which, strict=True))


def test_the_upsampler_draws_over_an_enlarged_crop(recipe: Recipe, clip: FrozenClip):
    task = make("upsampler", recipe, clip, crop=32, blur=0.0, noise=0.0)
    images = F.interpolate(pictures(4, 4)[0], size=(32, 32), mode="bicubic").clamp(-1, 1)  # smooth
    perfect = Perfect(task.codec.encode(images))
    assert task.loss(perfect, images, CAPTIONS, seeded())[0].item() == pytest.approx(0, abs=1e-10)
    enlarged = task.codec.decode(perfect.args[0])
    assert (enlarged - images).abs().mean() < 0.03


def test_an_upsampler_of_differences_begins_with_the_enlarged_picture(recipe: Recipe, clip: FrozenClip):
    task = make("upsampler", recipe, clip, prediction="difference")
    enlarged = pictures(32, 2)[0]
    drawn = task.stage().run({"enlarged": task.codec.encode(enlarged)}, None, make_generators(range(2)))
    torch.testing.assert_close(drawn, enlarged, atol=1e-5, rtol=0)
    other = make("upsampler", recipe, clip, prediction="sample")
    drawn = other.stage().run({"enlarged": task.codec.encode(enlarged)}, None, make_generators(range(2)))
    assert (drawn - enlarged).abs().mean() > 0.1


def test_spoiling_blurs_and_adds_noise_of_up_to_the_given_strength(recipe: Recipe, clip: FrozenClip):
    images = pictures(16, 64)[0]
    untouched = make("upsampler", recipe, clip, blur=0.0, noise=0.0).spoil(images, seeded())
    torch.testing.assert_close(untouched, images)
    noise = make("upsampler", recipe, clip, blur=0.0, noise=0.5).spoil(images, seeded()) - images
    strengths = noise.flatten(1).std(1)
    assert 0.4 < strengths.max() < 0.55 and strengths.min() < 0.1
    blurred = make("upsampler", recipe, clip, blur=1.0, noise=0.0).spoil(images, seeded())
    left = blurred.flatten(1).std(1) / images.flatten(1).std(1)  # of the contrast
    assert left.max() < 1.001 and left.min() < 0.4 and left.mean() < 0.9
    flat = torch.full((2, 3, 16, 16), 0.25)
    torch.testing.assert_close(make("upsampler", recipe, clip, noise=0.0).spoil(flat, seeded()), flat)


def test_grids(recipe: Recipe, clip: FrozenClip):
    assert make("clip", recipe, clip).grid() is None and make("prior", recipe, clip).grid() is None
    assert make("decoder", recipe, clip).grid().size == (8 * 18 + 2, 4 * 18 + 2)
    assert make("upsampler", recipe, clip).grid().size == (4 * 34 + 2, 3 * 34 + 2)


def test_progress_is_drawn_as_the_finished_model_draws(recipe: Recipe, clip: FrozenClip):
    decoder, upsampler = (make(name, recipe, clip).stage() for name in ("decoder", "upsampler"))
    assert (decoder.sampler, decoder.steps, decoder.guidance) == ("dpmpp-2m", 2, 2.0)
    assert (upsampler.sampler, upsampler.steps, upsampler.guidance) == ("ddim", 2, 1.0)


# ---- draws


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (1.2, 0.7)])
def test_timesteps_are_normal_in_log_noise(shift: float, spread: float):
    t, noise = draw_noise(torch.zeros(20_000, 1), Schedule(), seeded(), shift, spread)
    assert noise.shape == (20_000, 1) and noise.std().item() == pytest.approx(1, abs=0.03)
    # the same from the schedule itself: half the log of noise over signal variance
    signal = Schedule().alphas_cumprod()[t]
    half_log = ((1 - signal) / signal).log() / 2
    assert half_log.mean().item() == pytest.approx(shift, abs=0.06)
    assert half_log.std().item() == pytest.approx(spread, abs=0.06)


def test_timesteps_are_uniform_without_a_shift():
    t, _ = draw_noise(torch.zeros(20_000, 1), Schedule(), seeded())
    assert (t.min(), t.max()) == (0, 999) and t.float().mean().item() == pytest.approx(499.5, abs=10)
    assert draw_noise(torch.zeros(2000, 1), Schedule(num_train_timesteps=50), seeded())[0].max() == 49


@pytest.mark.parametrize("prediction", PREDICTIONS["decoder"])
def test_the_velocity_error_is_that_of_the_velocity_whatever_is_predicted(prediction: str):
    schedule = Schedule(prediction_type=prediction)
    x0, noise, wrong = (torch.randn(4, 3, 8, 8, generator=seeded(seed)) for seed in range(3))
    t = torch.tensor([200, 400, 800, 999])  # at the last of them nearly nothing is left of x0
    x_t = add_noise(x0, noise, t, schedule)
    guess = x0 + 0.1 * wrong  # the x0 that the network has in mind
    signal = schedule.alphas_cumprod()[t].view(4, 1, 1, 1)
    v_hat = (signal.sqrt() * x_t - guess) / (1 - signal).sqrt()
    v = signal.sqrt() * noise - (1 - signal).sqrt() * x0  # Salimans & Ho 2022 (arXiv:2202.00512), section 4
    output, best = {"sample": (guess, x0), "v_prediction": (v_hat, v)}[prediction]
    torch.testing.assert_close(velocity_error(output, x_t, x0, t, schedule), F.mse_loss(v_hat, v))
    assert velocity_error(best, x_t, x0, t, schedule).item() == pytest.approx(0, abs=1e-8)


def test_a_contact_sheet():
    sheet = to_picture(torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 1.0, 9.0)]), 3)
    assert sheet.size == (20, 8)
    assert [sheet.getpixel((x, 4)) for x in (3, 9, 15)] == [(0, 0, 0), (255, 255, 255), (255, 255, 255)]


# ---- recipes that cannot be


@pytest.mark.parametrize(
    ("stage", "part", "values", "says"),
    [
        ("prior", "model", {"layers": 3}, "[prior.model]: unknown key 'layers'; did you mean 'num_layers'"),
        ("prior", "task", {"text_drop": 2.0}, "[prior.task]: text_drop = 2.0 should be from 0 to 1"),
        ("decoder", "model", {"size": 18}, "[decoder.model]: size = 18 should be a multiple of 4"),
        ("decoder", "model", {"size": 20}, "[decoder.model]: size = 20 should be a multiple of 8"),
        ("decoder", "model", {"in_channels": 3}, "[decoder.model]: in_channels follows from the other settings; leave"),
        ("decoder", "model", {"class_embed_type": "timestep"}, "class_embed_type follows from the other settings"),
        ("decoder", "task", {"prediction": "epsilon"}, "prediction = 'epsilon' should be one of sample, v_prediction"),
        ("upsampler", "model", {"sample_size": 8}, "[upsampler.model]: sample_size follows from the other settings"),
        ("prior", "model", {"embedding_dim": 8}, "[prior.model]: embedding_dim follows from the other settings"),
        ("clip", "model", {"vocab_size": 100}, "[clip.model]: vocab_size = 100 must be 49408, as CLIP's tokenizer"),
        ("decoder", "model", {"size": "64"}, "size = '64' should be of type int"),
        ("decoder", "model", {"block_out_channels": (16, 31)}, "[decoder.model]: "),
        ("decoder", "task", {"prediction": "x0"}, "[decoder.task]: prediction = 'x0' should be one of "),
        ("upsampler", "model", {"block_out": 3}, "unknown key 'block_out'; did you mean 'block_out_channels'"),
        ("upsampler", "task", {"small": 12}, "[upsampler.task]: size = 32 should be a multiple of 12"),
        ("upsampler", "task", {"crop": 12}, "crop = 12 should be a multiple of 8"),
        ("upsampler", "task", {"crop": 64}, "crop = 64 is larger than size = 32"),
        ("upsampler", "task", {"patch": 0}, "patch = 0 should be from 1 to 64"),
    ],
)
def test_a_recipe_that_cannot_be_is_named(recipe, clip, stage: str, part: str, values: dict, says: str):
    table = recipe.stage(stage)
    table = replace(table, **{part: {**getattr(table, part), **values}})
    with pytest.raises(RecipeError) as caught:
        make(stage, replace(recipe, stages={stage: table}), clip)
    assert recipe.source in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_the_upsampler_must_take_what_the_decoder_draws(recipe: Recipe):
    check_sizes(recipe)
    larger = replace(recipe.stage("decoder"), model={**recipe.stage("decoder").model, "size": 32})
    with pytest.raises(RecipeError) as caught:
        check_sizes(replace(recipe, stages={**recipe.stages, "decoder": larger}))
    assert "[upsampler.task] small = 16 must equal [decoder.model] size = 32" in str(caught.value)
    check_sizes(replace(recipe, stages={"decoder": larger}))
