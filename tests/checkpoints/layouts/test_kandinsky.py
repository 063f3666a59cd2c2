"""Kandinsky 2.2: this pipeline gives the same images as diffusers' own."""

import numpy as np
import pytest
import torch
from diffusers import KandinskyV22InpaintPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline

from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from tests.sampling import sample_tensors
from unclip import Unclip
from unclip.diffusion.noise import make_generators
from unclip.inference.conditions import Known
from unclip.modes.base import make_conditioning, make_run
from unclip.requests.request import Request


@pytest.fixture(scope="module", params=SIZES_2_2)
def both(request, tmp_path_factory) -> tuple[Unclip, KandinskyV22PriorPipeline, KandinskyV22Pipeline]:
    """A checkpoint, loaded by this project and by diffusers."""
    folder, size = tmp_path_factory.mktemp(request.param), SIZES_2_2[request.param]
    prior, decoder = kandinsky_prior(size, folder), kandinsky_decoder(size)
    prior.save_pretrained(folder / "kandinsky-2-2-prior")
    decoder.save_pretrained(folder / "decoder")
    return Unclip.from_pretrained(folder / "decoder", "cpu", "float32"), prior, decoder


@pytest.fixture(scope="module", params=SIZES_2_2)
def inpainters(request, tmp_path_factory) -> tuple[Unclip, KandinskyV22PriorPipeline, KandinskyV22InpaintPipeline]:
    """An inpainting checkpoint, loaded by this project and by diffusers."""
    folder, size = tmp_path_factory.mktemp(request.param), SIZES_2_2[request.param]
    prior, decoder = kandinsky_prior(size, folder), kandinsky_decoder(size, inpaint=True, clip_sample=False)
    prior.save_pretrained(folder / "kandinsky-2-2-prior")
    decoder.save_pretrained(folder / "decoder")
    return Unclip.from_pretrained(folder / "decoder", "cpu", "float32"), prior, decoder


def sample_diffusers(both, requests: list[Request], **inputs) -> np.ndarray:
    """Images `b h w 3` in [0, 1] of diffusers. inputs: image and mask of an inpainting."""
    _, prior, decoder = both
    first, noise = requests[0], make_generators([request.seed for request in requests])
    negative = [request.negative_prompt for request in requests] if first.negative_prompt else None
    embeds = prior(
        [request.prompt for request in requests],
        negative_prompt=negative,
        num_inference_steps=first.prior_steps,
        guidance_scale=first.prior_guidance,
        generator=noise * (1 if negative is None else 2),
    )
    return decoder(
        image_embeds=embeds.image_embeds,
        negative_image_embeds=embeds.negative_image_embeds,
        width=first.size[0],
        height=first.size[1],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        generator=noise,
        output_type="np",
        **inputs,
    ).images


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        (["a red cat!"], {}),
        (["a red cat!", "two dogs"], {"prior_steps": 2, "steps": 7}),
        (["a red cat!"], {"size": (48, 32)}),
        (["a cat"], {"negative_prompt": "blurry dogs"}),
        (["a cat", "two dogs"], {"negative_prompt": "blurry dogs", "guidance": 2.0, "prior_guidance": 1.5}),
        (["a cat"], {"steps": 30}),
    ],
)
def test_images_are_those_of_diffusers(both, prompts: list[str], fields: dict) -> None:
    ours, _, _ = both
    fields = {"prior_steps": 3, "steps": 4} | fields
    requests = [ours.resolve(Request(prompt=p, seed=7 + i, **fields)) for i, p in enumerate(prompts)]
    images = sample_tensors(ours, requests)
    found = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    expected = sample_diffusers(both, requests)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) > 2 / 255).mean() < 0.01  # random weights amplify rounding here and there
    assert np.median(np.abs(found - expected)) < 1e-4
    inside = (expected > 0.02) & (expected < 0.98)
    assert inside.mean() > 0.2 and expected.std() > 0.05  # most pixels are not clipped to black or white


@pytest.mark.parametrize(
    "fields", [{}, {"steps": 9}, {"size": (48, 32)}, {"negative_prompt": "blurry dogs"}, {"guidance": 1.5}]
)
def test_inpaintings_are_those_of_diffusers(inpainters, fields: dict) -> None:
    ours, _, _ = inpainters
    fields = {"prior_steps": 3, "steps": 4, "size": ours.model.sizes[0]} | fields
    request = ours.resolve(Request(prompt="a red cat", seed=9, **fields))
    width, height = request.size
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, height, width)
    mask[..., 8:24, 4:20] = 1  # to repaint
    run = make_run(ours.model, [request])
    text, negative = ours.model.encode_text([request.prompt]), ours.model.encode_text([request.negative_prompt])
    conditioning = make_conditioning(ours.model, [None], text, negative, run)
    [small] = ours.model.decode(conditioning, run, Known(image, 1 - mask))
    found = ((small.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    [expected] = sample_diffusers(inpainters, [request], image=image, mask_image=mask.clone())
    different = np.abs(found - expected) > 2 / 255
    assert different.mean() < 0.02  # random weights amplify rounding here and there
    assert np.median(np.abs(found - expected)) < 1e-4
    assert expected.std() > 0.05
