import numpy as np
import torch
from PIL import Image

from tests.tiny import UPSAMPLER, tiny_network
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.upsampler import Upsampler, enlarge


def test_output_is_that_of_diffusers_unet_on_both_images() -> None:
    network = Upsampler(tiny_network("UNet2DModel", UPSAMPLER))
    x, small, t = torch.randn(2, 48, 8, 8), torch.randn(2, 48, 8, 8), torch.tensor([9, 9])
    out = network(x, t, small)
    torch.testing.assert_close(out, network.unet(torch.cat([x, small], dim=1), timestep=9).sample)
    assert not torch.allclose(out, network(x, t, -small), atol=1e-3)


def test_difference_adds_the_enlarged_image() -> None:
    network = Upsampler(tiny_network("UNet2DModel", UPSAMPLER))
    x, enlarged, t = torch.randn(2, 48, 8, 8), torch.randn(2, 48, 8, 8), torch.tensor([9, 9])
    adding = Upsampler(network.unet, difference=True)
    torch.testing.assert_close(adding(x, t, enlarged), enlarged + network(x, t, enlarged))


def test_the_enlarged_image_is_not_rounded_to_bfloat16() -> None:
    unet = tiny_network("UNet2DModel", UPSAMPLER).to(torch.bfloat16)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    enlarged = torch.rand(1, 48, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert not torch.equal(enlarged.to(torch.bfloat16).float(), enlarged)
    stage = Stage("upsampler", Upsampler(unet, difference=True), Schedule(prediction_type="sample"), (48, 8, 8))
    sampled = stage.run(
        StageInputs({"enlarged": enlarged}), make_generators([0]), StageOptions(steps=2, sampler="ddim")
    )
    assert torch.equal(sampled, enlarged)


def test_any_size_is_accepted() -> None:
    network = Upsampler(tiny_network("UNet2DModel", UPSAMPLER))
    x = torch.randn(1, 48, 4, 6)
    assert network(x, torch.tensor([9]), x).shape == x.shape


def test_enlarge_equals_pillow() -> None:
    pixels = np.random.default_rng(0).integers(40, 215, (12, 10, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((30, 24), Image.Resampling.BICUBIC)).astype(float)
    images = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours = ((enlarge(images, (30, 24)) + 1) * 127.5).clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert ours.shape == (24, 30, 3)
    assert np.abs(ours - expected).max() < 1.5


def test_enlarge_clamps_first() -> None:
    images = torch.randn(1, 3, 4, 4) * 3
    assert torch.equal(enlarge(images, (8, 8)), enlarge(images.clamp(-1, 1), (8, 8)))
