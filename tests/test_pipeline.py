from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UnCLIPPipeline, UnCLIPScheduler
from PIL import Image
from torch import Tensor

from tests.sampling import sample_tensors
from tests.tiny import CLIP, DECODER, DIM, PRIOR, TEXT_PROJ, TOKENS, UPSAMPLER, tiny_network
from unclip.diffusion.noise import make_generators
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError, InputError, RequestError, UnclipError
from unclip.images.processing import to_images, to_tensor
from unclip.images.result import Result
from unclip.inference.callbacks import Watcher
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.run import Run
from unclip.inference.stage import Stage, StageInputs, StageOptions
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler, enlarge
from unclip.modes.base import sampling_options
from unclip.modes.resolve import model_defaults
from unclip.pipeline import Unclip
from unclip.requests.batching import micro_batches
from unclip.requests.request import Request

# Its module moves from release to release; the pipeline's own knows where it is.
UnCLIPTextProjModel = import_module(UnCLIPPipeline.__module__).UnCLIPTextProjModel


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> Unclip:
    return Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32")


def pixels(result: Result) -> np.ndarray:
    return np.asarray(result.image).astype(int)  # h w 3


def difference(a: Result, b: Result) -> int:
    """The largest difference of two images, of 255."""
    return int(np.abs(pixels(a) - pixels(b)).max())


# ---- what comes out


def test_a_prompt_becomes_pictures(pipe: Unclip) -> None:
    results = pipe.generate("a red cat", n=2, seed=7)
    for i, result in enumerate(results):
        assert (result.image.size, result.image.mode) == ((32, 32), "RGB")
        assert result.request == Request(prompt="a red cat", seed=7 + i, **model_defaults(pipe.model))
        assert (result.seed, result.model, result.notes) == (7 + i, "tiny", ())
        assert result.timings.keys() == {"text", "prior", "decoder", "upsampler"}
        assert all(seconds > 0 for seconds in result.timings.values())
        assert -1 <= result.score <= 1
        assert pixels(result).std() > 20  # not an empty sheet
    assert difference(*results) > 20


def test_defaults_are_those_of_the_checkpoint(pipe: Unclip) -> None:
    assert pipe.model.name == "tiny"
    assert pipe.model.sizes == [(16, 16), (32, 32)]
    assert model_defaults(pipe.model) == {
        "steps": 4,
        "prior_steps": 3,
        "upsampler_steps": 2,
        "guidance": 2.0,
        "prior_guidance": 1.5,
        "sampler": "dpmpp-2m",
        "prior_sampler": "ddim",
        "size": (32, 32),
        "prior_best_of": 2,
    }


def test_the_small_size_leaves_out_the_upsampler(pipe: Unclip) -> None:
    [result] = pipe.generate("a red cat", seed=7, size="16x16")
    assert result.image.size == (16, 16)
    assert "upsampler" not in result.timings


def test_a_model_without_an_upsampler(tiny_model: Path) -> None:
    pipe = Unclip(replace(Unclip.from_pretrained(tiny_model, "cpu", "float32").model, upsamplers=()))
    assert pipe.generate("a red cat", seed=7)[0].image.size == (16, 16)
    with pytest.raises(RequestError, match="tiny does not generate images of 32x32; choose from 16x16"):
        pipe.generate("a red cat", size=32)


def test_a_list_of_prompts_and_n_of_each_in_order(pipe: Unclip) -> None:
    prompts = ["a red cat", "a blue dog", "a cat"]
    results = pipe.generate(iter(prompts), n=2, seed=3, size=16, batch_size=4)
    assert [(r.request.prompt, r.seed) for r in results] == [(prompt, seed) for prompt in prompts for seed in (3, 4)]
    assert pipe.generate([]) == []


