from importlib import import_module
from pathlib import Path

import pytest
import torch
from diffusers import UnCLIPPipeline, UnCLIPScheduler
from torch import Tensor

from tests.sampling import sample_tensors
from tests.tiny import CLIP, DECODER, DIM, PRIOR, TEXT_PROJ, UPSAMPLER, tiny_network
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule
from unclip.errors import UnclipError
from unclip.images.processing import to_images
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler, enlarge
from unclip.pipeline import Unclip
from unclip.requests.request import Request

# Its module differs between releases of diffusers, but the pipeline is in the same package.
UnCLIPTextProjModel = import_module(UnCLIPPipeline.__module__).UnCLIPTextProjModel


class DiffusersPipeline(UnCLIPPipeline):
    """The diffusers pipeline with our text encodings, as transformers' CLIP is not under test."""

    encoding: tuple[Tensor, Tensor, Tensor]

    def _encode_prompt(self, *_: object) -> tuple[Tensor, Tensor, Tensor]:
        return self.encoding


def test_an_image_with_nan_is_refused(tiny_model: Path) -> None:
    pipe = Unclip.from_pretrained(tiny_model, "cpu", "float32")
    next(pipe.model.decoder.network.parameters()).fill_(torch.nan)
    with pytest.raises(UnclipError, match="values that are not finite: use a lower guidance"):
        pipe.generate("a cat", size=16)


@pytest.mark.parametrize("negative", ["", "a blue dog"])
def test_generation_equals_its_stages_run_by_hand(tiny: Unclip, negative: str) -> None:
    [result] = tiny.generate("a red cat", negative_prompt=negative, seed=9, prior_best_of=1, prior_sampler="unclip")
    text, without = tiny.model.encode_text(["a red cat"]), tiny.model.encode_text([negative])
    noise = make_generators([9])  # one after another through the stages
    prior, decoder, [upsampler] = tiny.model.prior.stage, tiny.model.decoder, tiny.model.upsamplers
    inputs = StageInputs(prior.network.condition(text), prior.network.condition(without))
    x = prior.run(inputs, noise, StageOptions(sampler="unclip"))
    embed = prior.network.unwhiten(x)
    nothing = decoder.network.projection.null_embed[None]
    cond, uncond = decoder.network.condition(embed, text), decoder.network.condition(nothing, without)
    x = decoder.run(StageInputs(cond, uncond), noise)
    x = upsampler.run(StageInputs({"enlarged": upsampler.codec.encode(enlarge(x, (32, 32)))}), noise)
    assert result.image.tobytes() == to_images(x)[0].tobytes()


def test_results_equal_those_of_the_diffusers_pipeline() -> None:
    clip = tiny_network("Clip", {**CLIP, "normalize": False})
    prior = tiny_network("PriorTransformer", PRIOR)
    text_proj = tiny_network("TextProjection", TEXT_PROJ)
    sides = {"in_channels": 3, "out_channels": 6, "sample_size": 8}
    decoder = tiny_network("UNet2DConditionModel", {**DECODER, **sides})
    upsampler = tiny_network("UNet2DModel", {**UPSAMPLER, "in_channels": 6, "out_channels": 3, "sample_size": 16})
    schedules = (
        Schedule(prediction_type="sample", clip=5.0),
        # Not "epsilon", as Karlo has it: at t = 999 that multiplies rounding errors by 20,000.
        Schedule(prediction_type="sample", variance_type="learned_range"),
        Schedule(prediction_type="sample"),
    )
    stages = (
        Stage("prior", Prior(prior), schedules[0], (DIM,), steps=3, guidance=4.0),
        Stage("decoder", Decoder(text_proj, decoder), schedules[1], (3, 8, 8), steps=4, guidance=8.0),
        Stage("upsampler", Upsampler(upsampler), schedules[2], (3, 16, 16), steps=2),
    )
    model = UnclipModel("karlo", clip, DiffusionPrior(stages[0]), stages[1], stages[2:], torch.device("cpu"))
    pipe = Unclip(model)

    prompts, seeds = ["a red cat", "a dog"], [4, 17]
    requests = [Request(prompt=p, seed=s, prior_best_of=1) for p, s in zip(prompts, seeds, strict=True)]
    ours = sample_tensors(pipe, [pipe.resolve(request) for request in requests])

    schedulers = [UnCLIPScheduler.from_config(schedule.to_config()) for schedule in schedules]
    for scheduler in schedulers:  # whose last step, to x0, is off by 0.05% in float32
        scheduler.betas[0] = 1 - scheduler.alphas_cumprod[0]
    projection = UnCLIPTextProjModel(**TEXT_PROJ)
    projection.load_state_dict(text_proj.state_dict())
    theirs = DiffusersPipeline(prior, decoder, None, None, projection, upsampler, upsampler, *schedulers)
    theirs.set_progress_bar_config(disable=True)
    halves = zip(pipe.model.encode_text(["", ""])[:3], pipe.model.encode_text(prompts)[:3], strict=True)
    theirs.encoding = tuple(torch.cat(half) for half in halves)
    images = theirs(
        prompts,
        generator=make_generators(seeds),
        prior_num_inference_steps=3,
        decoder_num_inference_steps=4,
        super_res_num_inference_steps=2,
        prior_guidance_scale=4.0,
        decoder_guidance_scale=8.0,
        output_type="np",
    ).images  # b h w 3, in [0, 1]
    expected = torch.tensor(images).permute(0, 3, 1, 2)
    torch.testing.assert_close((ours.clamp(-1, 1) + 1) / 2, expected, rtol=0, atol=1e-3)
    assert expected.std() > 0.05
