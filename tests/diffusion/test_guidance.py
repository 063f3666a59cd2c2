import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, denoiser
from unclip.diffusion.guidance import guided
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
