import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.noise import make_generators
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.tiling import Tiling
from unclip.errors import RequestError
from unclip.inference import stage as stages
from unclip.inference.callbacks import StageReport
from unclip.inference.conditions import Known, Start
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions


class Net(nn.Module):
    """A tiny v network that adds its conditioning, and remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(48, 48, 1)
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, *, colour: Tensor) -> Tensor:
        self.calls.append((x, t, colour))
        return self.conv(x) + colour[:, :, None, None]


def stage(**changes) -> Stage:
    options = dict(
        name="decoder",
        network=Net(),
        schedule=Schedule(prediction_type="v_prediction"),
        shape=(48, 4, 4),
        codec=PixelUnshuffle(4),
        sampler="ddim",
        steps=4,
        guidance=2.0,
    )
    return Stage(**(options | changes))


def run(s: Stage, cond, uncond, generators, **options) -> Tensor:
    """`Stage.run`, with the fields of its dataclasses as keywords."""
    inputs = StageInputs(cond, uncond, options.pop("tiling", None), options.pop("canvas", {}))
    known, draft = options.pop("known", None), options.pop("draft", None)
    report = StageReport(options.pop("progress", None))
    return s.run(inputs, generators, StageOptions(**options), known, Start(draft=draft), report)


COND = {"colour": torch.linspace(-1, 1, 2 * 48).view(2, 48)}
UNCOND = {"colour": torch.zeros(2, 48)}


def test_options_replace_defaults() -> None:
    s = stage()
    out = run(s, COND, UNCOND, make_generators([0, 1]))
    assert out.shape == (2, 3, 16, 16)
    assert [len(x) for x, _, _ in s.network.calls] == [4] * 4  # four steps, two items, two halves
    s = stage()
    run(s, COND, UNCOND, make_generators([0, 1]), steps=3, guidance=0.0, sampler="unclip")
    assert [int(t[0]) for _, t, _ in s.network.calls] == [999, 500, 0]
    assert all(torch.equal(colour, UNCOND["colour"]) for _, _, colour in s.network.calls)


ROOM = {"one": 2 * 64 * 4 * 4 * 4, "both": 1 << 20, "none": 1}  # bytes: of a guided item of 64 channels, 4 x 4


@pytest.mark.parametrize(("room", "sizes", "bare"), [("none", 2, 1), ("one", 2, 2), ("both", 4, 2)])
def test_chunks_of_a_batch_fit_the_memory_limit(
    room: str, sizes: int, bare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes of its calls, of two items: `sizes` with guidance, `bare` without."""
    cond, uncond, whole = COND, UNCOND, stage(last_network=Net())
    monkeypatch.setattr(stages, "CHUNK_BYTES", {"cpu": ROOM[room]})
    parted = stage(last_network=copy.deepcopy(whole.last_network), network=copy.deepcopy(whole.network))
    parted.network.width = 64
    for guidance, size in ((2.0, sizes), (1.0, bare)):
        made = [run(s, cond, uncond, make_generators([0, 1]), guidance=guidance) for s in (parted, whole)]
        torch.testing.assert_close(*made)
        calls = [len(x) for net in (parted.network, parted.last_network) for x, _, _ in net.calls]
        each = (4 if guidance == 2 else 2) // size
        assert calls == [size] * each * 4  # of which the last step's are those of the last network
        assert len(parted.last_network.calls) == each
        parted.network.calls.clear(), parted.last_network.calls.clear()
    back = [s.invert(made[1], cond, StageOptions(steps=4)) for s in (parted, whole)]
    torch.testing.assert_close(*back)
    assert {len(x) for x, _, _ in parted.network.calls} == {bare}


@pytest.mark.parametrize(("room", "size"), [("one", 2), ("both", 8)])
def test_chunks_of_windows_fit_the_memory_limit(room: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "CHUNK_BYTES", {"cpu": ROOM[room]})
    s, tiling = stage(), Tiling(4, 12, 4, ((0, 0), (0, 2), (0, 4), (0, 6), (0, 8)), (0, 1, 0, 1, 1))
    s.network.width = 64
    assert run(s, COND, UNCOND, make_generators([0]), tiling=tiling, steps=1).shape == (1, 3, 16, 48)
    calls = [len(x) for x, _, _ in s.network.calls]
    assert calls[0] == size and sum(calls) == 10


