"""The decoder's task: conditioning left out, known pixels, windows, drafts and the initial projection."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.training.tasks.helpers import CAPTIONS, Oracle, example_images, make_task, seeded, with_options
from unclip.models.layout import layout_map, random_layout
from unclip.training.augmentation import add_known_regions, is_unknown_uniform
from unclip.training.batch import Batch
from unclip.training.data.options import SceneTable
from unclip.training.recipe import Recipe
from unclip.training.stages import new_task
from unclip.training.tasks.decoder import DecoderTask, whiten_inputs_
from unclip.training.tasks.frozen_clip import FrozenClip


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_captions_are_left_out(recipe: Recipe, clip: FrozenClip, monkeypatch, fraction: float):
    task, texts = make_task("decoder", recipe, clip, text_drop=fraction), []
    condition = task.network.condition

    def record(*args, **options):
        texts.append(args[1])
        return condition(*args, **options)

    monkeypatch.setattr(task.network, "condition", record)
    images, captions = example_images(task.size, 4)
    task.loss(task.network, Batch(images, captions, seeded()))
    expected = clip.encode_text([""] * 4 if fraction else captions)
    used = ("mask", "tokens")  # the decoder encodes the tokens itself
    assert all(torch.equal(getattr(texts[0], field), getattr(expected, field)) for field in used)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_embeddings_are_left_out(recipe: Recipe, clip: FrozenClip, monkeypatch, fraction: float):
    task, embeds = make_task("decoder", recipe, clip, embed_drop=fraction), []
    condition = task.network.condition
    monkeypatch.setattr(
        task.network, "condition", lambda *args, **kw: (embeds.append(args[0]), condition(*args, **kw))[1]
    )
    images, captions = example_images(task.size, 4)
    task.loss(task.network, Batch(images, captions, seeded()))
    null = task.network.projection.null_embed.expand(4, -1)
    assert torch.equal(embeds[0], null if fraction else clip.encode_images(images))


def test_the_text_encoder_starts_with_clips_weights(recipe: Recipe, clip: FrozenClip):
    task = make_task("decoder", recipe, clip)
    text = clip.encode_text(CAPTIONS)
    own = task.network.text_encoder(text)
    torch.testing.assert_close(own.states, text.states)
    assert set(task.networks()) == {"decoder", "text_proj", "decoder_text"}
    assert set(make_task("decoder", recipe, clip, own_text=False).networks()) == {"decoder", "text_proj"}


def test_whitening_gives_every_direction_equal_variance():
    """Two directions of large and six of small variance get the same; one of far smaller variance keeps less."""
    g = seeded()
    scale = torch.tensor([5.0, 5.0, *[0.5] * 6, 1e-3])
    turned = torch.linalg.qr(torch.randn(9, 9, generator=g)).Q
    inputs = torch.randn(4000, 9, generator=g) * scale @ turned
    torch.manual_seed(0)
    linear = nn.Linear(9, 64)
    plain = linear.weight.detach() @ turned.T
    whiten_inputs_(linear, inputs, floor=0.1)
    gain = (linear.weight @ turned.T / plain).mean(0) * scale  # of each direction
    assert gain[:8].max() / gain[:8].min() < 1.3
    assert gain[8] < 0.02 * gain[0]
    torch.testing.assert_close((inputs @ linear.weight.T).std(), torch.tensor(1.0))


def test_the_network_sees_only_the_known_pixels(recipe: Recipe, clip: FrozenClip):
    task = make_task("decoder", recipe, clip, known=1.0)
    images, captions = example_images(task.size, 16)
    x0 = task.codec.encode(images)
    oracle = Oracle(x0)
    assert task.loss(oracle, Batch(images, captions, seeded()))[0].item() == pytest.approx(0, abs=1e-10)
    hint = oracle.conditioning["hint"]  # b 48+16 4 4
    pixels, mask = hint[:, :48], hint[:, 48:].repeat(1, 3, 1, 1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(pixels, x0 * mask)
    assert make_task("decoder", recipe, clip, known=0.0).loss(oracle, Batch(images, captions, seeded()))
    assert not oracle.conditioning["hint"].any()


def test_windows_are_conditioned_on_the_whole_image(recipe: Recipe, clip: FrozenClip):
    options = {"embed_drop": 0.0, "text_drop": 1.0, "pooled_drop": 1.0}
    images, captions = example_images(16, 16)
    conditioning = {}
    for moved in (0.0, 1.0):
        torch.manual_seed(1)
        task = make_task("decoder", recipe, clip, known=1.0, moved=moved, **options)
        oracle = Oracle(task.codec.encode(images))
        task.loss(oracle, Batch(images, captions, seeded()))
        conditioning[moved] = oracle.conditioning
        hint = oracle.conditioning["hint"]
        known = task.codec.decode(hint[:, :48])  # b 3 16 16
        mask = hint[:, 48:].unflatten(1, (1, 16)).any(2)  # b 1 4 4: where anything is known
        apart = ((known != images) & (known != 0)).flatten(1).any(1)
        assert bool(apart.any()) == bool(moved)  # other pixels than the image has there
        if moved:
            assert torch.stack([mask[..., 0, 0], mask[..., 0, -1], mask[..., -1, 0], mask[..., -1, -1]]).any(0).all()
    same = (conditioning[0.0]["time_condition"] == conditioning[1.0]["time_condition"]).all(1)
    assert same.sum() >= 12  # the others have nothing to generate, and are unconditional


def test_windows_with_nothing_to_generate_are_unconditional(recipe: Recipe, clip: FrozenClip):
    images = torch.full((64, 3, 16, 16), -0.5)
    images[..., 4:-4, 4:-4] = torch.linspace(-0.2, 0.9, 64)[:, None, None, None]
    generator = seeded()
    torch.rand(2, 64, generator=generator)  # the task's own random numbers for leaving out
    target, known, window = add_known_regions(images, generator, known=1.0, moved=1.0, beside=0.5, views=0.5)
    is_empty = window & is_unknown_uniform(target, known)
    options = {"known": 1.0, "moved": 1.0, "beside": 0.5, "views": 0.5}
    task = make_task("decoder", recipe, clip, embed_drop=0.0, text_drop=0.9, **options)
    oracle = Oracle(task.codec.encode(images))
    task.loss(oracle, Batch(images, [CAPTIONS[i % 4] for i in range(64)], seeded()))
    tokens, times = oracle.conditioning["token_mask"].sum(1), oracle.conditioning["time_condition"]
    assert 8 < is_empty.sum() < 56
    assert len(times[is_empty].unique(dim=0)) == 1 and len(times[window & ~is_empty].unique(dim=0)) > 8
    assert len(tokens[is_empty].unique()) == 1
    assert (
        tokens[window & ~is_empty].min() > tokens[is_empty].max()
    )  # a window with something to generate has its text, whatever text_drop is


def test_known_parts_with_something_to_generate_keep_a_condition(recipe: Recipe, clip: FrozenClip):
    """However often both are left out, one of the two stays; where nothing is left to generate, often neither does."""
    images = torch.full((64, 3, 16, 16), -0.5)
    images[..., 4:-4, 4:-4] = torch.linspace(-0.2, 0.9, 64)[:, None, None, None]
    generator = seeded()
    torch.rand(2, 64, generator=generator)  # the task's own random numbers for leaving out
    target, known, _ = add_known_regions(images, generator, known=0.9, moved=1e-9, beside=0.0, views=0.0)
    given = known.flatten(1).any(1)
    is_empty = given & is_unknown_uniform(target, known)
    assert given.sum() > 50 and is_empty.sum() > 6 and not given.all()

    def has_condition(**options) -> tuple[Tensor, Tensor]:
        oracle = Oracle(make_task("decoder", recipe, clip).codec.encode(images))
        task = make_task("decoder", recipe, clip, known=0.9, moved=1e-9, pooled_drop=1.0, **options)
        task.loss(oracle, Batch(images, [CAPTIONS[i % 4] for i in range(64)], seeded()))
        tokens, times = oracle.conditioning["token_mask"].sum(1), oracle.conditioning["time_condition"]
        return tokens > tokens.min(), (times != times[is_empty][:1]).any(1)  # has a text, has an embedding

    has_text, has_embed = has_condition(embed_drop=1.0, text_drop=1.0)
    assert not has_embed.any() and not has_text[~given].any() and has_text[given & ~is_empty].all()
    assert 0 < has_text[is_empty].sum() < is_empty.sum()
    has_text, has_embed = has_condition(embed_drop=0.5, text_drop=1.0)
    assert (has_text ^ has_embed)[given & ~is_empty].all() and has_embed[given & ~is_empty].any()
    assert not has_text[~given].any()


def test_drafts_are_trained_at_the_noise_levels_of_drafts(recipe: Recipe, clip: FrozenClip):
    images, captions = example_images(16, 64)
    losses = {}
    for drafts in (0.0, 1.0):
        task = make_task("decoder", recipe, clip, known=0.5, drafts=drafts)
        oracle = Oracle(task.codec.encode(images))
        loss, _ = task.loss(oracle, Batch(images, captions, seeded()))
        losses[drafts] = oracle.t, oracle.conditioning["hint"].flatten(1).any(1), loss.item()
    (t, known, loss), (draft_t, still_known, draft_loss) = losses[0.0], losses[1.0]
    assert torch.equal(known, still_known) and known.any() and not known.all()
    assert t[~known].max() > 800 and draft_t[~known].max() < 600 and draft_t[known].max() > 600
    assert loss == pytest.approx(0, abs=1e-10) and draft_loss > 0.01  # the targets are shifted


def test_the_pooled_text_is_left_out(recipe: Recipe, clip: FrozenClip):
    def times(**options) -> Tensor:
        torch.manual_seed(1)
        task = make_task("decoder", recipe, clip, embed_drop=1.0, text_drop=0.0, **options)
        images, captions = example_images(task.size, 16)
        oracle = Oracle(task.codec.encode(images))
        task.loss(oracle, Batch(images, captions, seeded()))
        return oracle.conditioning["time_condition"]  # b t: by the text alone

    with_text, without, mixed = times(), times(pooled_drop=1.0), times(pooled_drop=0.5)
    assert len(with_text.unique(dim=0)) == len(CAPTIONS) and len(without.unique(dim=0)) == 1
    dropped = [bool(torch.allclose(row, other)) for row, other in zip(mixed, without, strict=True)]
    assert 0 < sum(dropped) < 16
    assert all(drop or torch.allclose(row, text) for row, text, drop in zip(mixed, with_text, dropped, strict=True))


def test_layouts_are_told_or_left_open_and_never_beside_known_pixels(recipe: Recipe, clip: FrozenClip, monkeypatch):
    stage = recipe.stage("decoder")
    scenes = SceneTable(layouts=True, spread=1)
    layouts = torch.tensor([random_layout(i, 1) for i in range(16)])
    images, captions = example_images(16, 16)
    for options, expected in (
        ({"layout_drop": 0.0, "known": 0.0}, layouts),
        ({"layout_drop": 1.0, "known": 0.0}, torch.zeros_like(layouts)),
        ({"layout_drop": 0.0, "known": 1.0}, torch.zeros_like(layouts)),
    ):
        changed = replace(with_options("decoder", stage, **options), data_options=scenes)
        task = new_task("decoder", changed, clip, example_images)
        assert isinstance(task, DecoderTask) and task.network.has_layouts
        oracle = Oracle(task.codec.encode(images))
        task.loss(oracle, Batch(images, captions, seeded(), layouts=layouts))
        given = oracle.conditioning["coordinates"]
        assert torch.equal(given, layout_map(expected, 4))


def test_the_inpainting_decoder_leaves_layouts_open_as_edits_do(recipe: Recipe, clip: FrozenClip):
    scenes = SceneTable(layouts=True, spread=1)
    decoder = new_task("decoder", replace(recipe.stage("decoder"), data_options=scenes), clip, example_images)
    assert isinstance(decoder, DecoderTask) and decoder.network.has_layouts
    images, captions = example_images(16, 16)
    layouts = torch.tensor([random_layout(i, 1) for i in range(16)])
    for options, expected in (({}, torch.zeros_like(layouts)), ({"layout_drop": 0.0}, layouts)):
        changed = with_options("inpainting_decoder", recipe.stage("inpainting_decoder"), known=0.0, **options)
        task = new_task("inpainting_decoder", changed, clip, example_images, decoder.stage())
        assert isinstance(task, DecoderTask)
        oracle = Oracle(task.codec.encode(images))
        task.loss(oracle, Batch(images, captions, seeded(), layouts=layouts))
        assert torch.equal(oracle.conditioning["coordinates"], layout_map(expected, 4))
