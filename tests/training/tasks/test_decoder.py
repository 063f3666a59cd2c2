"""The decoder's task: conditioning left out, known pixels, windows, drafts and the initial projection."""

import pytest
import torch
from torch import Tensor, nn

from tests.training.tasks.helpers import CAPTIONS, Oracle, example_images, make_task, seeded
from unclip.training.augmentation import add_known_regions, is_unknown_uniform
from unclip.training.recipe import Recipe
from unclip.training.tasks.decoder import whiten_inputs_
from unclip.training.tasks.frozen_clip import FrozenClip


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_captions_are_left_out(recipe: Recipe, clip: FrozenClip, monkeypatch, share: float):
    task, texts = make_task("decoder", recipe, clip, text_drop=share), []
    condition = task.network.condition

    def noted(*args, **options):
        texts.append(args[1])
        return condition(*args, **options)

    monkeypatch.setattr(task.network, "condition", noted)
    images, captions = example_images(task.size, 4)
    task.loss(task.network, images, captions, seeded())
    expected = clip.encode_text([""] * 4 if share else captions)
    used = ("mask", "tokens")  # the decoder encodes the tokens itself
    assert all(torch.equal(getattr(texts[0], field), getattr(expected, field)) for field in used)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_embeddings_are_left_out(recipe: Recipe, clip: FrozenClip, monkeypatch, share: float):
    task, embeds = make_task("decoder", recipe, clip, embed_drop=share), []
    condition = task.network.condition
    monkeypatch.setattr(
        task.network, "condition", lambda *args, **kw: (embeds.append(args[0]), condition(*args, **kw))[1]
    )
    images, captions = example_images(task.size, 4)
    task.loss(task.network, images, captions, seeded())
    null = task.network.projection.null_embed.expand(4, -1)
    assert torch.equal(embeds[0], null if share else clip.encode_images(images))


def test_the_text_encoder_starts_with_clips_weights(recipe: Recipe, clip: FrozenClip):
    task = make_task("decoder", recipe, clip)
    text = clip.encode_text(CAPTIONS)
    own = task.network.text_encoder(text)
    torch.testing.assert_close(own.states, text.states)
    assert set(task.networks()) == {"decoder", "text_proj", "decoder_text"}
    assert set(make_task("decoder", recipe, clip, own_text=False).networks()) == {"decoder", "text_proj"}


def test_whitening_gives_every_direction_equal_variance():
    """Two loud directions and six quiet ones come out as loud as each other; what is far quieter stays so."""
    g = seeded()
    loudness = torch.tensor([5.0, 5.0, *[0.5] * 6, 1e-3])
    turned = torch.linalg.qr(torch.randn(9, 9, generator=g)).Q
    inputs = torch.randn(4000, 9, generator=g) * loudness @ turned
    torch.manual_seed(0)
    linear = nn.Linear(9, 64)
    plain = linear.weight.detach() @ turned.T
    whiten_inputs_(linear, inputs, floor=0.1)
    gain = (linear.weight @ turned.T / plain).mean(0) * loudness  # of each direction, times how loud it is
    assert gain[:8].max() / gain[:8].min() < 1.3
    assert gain[8] < 0.02 * gain[0]
    torch.testing.assert_close((inputs @ linear.weight.T).std(), torch.tensor(1.0))