def test_results_come_as_their_micro_batch_is_drawn(pipe: Unclip) -> None:
    calls: list[tuple[str, int, int]] = []
    stream = pipe.stream("a cat", n=100_000, seed=1, size=16, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls == []
    results = [next(stream), next(stream)]
    once = len(calls)
    assert once == (1 + 3) + (1 + 4)  # of the prior and the decoder; each begins at 0
    results.append(next(stream))
    assert len(calls) == 2 * once
    again = pipe.generate("a cat", n=3, seed=1, size=16, batch_size=2)
    assert [r.image.tobytes() for r in results] == [r.image.tobytes() for r in again]


def test_requests_of_different_kinds_keep_their_order(pipe: Unclip) -> None:
    requests = [
        Request(prompt="a cat", seed=1, size=16, id="first"),
        Request(prompt="a dog", seed=2),
        Request(prompt="a cat", seed=3, size=16, steps=2, n=2),
        Request(prompt="a dog", seed=4, size=16, steps=2, guidance=0),
    ]
    results = pipe.generate(requests)
    assert [r.image.width for r in results] == [16, 32, 16, 16, 16]
    assert [r.request.steps for r in results] == [4, 4, 2, 2, 2]
    assert [r.request.guidance for r in results] == [2, 2, 2, 2, 0]
    assert results[0].request.id == "first"


def test_micro_batches_hold_what_can_be_drawn_together() -> None:
    a, b = (
        [Request(prompt=f"{i}", negative_prompt="x" * i, seed=i, id=str(i), steps=s) for i in range(5)] for s in (3, 4)
    )
    assert [len(batch) for batch in micro_batches(a, 2)] == [2, 2, 1]
    assert list(micro_batches([*a[:3], *b], 16)) == [a[:3], b]
    assert list(micro_batches([], 2)) == []


class Eye(Watcher):
    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.seen: list[tuple[str, tuple[int, int], tuple[int, ...]]] = []
        self.last: list[Image.Image] = []

    def __call__(self, *call) -> None:
        self.calls.append(call)

    def see(self, stage, images, seeds) -> None:
        self.seen.append((stage, images[0].size, tuple(seeds)))
        self.last = [*images]


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_watcher_sees_the_picture_of_every_step_and_the_last_is_the_result(pipe: Unclip, sampler: str) -> None:
    eye = Eye()
    results = pipe.generate("a cat", n=2, seed=4, steps=3, upsampler_steps=2, sampler=sampler, progress=eye)
    small, large = pipe.model.sizes
    assert eye.seen == [("decoder", small, (4, 5))] * 3 + [("upsampler", large, (4, 5))] * 2
    assert [result.image.tobytes() for result in results] == [image.tobytes() for image in eye.last]
    assert ("decoder", 3, 3) in eye.calls
    plain = pipe.generate("a cat", n=2, seed=4, steps=3, upsampler_steps=2, sampler=sampler)
    assert [difference(*pair) for pair in zip(results, plain, strict=True)] == [0, 0]


def test_progress_counts_the_steps_of_every_stage(pipe: Unclip) -> None:
    calls: list[tuple[str, int, int]] = []
    pipe.generate("a cat", n=3, batch_size=2, progress=lambda *call: calls.append(call))
    once = [(stage, i, n) for stage, n in (("prior", 3), ("decoder", 4), ("upsampler", 2)) for i in range(n + 1)]
    assert calls == once * 2


@pytest.mark.parametrize("memory", ["high", "low"])
def test_loading_tells_of_each_network(tiny_model: Path, memory: str) -> None:
    calls: list[tuple[str, int, int]] = []
    Unclip.from_pretrained(tiny_model, memory=memory, progress=lambda *call: calls.append(call))
    assert calls == [("loading", done, len(calls) - 1) for done in range(len(calls))]
    assert len(calls) - 1 == len(list(tiny_model.glob("*/config.json")))


# ---- what goes wrong


@pytest.mark.parametrize(
    ("prompt", "fields", "message"),
    [
        ("a cat", {"size": 64}, "tiny does not generate images of 64x64; choose from 16x16, 32x32"),
        ("a cat", {"size": (16, 32)}, "tiny does not generate images of 16x32"),
        ("a cat", {"batch_size": 0}, "batch_size must be a whole number from 1"),
        ("a cat", {"batch_size": "x"}, "batch_size must be a whole number from 1"),
        (None, {}, "prompt must be text, a Request, or a list of these, not None"),
        (["a cat", "  "], {}, "prompt is empty"),
        ("a cat", {"n": 0}, "n must be a whole number from 1"),
        ("a cat", {"steps": 0}, "steps must be a whole number from 1"),
        (["a cat", Request(prompt="a dog")], {"steps": 3, "seed": 1}, "steps, seed cannot be given beside a Request"),
        (["a cat", Request(prompt="a dog", size=48)], {}, "tiny does not generate images of 48x48"),
    ],
)
def test_a_mistake_is_told_before_anything_is_drawn(pipe: Unclip, prompt, fields: dict, message: str) -> None:
    def never(*_: object) -> None:
        raise AssertionError("drawing began")

    with pytest.raises(RequestError) as caught:
        pipe.stream(prompt, progress=never, **fields)  # without asking for a result
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_that_is_not_finite(tiny_model: Path) -> None:
    pipe = Unclip.from_pretrained(tiny_model, "cpu", "float32")
    next(pipe.model.decoder.network.parameters()).fill_(torch.nan)
    with pytest.raises(UnclipError, match="values that are not finite: use a lower guidance"):
        pipe.generate("a cat", size=16)


def test_unknown_models_devices_and_dtypes(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match="no model 'nothing-of-the-kind'"):
        Unclip.from_pretrained("nothing-of-the-kind")
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        Unclip.from_pretrained(tiny_model, device="gpu")
    with pytest.raises(InputError, match="unknown dtype 'half'"):
        Unclip.from_pretrained(tiny_model, dtype="half")


def test_notes_tell_what_was_cut_and_what_is_not_known(pipe: Unclip) -> None:
    long = "a red cat on a blue dog on a red cat"  # as long as can be
    notes = [r.notes for r in pipe.generate([long, f"{long} on a dog"], size=16)]
    assert notes == [(), (f"the prompt is longer than {TOKENS - 2} tokens; cut off: 'on a dog'",)]
    [result] = pipe.generate("a cat", negative_prompt=f"{long} on", size=16)
    assert result.notes == (f"the negative_prompt is longer than {TOKENS - 2} tokens; cut off: 'on'",)
    [result] = pipe.generate("A Red wizard, on a unicorn", size=16)
    assert result.notes == ("tiny does not know 'wizard', 'unicorn': see `unclip models show tiny --vocabulary`",)
    sides = {"left": 4, "left_prompt": "a wizard", "right": 4, "right_prompt": f"{long} on"}
    [result] = pipe.outpaint(Image.new("RGB", (16, 16)), "a cat", **sides)
    cut = f"the right_prompt is longer than {TOKENS - 2} tokens; cut off: 'on'"
    assert result.notes == (cut, "tiny does not know 'wizard': see `unclip models show tiny --vocabulary`")
    anything_goes = Unclip(replace(pipe.model, vocabulary=None))
    assert anything_goes.generate("A Red wizard, on a unicorn", size=16)[0].notes == ()


# ---- an image is a function of its request and seed


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_image_is_the_same_alone_and_at_every_place_of_a_batch(
    pipe: Unclip, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"sampler": sampler, "prior_sampler": sampler}
    prompts = ["a red cat", "dog", "a blue dog on a red cat on a red dog", "a cat", "a red cat"]
    negatives = ["", "a dog", "", "blue", ""]
    seeds = [0, 3, 3, 2**63 - 1, 1]
    requests = [
        Request(prompt=prompt, negative_prompt=negative, seed=seed, **fields)
        for prompt, negative, seed in zip(prompts, negatives, seeds, strict=True)
    ]
    alone = {request.prompt + str(request.seed): pipe.generate(request)[0] for request in requests}
    assert min(difference(a, b) for a in alone.values() for b in alone.values() if a is not b) > 20
    rotated = [requests[i:] + requests[:i] for i in range(5)]
    plenty, little = 1 << 24, 1 << 12  # bytes: room for all, and for two in the decoder, one in the upsampler
    whole = [*((order, 5, plenty) for order in rotated), (requests, 2, plenty), (requests[::-1], 3, plenty)]
    for order, batch_size, room in [*whole, (requests, 5, little)]:
        monkeypatch.setattr("unclip.inference.stage.CHUNK_BYTES", {"cpu": room})
        for result in pipe.generate(order, batch_size=batch_size):
            assert difference(result, alone[result.request.prompt + str(result.seed)]) <= 1


@pytest.mark.parametrize("sampler", ["unclip", "dpmpp-2m"])
def test_the_same_run_gives_the_same_bytes(pipe: Unclip, tiny_model: Path, sampler: str) -> None:
    fields = {"n": 3, "seed": 11, "sampler": sampler, "prior_sampler": sampler}
    runs = [p.generate("a cat", **fields) for p in (pipe, pipe, Unclip.from_pretrained(tiny_model, "cpu", "float32"))]
    assert len({b"".join(r.image.tobytes() for r in run) for run in runs}) == 1
    assert len({tuple(r.score for r in run) for run in runs}) == 1


def test_a_seed_that_was_drawn_is_recorded_and_makes_the_image_again(pipe: Unclip) -> None:
    results = pipe.generate(["a cat", "a cat"], n=2, size=16)
    assert [r.seed - results[0].seed for r in results[:2]] == [0, 1]
    assert results[2].seed not in (results[0].seed, results[1].seed)
    for result in results:
        [again] = pipe.generate(result.request)
        assert again.request == result.request
        assert difference(again, result) <= 1


# ---- 0 and 1 are values


def test_a_seed_of_zero_is_a_seed(pipe: Unclip) -> None:
    first, second = (pipe.generate("a cat", seed=0, size=16)[0] for _ in range(2))
    assert first.seed == first.request.seed == 0
    assert first.image.tobytes() == second.image.tobytes()


def test_guidance_of_zero_leaves_the_prompt_out(pipe: Unclip) -> None:
    cat, dog = (pipe.generate(p, seed=5, size=16, guidance=0)[0] for p in ("a red cat", "a blue dog"))
    assert cat.request.guidance == 0
    assert difference(cat, dog) == 0
    assert difference(cat, pipe.generate("a red cat", seed=5, size=16)[0]) > 20


def test_prior_guidance_of_zero_leaves_the_prompt_out_of_the_prior(pipe: Unclip) -> None:
    def embed(prompt: str, **fields) -> Tensor:
        request = pipe.resolve(Request(prompt=prompt, prior_best_of=1, **fields))
        text, nothing = pipe.model.encode_text([prompt]), pipe.model.encode_text([""])
        return pipe.model.sample_prior(
            text, nothing, Run(make_generators([5]), pipe.model.device, sampling_options(request))
        )

    assert torch.equal(embed("a red cat", prior_guidance=0), embed("a blue dog", prior_guidance=0))
    assert not torch.allclose(embed("a red cat"), embed("a blue dog"), atol=0.01)
    assert pipe.resolve(Request(prompt="a cat", prior_guidance=0)).prior_guidance == 0


def test_one_step_is_one_step(pipe: Unclip) -> None:
    calls: list[tuple[str, int, int]] = []
    for sampler in SAMPLER_NAMES:
        fields = {"steps": 1, "prior_steps": 1, "upsampler_steps": 1, "sampler": sampler, "prior_sampler": sampler}
        [result] = pipe.generate("a cat", seed=5, progress=lambda *call: calls.append(call), **fields)
        assert (result.request.steps, result.request.prior_steps, result.request.upsampler_steps) == (1, 1, 1)
    once = [(stage, done, 1) for stage in ("prior", "decoder", "upsampler") for done in (0, 1)]
    assert calls == once * len(SAMPLER_NAMES)


# ---- against the same thing done by hand, or by others


@pytest.mark.parametrize("negative", ["", "a blue dog"])
def test_the_path_from_text_to_pixels_by_hand(pipe: Unclip, negative: str) -> None:
    [result] = pipe.generate("a red cat", negative_prompt=negative, seed=9, prior_best_of=1, prior_sampler="unclip")
    text, without = pipe.model.encode_text(["a red cat"]), pipe.model.encode_text([negative])
    noise = make_generators([9])  # one after another through the stages
    prior, decoder, [upsampler] = pipe.model.prior.stage, pipe.model.decoder, pipe.model.upsamplers
    inputs = StageInputs(prior.network.condition(text), prior.network.condition(without))
    x = prior.run(inputs, noise, StageOptions(sampler="unclip"))
    embed = prior.network.unwhiten(x)
    nothing = decoder.network.projection.null_embed[None]
    cond, uncond = decoder.network.condition(embed, text), decoder.network.condition(nothing, without)
    x = decoder.run(StageInputs(cond, uncond), noise)
    x = upsampler.run(StageInputs({"enlarged": upsampler.codec.encode(enlarge(x, (32, 32)))}), noise)
    assert result.image.tobytes() == to_images(x)[0].tobytes()


def test_a_negative_prompt_steers_away_unless_there_is_no_guidance(pipe: Unclip) -> None:
    def drawn(**fields) -> Result:
        return pipe.generate("a red cat", seed=9, size=16, prior_best_of=1, **fields)[0]

    assert difference(drawn(), drawn(negative_prompt="a blue dog")) > 10
    assert difference(drawn(guidance=0), drawn(guidance=0, negative_prompt="a blue dog")) > 10
    plain = {"guidance": 1, "prior_guidance": 1}
    assert difference(drawn(**plain), drawn(**plain, negative_prompt="a blue dog")) == 0


@pytest.mark.parametrize("best_of", [1, 2, 5])
def test_the_prior_takes_the_most_similar_of_its_samples(pipe: Unclip, best_of: int) -> None:
    prompts, seeds = ["a red cat", "a dog", "blue", "a cat on a dog"], [0, 1, 2, 3]
    text, nothing = pipe.model.encode_text(prompts), pipe.model.encode_text([""] * 4)
    request = pipe.resolve(Request(prompt="x", prior_best_of=best_of))
    ours = pipe.model.sample_prior(
        text, nothing, Run(make_generators(seeds), pipe.model.device, sampling_options(request))
    )
    chosen = []
    for prompt, seed, embed in zip(prompts, seeds, ours, strict=True):
        one, none = pipe.model.encode_text([prompt]), pipe.model.encode_text([""])
        condition = pipe.model.prior.stage.network.condition
        samples = []
        for i in range(best_of):  # each by itself, from the noise that the generator gives it
            [generator] = make_generators([seed])
            for _ in range(i):
                torch.randn(1, DIM, generator=generator)
            x = pipe.model.prior.stage.run(StageInputs(condition(one), condition(none)), [generator])
            samples.append(pipe.model.prior.stage.network.unwhiten(x))
        candidates, target = torch.cat(samples).numpy(), one.embed[0].numpy()
        cosines = candidates @ target / np.linalg.norm(candidates, axis=1) / np.linalg.norm(target)
        chosen.append(int(cosines.argmax()))
        torch.testing.assert_close(embed.numpy(), candidates[chosen[-1]], rtol=0, atol=1e-4)
    assert len(set(chosen)) > 1 or best_of == 1


class OfDiffusers(UnCLIPPipeline):
    """diffusers' own pipeline, with the text encoded by us: transformers' CLIP is not what is compared."""

    encoding: tuple[Tensor, Tensor, Tensor]

    def _encode_prompt(self, *_: object) -> tuple[Tensor, Tensor, Tensor]:
        return self.encoding


def test_the_same_networks_and_seeds_give_what_the_pipeline_of_diffusers_gives() -> None:
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
    theirs = OfDiffusers(prior, decoder, None, None, projection, upsampler, upsampler, *schedulers)
    theirs.set_progress_bar_config(disable=True)
    halves = zip(pipe.model.encode_text(["", ""]), pipe.model.encode_text(prompts), strict=True)
    theirs.encoding = tuple(torch.cat(half) for half in halves)[:3]
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


# ---- other precisions; scores; images


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions(tiny_model: Path, pipe: Unclip, dtype: str) -> None:
    fields = {"seed": 7, "size": 16, "steps": 1, "prior_best_of": 1}
    [result] = Unclip.from_pretrained(tiny_model, "cpu", dtype).generate("a red cat", **fields)
    assert np.abs(pixels(result) - pixels(pipe.generate("a red cat", **fields)[0])).mean() < 8


def test_a_score_is_the_cosine_of_two_embeddings(pipe: Unclip) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(3)]
    prompts = ["a red cat", "a dog", "a red cat"]
    expected = []
    for image, prompt in zip(images, prompts, strict=True):
        array = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        a = pipe.model.clip.encode_image(torch.tensor(array))[0].numpy()
        b = pipe.model.clip.encode_tokens(pipe.model.encoder.tokenizer([prompt])).embed[0].numpy()
        expected.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert pipe.score(images, prompts) == pytest.approx(expected, abs=1e-5)
    assert pipe.score(images, "a dog") == pytest.approx([pipe.score(image, "a dog")[0] for image in images], abs=1e-5)
    assert len(set(pipe.score(images, "a dog"))) == 3
    assert pipe.score([], []) == []