def test_a_run_bounds_its_memory_before_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made, called = [], []
    monkeypatch.setattr(stages, "make_growth_limiter", lambda: made.append(1) or (lambda: called.append(1)))
    s = stage(last_network=Net())
    run(s, COND, UNCOND, make_generators([0, 1]))
    assert (len(made), len(called)) == (1, 4)
    s.invert(torch.zeros(2, 3, 16, 16), COND, StageOptions(steps=4))
    assert (len(made), len(called)) == (2, 4 + len(s.network.calls) - 3)
    run(replace(s, reuse=False), COND, UNCOND, make_generators([0, 1]))
    assert len(called) == 4 + len(s.network.calls) - 3 - 3


def test_samples_are_clipped_as_the_schedule_says() -> None:
    out = run(stage(), {"colour": COND["colour"] * 100}, UNCOND, make_generators([0, 1]))
    assert out.abs().max() == 1
    loose = stage(schedule=Schedule(prediction_type="v_prediction", clip=None))
    assert run(loose, {"colour": COND["colour"] * 100}, UNCOND, make_generators([0, 1])).abs().max() > 1


def test_guidance_moves_away_from_the_unconditional_sample() -> None:
    means = [run(stage(), COND, UNCOND, make_generators([0, 1]), guidance=g)[1].mean() for g in (0.0, 1.0, 2.0)]
    assert means[0] > means[1] > means[2]  # x0 falls with v, and the second colour is positive


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_network_runs_in_its_own_precision_and_the_sampler_in_float32(dtype: torch.dtype) -> None:
    s = stage()
    s.network.to(dtype)
    out = run(s, COND, UNCOND, make_generators([0, 1]))
    assert out.dtype == torch.float32
    for x, t, colour in s.network.calls:
        assert (x.dtype, t.dtype, colour.dtype) == (dtype, torch.int64, dtype)
    torch.testing.assert_close(out, run(stage(), COND, UNCOND, make_generators([0, 1])), rtol=0, atol=0.2)


def test_integer_and_boolean_conditioning_keeps_its_type() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

        def forward(self, x: Tensor, t: Tensor, mask: Tensor, label: Tensor) -> Tensor:
            assert (mask.dtype, label.dtype) == (torch.bool, torch.int64)
            return x * self.weight

    cond = {"mask": torch.ones(2, 7, dtype=torch.bool), "label": torch.tensor([1, 2])}
    out = run(stage(network=Picky(), guidance=1.0), cond, None, make_generators([0, 1]))
    assert out.isfinite().all()


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_known_pixels_come_out_bit_for_bit(sampler: str) -> None:
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    mask = (torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(6)) > 0.5).float()
    out = run(stage(), COND, UNCOND, make_generators([0, 1]), sampler=sampler, known=Known(image, mask))
    keep = mask.bool().expand_as(image)
    assert torch.equal(out[keep], image[keep])
    assert not torch.equal(out[~keep], image[~keep])


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_item_is_the_same_alone_and_at_every_place(sampler: str) -> None:
    s = stage()
    both = run(s, COND, UNCOND, make_generators([7, 8]), sampler=sampler)
    for i, seed in enumerate([7, 8]):
        cond, uncond = ({"colour": c["colour"][i : i + 1]} for c in (COND, UNCOND))
        alone = run(s, cond, uncond, make_generators([seed]), sampler=sampler)
        torch.testing.assert_close(alone[0], both[i], rtol=0, atol=1e-5)


def test_stages_take_their_noise_from_the_generators_in_turn() -> None:
    g = make_generators([7, 8])
    first = run(stage(), COND, UNCOND, g, sampler="unclip")
    second = run(stage(), COND, UNCOND, g, sampler="unclip")
    assert not torch.equal(first, second)
    again = make_generators([7, 8])
    assert torch.equal(run(stage(), COND, UNCOND, again, sampler="unclip"), first)
    assert torch.equal(run(stage(), COND, UNCOND, again, sampler="unclip"), second)


