"""Stages that know that their network was distilled."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from torch import Tensor, nn

from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule
from unclip.errors import RequestError
from unclip.inference.distillation import Distillation, embed_guidance
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions

FIXED = Distillation("teacher", (2.0, 2.0))
EMBEDDED = Distillation("teacher", (1.0, 4.0))
FEW_STEPS = Distillation("teacher", (1.0, 4.0), segments=4)


class Net(nn.Module):
    """Records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, **inputs: Tensor) -> Tensor:
        self.calls.append(inputs)
        return 0.5 * x + inputs["prompt"]


def stage(distillation: Distillation) -> Stage:
    schedule = Schedule(prediction_type="sample")
    return Stage("decoder", Net(), schedule, (3, 4, 4), guidance=2.0, steps=3, distillation=distillation)


def run(stage: Stage, guidance: float | None = None) -> Tensor:
    cond, uncond = ({"prompt": value * torch.ones(2, 1, 1, 1)} for value in (0.2, -0.2))
    return stage.run(StageInputs(cond, uncond), make_generators([1, 2]), StageOptions(guidance=guidance))


def test_a_step_takes_one_evaluation_of_the_conditional_inputs():
    one, plain = stage(FIXED), replace(stage(FIXED), distillation=None)
    torch.testing.assert_close(run(one), run(plain, guidance=1.0))
    assert all(call["prompt"].tolist() == [[[[pytest.approx(0.2)]]]] * 2 for call in one.network.calls)
    assert len(one.network.calls) == 3 and not any("guidance_embed" in call for call in one.network.calls)


def test_the_scale_reaches_the_network():
    one = stage(EMBEDDED)
    run(one, guidance=3.0)
    for call in one.network.calls:
        torch.testing.assert_close(call["guidance_embed"], embed_guidance(torch.tensor([3.0, 3.0])))


@pytest.mark.parametrize(("distillation", "guidance"), [(FIXED, 1.0), (FIXED, 0.0), (EMBEDDED, 4.5), (EMBEDDED, 0.5)])
def test_another_scale_is_refused(distillation: Distillation, guidance: float):
    with pytest.raises(RequestError, match=f"guidance is {guidance:g}, and this model was distilled for"):
        run(stage(distillation), guidance)


@pytest.mark.parametrize("distillation", [FIXED, FEW_STEPS])
def test_inversion_needs_the_mean_without_guidance(distillation: Distillation):
    image, cond = torch.zeros(1, 3, 4, 4), {"prompt": torch.zeros(1, 1, 1, 1)}
    with pytest.raises(RequestError, match="use its teacher teacher"):
        stage(distillation).invert(image, cond)
    one = stage(EMBEDDED)
    assert one.invert(image, cond).shape == (1, 3, 4, 4)
    torch.testing.assert_close(one.network.calls[0]["guidance_embed"], embed_guidance(torch.tensor([1.0])))


def test_few_steps_begin_at_the_noisiest_timestep():
    leading = Schedule(spacing="leading", steps_offset=1, ends_at_first_level=True)
    assert EMBEDDED.adapt(leading) == leading
    adapted = FEW_STEPS.adapt(leading)
    assert (adapted.spacing, adapted.ends_at_first_level) == ("linspace", False)


def test_the_scale_is_embedded_as_in_diffusers():
    scale = torch.tensor([1.0, 1.5, 4.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(SimpleNamespace(), scale - 1, 256)
    torch.testing.assert_close(embed_guidance(scale), theirs, rtol=0, atol=2e-3)  # sines of numbers in the thousands
