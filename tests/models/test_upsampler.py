import numpy as np
import torch
from PIL import Image

from tests.tiny import UPSAMPLER, tiny_network
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule
from unclip.inference.stage import Stage
from unclip.models.upsampler import Upsampler, enlarge


def test_it_is_the_unet_with_the_enlarged_picture_as_more_channels() -> None:
    network = Upsampler(tiny_network("UNet2DModel", UPSAMPLER))
    x, small, t = torch.randn(2, 48, 8, 8), torch.randn(2, 48, 8, 8), torch.tensor([9, 9])
    out = network(x, t, small)
    torch.testing.assert_close(out, network.unet(torch.cat([x, small], dim=1), timestep=9).sample)
    assert not torch.allclose(out, network(x, t, -small), atol=1e-3)


def test_it_may_add_to_the_enlarged_picture() -> None:
    network = Upsampler(tiny_network("UNet2DModel", UPSAMPLER))
    x, enlarged, t = torch.randn(2, 48, 8, 8), torch.randn(2, 48, 8, 8), torch.tensor([9, 9])
    adding = Upsampler(network.unet, difference=True)
    torch.testing.assert_close(adding(x, t, enlarged), enlarged + network(x, t, enlarged))


def test_in_half_precision_the_enlarged_picture_is_not_rounded() -> None:
    unet = tiny_network("UNet2DModel", UPSAMPLER).to(torch.bfloat16)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    enlarged = torch.rand(1, 48, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert not torch.equal(enlarged.to(torch.bfloat16).float(), enlarged)
    stage = Stage("upsampler", Upsampler(unet, difference=True), Schedule(prediction_type="sample"), (48, 8, 8))
    drawn = stage.run({"enlarged": enlarged}, None, make_generators([0]), steps=2, sampler="ddim")
    assert torch.equal(drawn, enlarged)


def test_it_takes_any_size() -> None:
    network = Upsampler(tiny_network("UNet2DModel", UPSAMPLER))
    x = torch.randn(1, 48, 4, 6)
    assert network(x, torch.tensor([9]), x).shape == x.shape


def test_enlarging_is_what_pillow_does() -> None:
    pixels = np.random.default_rng(0).integers(40, 215, (12, 10, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((30, 24), Image.Resampling.BICUBIC)).astype(float)
    images = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours = ((enlarge(images, (30, 24)) + 1) * 127.5).clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert ours.shape == (24, 30, 3)
    assert np.abs(ours - expected).max() < 1.5


def test_enlarging_clamps_first() -> None:
    images = torch.randn(1, 3, 4, 4) * 3
    assert torch.equal(enlarge(images, (8, 8)), enlarge(images.clamp(-1, 1), (8, 8)))