def test_scores_of_pictures_of_any_size_and_kind(pipe: Unclip) -> None:
    large = Image.linear_gradient("L")  # 256x256, grey
    small = large.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
    scores = pipe.score([large, large.convert("RGB"), small, large.convert("RGBA")], "a cat")
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-5)


@pytest.mark.parametrize("images", [[], "photo.png", ["photo.png"]])
def test_images_to_embed_must_be_images(pipe: Unclip, images) -> None:
    with pytest.raises(RequestError, match="images"):
        pipe.embed_image(images)


def test_scores_need_pairs(pipe: Unclip) -> None:
    image = Image.new("RGB", (16, 16))
    with pytest.raises(RequestError, match="2 images and 3 prompts: give one prompt per image, or one"):
        pipe.score([image, image], ["a", "b", "c"])


def test_the_score_of_a_result_is_that_of_its_picture(pipe: Unclip) -> None:
    results = pipe.generate(["a red cat", "a dog"], seed=7)
    scores = pipe.score([r.image for r in results], ["a red cat", "a dog"])
    assert [r.score for r in results] == pytest.approx(scores, abs=0.03)


def test_pictures_and_tensors_hold_the_same() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.dtype) == ((3, 5, 7), torch.float32)
    assert (tensor.min() >= -1, tensor.max() <= 1) == (True, True)
    assert to_images(tensor[None])[0].tobytes() == image.tobytes()
    assert np.asarray(to_images(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))[1]).tolist() == [
        [[255, 255, 255]]
    ]
