import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction, denoiser
from unclip.diffusion.guidance import GuidedSteps, guided
from unclip.diffusion.schedule import Schedule

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
T = torch.tensor([10, 700])
COND = {"label": torch.tensor([1.0, 2.0])}
UNCOND = {"label": torch.tensor([0.0, 0.0])}


class Net:
    """Output depends on x, t and the label; remembers the batches it was given."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.batches: list[int] = []

    def bind(self, conditioning: dict[str, Tensor], halves: tuple[str, ...]) -> Denoise:
        def network(x: Tensor, t: Tensor) -> Tensor:
            self.batches.append(len(x))
            output = self.output(x, t, conditioning["label"])
            if self.schedule.variance_type == "learned_range":
                output = torch.cat([output, conditioning["label"].view(-1, 1, 1, 1).expand_as(x)], dim=1)
            return output

        return denoiser(network, self.schedule)

    @staticmethod
    def output(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.sin(x + t.view(-1, 1, 1, 1) / 100 + label.view(-1, 1, 1, 1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_guiding_x0_is_guiding_the_networks_output(prediction_type: str) -> None:
    schedule, scale = Schedule(prediction_type=prediction_type), 4.0
    u, c = Net.output(X, T, UNCOND["label"]), Net.output(X, T, COND["label"])
    expected = denoiser(lambda x, t: u + scale * (c - u), schedule)(X, T).x0
    actual = guided(Net(schedule).bind, COND, UNCOND, scale)(X, T).x0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_x0_is_linear_in_the_scale() -> None:
    net = Net(Schedule())
    zero, one, three = (guided(net.bind, COND, UNCOND, scale)(X, T).x0 for scale in (0, 1, 3))
    torch.testing.assert_close(three, zero + 3 * (one - zero), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "batch"), [(0, 2), (1, 2), (0.5, 4), (3.0, 4)])
def test_scales_0_and_1_evaluate_one_half_only(scale: float, batch: int) -> None:
    net = Net(Schedule())
    guided(net.bind, COND, UNCOND, scale)(X, T)
    assert net.batches == [batch]


def test_conditioning_is_bound_once_for_all_steps() -> None:
    net, bound = Net(Schedule()), []

    def bind(conditioning: dict[str, Tensor], halves: tuple[str, ...]) -> Denoise:
        bound.append((halves, conditioning["label"].tolist()))
        return net.bind(conditioning, halves)

    denoise = guided(bind, COND, UNCOND, 2.0)
    denoise(X, T)
    denoise(X, T)
    assert bound == [(("uncond", "cond"), [0.0, 0.0, 1.0, 2.0])]  # unconditional half first


def test_the_variance_is_the_conditional_one() -> None:
    net = Net(Schedule(variance_type="learned_range"))
    prediction = guided(net.bind, COND, UNCOND, 2.0)(X, T)
    assert torch.equal(prediction.variance, COND["label"].view(-1, 1, 1, 1).expand_as(X))


def test_scale_1_needs_no_unconditional_input() -> None:
    guided(Net(Schedule()).bind, COND, None, 1)(X, T)
    with pytest.raises(AssertionError, match="uncond"):
        guided(Net(Schedule()).bind, COND, None, 2)


# ---- guidance at some steps

STEPS = [900, 700, 500, 300, 100]


def predictions(steps: GuidedSteps, times: list[int] = STEPS, scale: float = 3.0) -> tuple[Net, list[Prediction]]:
    net = Net(Schedule())
    denoise = guided(net.bind, COND, UNCOND, scale, steps)
    return net, [denoise(X, torch.tensor([t, t])) for t in times]


def plain(scale: float, t: int) -> Tensor:
    return guided(Net(Schedule()).bind, COND, UNCOND, scale)(X, torch.tensor([t, t])).x0


def test_guidance_at_every_step_and_noise_level_is_plain_guidance() -> None:
    for steps in (GuidedSteps(Schedule()), GuidedSteps(Schedule(), (0, 100_000), 1)):
        net, found = predictions(steps)
        assert net.batches == [4] * 5
        assert all(torch.equal(each.x0, plain(3.0, t)) for each, t in zip(found, STEPS, strict=True))


def test_guidance_is_1_outside_of_the_interval() -> None:
    levels = [((1 - ab) / ab) ** 0.5 for ab in Schedule().alphas_cumprod()[STEPS].tolist()]  # falling
    net, found = predictions(GuidedSteps(Schedule(), (levels[3], levels[1])))  # above the one, up to the other
    assert net.batches == [2, 4, 4, 2, 2]
    for each, t, scale in zip(found, STEPS, (1, 3, 3, 1, 1), strict=True):
        assert torch.equal(each.x0, plain(scale, t))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_one_half_suffices_outside_of_the_interval(scale: float) -> None:
    net, found = predictions(GuidedSteps(Schedule(), (0.5, 5)), scale=scale)
    assert net.batches == [2] * 5
    guided_at = [0.5 < ((1 - ab) / ab) ** 0.5 <= 5 for ab in Schedule().alphas_cumprod()[STEPS].tolist()]
    assert any(guided_at) and not all(guided_at)
    for each, t, inside in zip(found, STEPS, guided_at, strict=True):
        assert torch.equal(each.x0, plain(scale if inside else 1.0, t))


def test_the_difference_is_reused_between_every_kth_step() -> None:
    net, found = predictions(GuidedSteps(Schedule(), every=2))
    assert net.batches == [4, 2, 4, 2, 4]
    ab = Schedule().alphas_cumprod()
    for i, t in enumerate(STEPS):
        if i % 2 == 0:
            assert torch.equal(found[i].x0, plain(3.0, t))
            continue
        before = STEPS[i - 1]
        velocity = (plain(1.0, before) - plain(0.0, before)) / (1 - ab[before]).sqrt()
        expected = plain(1.0, t) + 2 * velocity * (1 - ab[t]).sqrt()
        torch.testing.assert_close(found[i].x0, expected, rtol=1e-4, atol=1e-4)


def test_the_reused_difference_is_of_clamped_images() -> None:
    _, found = predictions(GuidedSteps(Schedule(), every=2, limit=0.1), [999, 700])
    between = found[1].x0 - plain(1.0, 700)
    assert 0 < between.abs().max() <= 2 * 0.2


def test_more_noise_than_before_computes_guidance_again() -> None:
    net, _ = predictions(GuidedSteps(Schedule(), every=3), [900, 700, 900, 700, 500, 300])
    assert net.batches == [4, 2, 4, 2, 2, 4]