def test_the_network_sees_only_the_known_pixels(recipe: Recipe, clip: FrozenClip):
    task = make_task("decoder", recipe, clip, known=1.0)
    images, captions = example_images(task.size, 16)
    x0 = task.codec.encode(images)
    oracle = Oracle(x0)
    assert task.loss(oracle, images, captions, seeded())[0].item() == pytest.approx(0, abs=1e-10)
    hint = oracle.conditioning["hint"]  # b 48+16 4 4
    picture, mask = hint[:, :48], hint[:, 48:].repeat(1, 3, 1, 1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(picture, x0 * mask)
    assert make_task("decoder", recipe, clip, known=0.0).loss(oracle, images, captions, seeded())
    assert not oracle.conditioning["hint"].any()


def test_windows_are_conditioned_on_the_whole_image(recipe: Recipe, clip: FrozenClip):
    options = {"embed_drop": 0.0, "text_drop": 1.0, "pooled_drop": 1.0}
    images, captions = example_images(16, 16)
    told = {}
    for moved in (0.0, 1.0):
        torch.manual_seed(1)
        task = make_task("decoder", recipe, clip, known=1.0, moved=moved, **options)
        oracle = Oracle(task.codec.encode(images))
        task.loss(oracle, images, captions, seeded())
        told[moved] = oracle.conditioning
        hint = oracle.conditioning["hint"]
        seen = task.codec.decode(hint[:, :48])  # b 3 16 16
        mask = hint[:, 48:].unflatten(1, (1, 16)).any(2)  # b 1 4 4: where anything is known
        apart = ((seen != images) & (seen != 0)).flatten(1).any(1)
        assert bool(apart.any()) == bool(moved)  # other pixels than the picture has there
        if moved:
            assert torch.stack([mask[..., 0, 0], mask[..., 0, -1], mask[..., -1, 0], mask[..., -1, -1]]).any(0).all()
    same = (told[0.0]["time_condition"] == told[1.0]["time_condition"]).all(1)
    assert same.sum() >= 12  # in the others, all that moved is beyond the window, and nothing is told


def test_windows_with_nothing_to_generate_are_unconditional(recipe: Recipe, clip: FrozenClip):
    images = torch.full((64, 3, 16, 16), -0.5)
    images[..., 4:-4, 4:-4] = torch.linspace(-0.2, 0.9, 64)[:, None, None, None]
    generator = seeded()
    torch.rand(2, 64, generator=generator)  # what is left out by chance
    drawn, known, window = add_known_regions(images, generator, known=1.0, moved=1.0, beside=0.5, views=0.5)
    bare = window & is_unknown_uniform(drawn, known)
    options = {"known": 1.0, "moved": 1.0, "beside": 0.5, "views": 0.5}
    task = make_task("decoder", recipe, clip, embed_drop=0.0, text_drop=0.9, **options)
    oracle = Oracle(task.codec.encode(images))
    task.loss(oracle, images, [CAPTIONS[i % 4] for i in range(64)], seeded())
    tokens, times = oracle.conditioning["token_mask"].sum(1), oracle.conditioning["time_condition"]
    assert 8 < bare.sum() < 56
    assert len(times[bare].unique(dim=0)) == 1 and len(times[window & ~bare].unique(dim=0)) > 8
    assert len(tokens[bare].unique()) == 1
    assert tokens[window & ~bare].min() > tokens[bare].max()  # where there is something it is said, whatever text_drop


def test_known_parts_with_something_to_generate_keep_a_condition(recipe: Recipe, clip: FrozenClip):
    """However often both are left out: a text where the embedding is, and of what is bare often neither."""
    images = torch.full((64, 3, 16, 16), -0.5)
    images[..., 4:-4, 4:-4] = torch.linspace(-0.2, 0.9, 64)[:, None, None, None]
    generator = seeded()
    torch.rand(2, 64, generator=generator)  # what is left out by chance
    drawn, known, _ = add_known_regions(images, generator, known=0.9, moved=1e-9, beside=0.0, views=0.0)
    given = known.flatten(1).any(1)
    bare = given & is_unknown_uniform(drawn, known)
    assert given.sum() > 50 and bare.sum() > 6 and not given.all()

    def told(**options) -> tuple[Tensor, Tensor]:
        oracle = Oracle(make_task("decoder", recipe, clip).codec.encode(images))
        task = make_task("decoder", recipe, clip, known=0.9, moved=1e-9, pooled_drop=1.0, **options)
        task.loss(oracle, images, [CAPTIONS[i % 4] for i in range(64)], seeded())
        tokens, times = oracle.conditioning["token_mask"].sum(1), oracle.conditioning["time_condition"]
        return tokens > tokens.min(), (times != times[bare][:1]).any(1)  # has it a text, has it an embedding

    read, shown = told(embed_drop=1.0, text_drop=1.0)
    assert not shown.any() and not read[~given].any() and read[given & ~bare].all()
    assert 0 < read[bare].sum() < bare.sum()
    read, shown = told(embed_drop=0.5, text_drop=1.0)
    assert (read ^ shown)[given & ~bare].all() and shown[given & ~bare].any() and not read[~given].any()


def test_drafts_are_trained_at_the_noise_levels_of_drafts(recipe: Recipe, clip: FrozenClip):
    images, captions = example_images(16, 64)
    seen = {}
    for drafts in (0.0, 1.0):
        task = make_task("decoder", recipe, clip, known=0.5, drafts=drafts)
        oracle = Oracle(task.codec.encode(images))
        loss, _ = task.loss(oracle, images, captions, seeded())
        seen[drafts] = oracle.t, oracle.conditioning["hint"].flatten(1).any(1), loss.item()
    (t, known, loss), (drafted, still_known, moved_loss) = seen[0.0], seen[1.0]
    assert torch.equal(known, still_known) and known.any() and not known.all()
    assert t[~known].max() > 800 and drafted[~known].max() < 600 and drafted[known].max() > 600
    assert loss == pytest.approx(0, abs=1e-10) and moved_loss > 0.01  # other example_images were to be drawn


def test_the_pooled_text_is_left_out(recipe: Recipe, clip: FrozenClip):
    def times(**options) -> Tensor:
        torch.manual_seed(1)
        task = make_task("decoder", recipe, clip, embed_drop=1.0, text_drop=0.0, **options)
        images, captions = example_images(task.size, 16)
        oracle = Oracle(task.codec.encode(images))
        task.loss(oracle, images, captions, seeded())
        return oracle.conditioning["time_condition"]  # b t: by the text alone

    heard, silent, mixed = times(), times(pooled_drop=1.0), times(pooled_drop=0.5)
    assert len(heard.unique(dim=0)) == len(CAPTIONS) and len(silent.unique(dim=0)) == 1
    which = [bool(torch.allclose(row, quiet)) for row, quiet in zip(mixed, silent, strict=True)]
    assert 0 < sum(which) < 16
    assert all(quiet or torch.allclose(row, loud) for row, loud, quiet in zip(mixed, heard, which, strict=True))