def test_embeddings_need_no_codec() -> None:
    class Prior(nn.Module):
        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            return text

    prior = Stage("prior", Prior(), Schedule(prediction_type="sample", clip=5.0), shape=(8,), steps=5)
    text = torch.linspace(-6, 6, 16).view(2, 8)
    torch.testing.assert_close(run(prior, {"text": text}, None, make_generators([0, 1])), text.clamp(-5, 5))


def test_a_draft_skips_the_noisiest_steps() -> None:
    s, draft = stage(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    run(s, COND, UNCOND, make_generators([0, 1]), steps=10, draft=draft)
    times = [int(t[0]) for _, t, _ in s.network.calls]
    assert times == [599, 500, 400, 300, 200, 100]
    ab = s.schedule.alphas_cumprod()[599]
    noise = torch.stack([torch.randn(48, 4, 4, generator=g) for g in make_generators([0, 1])])
    begun = ab.sqrt() * s.codec.encode(draft) + (1 - ab).sqrt() * noise
    torch.testing.assert_close(s.network.calls[0][0], begun.repeat(2, 1, 1, 1))
    with pytest.raises(RequestError, match="steps=0"):
        run(stage(), COND, UNCOND, make_generators([0, 1]), steps=0, draft=draft)


CORNERS = tuple((0, left) for left in range(0, 9, 2))
TILING = Tiling(height=4, width=12, side=4, corners=CORNERS, rows=(1, 0, 1, 1, 0))  # five windows, so two batches


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_each_window_of_a_larger_image_has_its_own_conditioning(sampler: str) -> None:
    class Hinted(Net):
        def forward(self, x: Tensor, t: Tensor, *, colour: Tensor, hint: Tensor) -> Tensor:
            hints.append(hint)
            return super().forward(x, t, colour=colour)

    hints: list[Tensor] = []
    s = stage(network=Hinted())
    image = torch.rand(1, 3, 16, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1
    mask = torch.zeros(1, 1, 16, 48)
    mask[..., :20] = 1
    canvas = {"hint": torch.arange(48.0).view(1, 1, 4, 12)}
    options = {"sampler": sampler, "known": Known(image, mask), "tiling": TILING, "canvas": canvas}
    cond, uncond = ({**each, "hint": torch.zeros(2, 1, 4, 4)} for each in (COND, UNCOND))
    out = run(s, cond, uncond, make_generators([1]), **options)
    assert out.shape == (1, 3, 16, 48) and out.abs().max() <= 1
    assert torch.equal(out[..., :20], image[..., :20]) and not torch.equal(out[..., 20:], image[..., 20:])
    first, second = s.network.calls[:2]
    colour, nothing = COND["colour"], UNCOND["colour"]
    assert torch.equal(first[2], torch.cat([nothing[[1, 0, 1, 1]], colour[[1, 0, 1, 1]]]))
    assert torch.equal(second[2], torch.cat([nothing[[0]], colour[[0]]]))
    assert torch.equal(hints[0][:4], TILING.cut(canvas["hint"])[:4]) and torch.equal(hints[0][4:], hints[0][:4])
    assert torch.equal(first[0][0, ..., 2:], first[0][1, ..., :2])  # the same noise where they overlap


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    run(stage(), COND, UNCOND, make_generators([0, 1]), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_invalid_inputs_are_refused() -> None:
    with pytest.raises(AssertionError, match="decoder: guidance 2.0 needs `uncond`"):
        run(stage(), COND, None, make_generators([0, 1]))
    with pytest.raises(AssertionError, match="colour"):
        run(stage(), COND, UNCOND, make_generators([0, 1, 2]))
    with pytest.raises(RequestError, match="euler"):
        run(stage(), COND, UNCOND, make_generators([0, 1]), sampler="euler")
    with pytest.raises(RequestError, match="steps=0"):
        run(stage(), COND, UNCOND, make_generators([0, 1]), steps=0)
