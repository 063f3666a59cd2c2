"""What every image promises holds with every shortcut, and a shortcut that shortens nothing changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import box_mask, difference, kept, noise_image, pixels
from unclip.diffusion.noise import make_generators
from unclip.diffusion.sampler_names import SPACING_NAMES
from unclip.diffusion.samplers import SAMPLERS
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.tiling import Tiling
from unclip.inference import stage as stages
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.pipeline import Unclip
from unclip.requests.request import Request

ALL = {
    "guidance_interval": (0.3, 30),
    "guidance_every": 2,
    "cache_every": 3,
    "upsampler_cache_every": 2,
    "spacing": "log-snr",
}
SHORTCUTS: list[dict[str, Any]] = [*({name: value} for name, value in ALL.items()), ALL]
STEPS = {"steps": 7, "prior_steps": 2, "upsampler_steps": 5}
EMPTY = {
    "guidance_interval": (0, 100_000),
    "guidance_every": 1,
    "cache_every": 1,
    "upsampler_cache_every": 1,
    "spacing": "uniform",
}

named = pytest.mark.parametrize("shortcut", SHORTCUTS, ids=lambda each: "+".join(each))


def test_shortcuts_that_shorten_nothing_change_nothing(tiny: Unclip) -> None:
    [plain], [empty] = (tiny.generate("a cat", seed=1, **STEPS, **each) for each in ({}, EMPTY))
    assert plain.image.tobytes() == empty.image.tobytes()


@named
def test_every_shortcut_changes_the_image(tiny: Unclip, shortcut: dict) -> None:
    [plain], [short] = (tiny.generate("a cat", seed=1, **STEPS, **each) for each in ({}, shortcut))
    assert difference(plain, short) > 0


@named
def test_an_image_is_the_same_alone_and_in_any_batch(
    tiny: Unclip, shortcut: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["a red cat", "dog", "a blue dog on a red cat on a red dog"]
    requests = [Request(prompt=prompt, seed=i, **STEPS, **shortcut) for i, prompt in enumerate(prompts)]
    alone = [tiny.generate(request)[0] for request in requests]
    plenty, little = 1 << 24, 1 << 12  # bytes: room for all, and for two in the decoder, one in the upsampler
    for order, room in (([0, 1, 2], plenty), ([2, 0, 1], plenty), ([0, 1, 2], little)):
        monkeypatch.setattr(stages, "CHUNK_BYTES", {"cpu": room})
        for i, result in zip(order, tiny.generate([requests[i] for i in order]), strict=True):
            assert difference(result, alone[i]) <= 1


@named
def test_a_run_keeps_nothing_for_the_next(tiny: Unclip, shortcut: dict) -> None:
    first, other, again = (tiny.generate(prompt, seed=1, **STEPS, **shortcut)[0] for prompt in ("a cat", "b", "a cat"))
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes()


@named
@pytest.mark.parametrize("resample", [1, 3])
def test_known_pixels_are_preserved(tiny: Unclip, shortcut: dict, resample: int) -> None:
    image, mask = noise_image(40, 30), box_mask((40, 30), (3, 2, 19, 18))
    [result] = tiny.inpaint(image, mask, "a cat", seed=1, resample=resample, **STEPS, **shortcut)
    assert kept(result, image, mask)


@named
def test_the_original_is_preserved_in_an_outpainting_of_several_windows(tiny: Unclip, shortcut: dict) -> None:
    image = noise_image(40, 32)
    [result] = tiny.outpaint(image, "a cat", right=60, seed=1, **STEPS, **shortcut)
    assert result.image.size == (100, 32)
    assert np.array_equal(pixels(result)[:, :40], pixels(image))


def decoder_inputs(decoder: Stage, rows: int) -> StageInputs:
    """Random conditioning of the tiny decoder."""
    g = torch.Generator().manual_seed(4)
    network: Any = decoder.network
    tokens, time = torch.randn(rows, 17, 24, generator=g), torch.randn(rows, 64, generator=g)
    hint = torch.zeros(rows, 64, *decoder.shape[1:])
    mask = torch.ones(rows, 17, dtype=torch.bool)
    cond = {"tokens": tokens, "time_condition": time, "token_mask": mask, "hint": hint}
    assert network.has_inpainting_inputs
    return StageInputs(cond, {key: value * 0 if value.is_floating_point() else value for key, value in cond.items()})


@pytest.mark.parametrize("spacing", SPACING_NAMES)
def test_an_inversion_visits_the_timesteps_of_the_sampling(tiny: Unclip, spacing: str) -> None:
    times: list[int] = []
    hook = tiny.model.decoder.network.register_forward_pre_hook(lambda _, args: times.append(int(args[1][0])))
    image = noise_image(16, 16)
    [result] = tiny.reconstruct(image, seed=1, size=16, steps=40, spacing=spacing)
    hook.remove()
    sampled = times[-39:]
    assert sampled == spaced(spacing, 40)[1:]
    assert set(times[:-39]) == set(sampled)
    assert np.abs(pixels(result) - pixels(image)).mean() < 4


def spaced(spacing: str, steps: int) -> list[int]:
    return SAMPLERS["ddim"](Schedule(), steps, spacing)[0]


@named
def test_windows_in_chunks_are_those_of_one_batch(
    tiny: Unclip, shortcut: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = tiny.model.decoder
    options = {name: value for name, value in shortcut.items() if name != "upsampler_cache_every"}
    inputs = decoder_inputs(decoder, 2)
    tiling = Tiling(4, 10, 4, ((0, 0), (0, 2), (0, 4), (0, 6)), (0, 1, 0, 1))
    inputs = StageInputs(inputs.cond, inputs.uncond, tiling)
    found = []
    for windows in (1, 4):
        monkeypatch.setattr(stages, "WINDOWS_PER_CHUNK", windows)
        found.append(decoder.run(inputs, make_generators([5]), StageOptions(steps=6, **options)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("every", "whole"), [(1, 7), (2, 4), (3, 3), (7, 1)])
def test_the_deep_layers_run_at_every_kth_step(tiny: Unclip, every: int, whole: int) -> None:
    unet, calls = tiny.model.decoder.network.unet, {"conv_in": 0, "mid_block": 0}
    hooks = [
        getattr(unet, name).register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
        for name in calls
    ]
    tiny.generate("a cat", n=2, seed=1, size=16, cache_every=every, **STEPS)
    for hook in hooks:
        hook.remove()
    assert calls == {"conv_in": 7, "mid_block": whole}


def test_guidance_reads_the_features_of_its_own_half(tiny: Unclip) -> None:
    """Where the halves are equal, guidance changes nothing, whichever steps are guided and whatever is reused."""
    decoder = tiny.model.decoder
    inputs = decoder_inputs(decoder, 2)
    assert inputs.uncond is not None
    own = {"steps": 6, "cache_every": 3}
    alone = decoder.run(inputs, make_generators([1, 2]), StageOptions(guidance=1.0, **own))
    same = StageInputs(inputs.cond, inputs.cond)
    for every, interval in ((1, None), (3, None), (1, (0.3, 100_000)), (3, (2.0, 100_000))):
        options = StageOptions(guidance=4.0, guidance_every=every, guidance_interval=interval, **own)
        torch.testing.assert_close(decoder.run(same, make_generators([1, 2]), options), alone, rtol=0, atol=1e-4)
