import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import difference, pixels
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import CheckpointError, InputError, RequestError
from unclip.inference import stage
from unclip.inference.callbacks import Watcher
from unclip.modes.resolve import model_defaults
from unclip.pipeline import Unclip
from unclip.requests.request import Request

# ---- results


def test_a_prompt_gives_images(tiny: Unclip) -> None:
    results = tiny.generate("a red cat", n=2, seed=7)
    for i, result in enumerate(results):
        assert (result.image.size, result.image.mode) == ((32, 32), "RGB")
        assert result.request == Request(prompt="a red cat", seed=7 + i, **model_defaults(tiny.model))
        assert (result.seed, result.model, result.notes) == (7 + i, "tiny", ())
        assert result.timings.keys() == {"text", "prior", "decoder", "upsampler"}
        assert all(seconds > 0 for seconds in result.timings.values())
        assert -1 <= result.score <= 1
        assert pixels(result).std() > 20  # not an empty sheet
    assert difference(*results) > 20


def test_a_list_of_prompts_and_n_of_each_in_order(tiny: Unclip) -> None:
    prompts = ["a red cat", "a blue dog", "a cat"]
    results = tiny.generate(iter(prompts), n=2, seed=3, size=16, batch_size=4)
    assert [(r.request.prompt, r.seed) for r in results] == [(prompt, seed) for prompt in prompts for seed in (3, 4)]
    assert tiny.generate([]) == []


def test_results_are_streamed_by_micro_batch(tiny: Unclip) -> None:
    calls: list[tuple[str, int, int]] = []
    stream = tiny.stream("a cat", n=100_000, seed=1, size=16, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls == []
    results = [next(stream), next(stream)]
    once = len(calls)
    assert once == (1 + 3) + (1 + 4)  # of the prior and the decoder; each begins at 0
    results.append(next(stream))
    assert len(calls) == 2 * once
    again = tiny.generate("a cat", n=3, seed=1, size=16, batch_size=2)
    assert [r.image.tobytes() for r in results] == [r.image.tobytes() for r in again]


def test_requests_of_different_kinds_keep_their_order(tiny: Unclip) -> None:
    requests = [
        Request(prompt="a cat", seed=1, size=16, id="first"),
        Request(prompt="a dog", seed=2),
        Request(prompt="a cat", seed=3, size=16, steps=2, n=2),
        Request(prompt="a dog", seed=4, size=16, steps=2, guidance=0),
    ]
    results = tiny.generate(requests)
    assert [r.image.width for r in results] == [16, 32, 16, 16, 16]
    assert [r.request.steps for r in results] == [4, 4, 2, 2, 2]
    assert [r.request.guidance for r in results] == [2, 2, 2, 2, 0]
    assert results[0].request.id == "first"


class Recorder(Watcher):
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
def test_a_watcher_receives_each_steps_image_and_the_last_is_the_result(tiny: Unclip, sampler: str) -> None:
    eye = Recorder()
    results = tiny.generate("a cat", n=2, seed=4, steps=3, upsampler_steps=2, sampler=sampler, progress=eye)
    small, large = tiny.model.sizes
    assert eye.seen == [("decoder", small, (4, 5))] * 3 + [("upsampler", large, (4, 5))] * 2
    assert [result.image.tobytes() for result in results] == [image.tobytes() for image in eye.last]
    assert ("decoder", 3, 3) in eye.calls
    plain = tiny.generate("a cat", n=2, seed=4, steps=3, upsampler_steps=2, sampler=sampler)
    assert [difference(*pair) for pair in zip(results, plain, strict=True)] == [0, 0]


def test_progress_counts_the_steps_of_every_stage(tiny: Unclip) -> None:
    calls: list[tuple[str, int, int]] = []
    tiny.generate("a cat", n=3, batch_size=2, progress=lambda *call: calls.append(call))
    once = [(stage, i, n) for stage, n in (("prior", 3), ("decoder", 4), ("upsampler", 2)) for i in range(n + 1)]
    assert calls == once * 2


@pytest.mark.parametrize("memory", ["high", "low"])
def test_loading_reports_each_network(tiny_model: Path, memory: str) -> None:
    calls: list[tuple[str, int, int]] = []
    Unclip.from_pretrained(tiny_model, memory=memory, progress=lambda *call: calls.append(call))
    assert calls == [("loading", done, len(calls) - 1) for done in range(len(calls))]
    assert len(calls) - 1 == len(list(tiny_model.glob("*/config.json")))


# ---- errors


def test_unknown_models_devices_and_dtypes(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match="no model 'nothing-of-the-kind'"):
        Unclip.from_pretrained("nothing-of-the-kind")
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        Unclip.from_pretrained(tiny_model, device="gpu")
    with pytest.raises(InputError, match="unknown dtype 'half'"):
        Unclip.from_pretrained(tiny_model, dtype="half")


# ---- an image is a function of its request and seed


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_image_is_the_same_alone_and_at_every_place_of_a_batch(
    tiny: Unclip, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"sampler": sampler, "prior_sampler": sampler}
    prompts = ["a red cat", "dog", "a blue dog on a red cat on a red dog", "a cat", "a red cat"]
    negatives = ["", "a dog", "", "blue", ""]
    seeds = [0, 3, 3, 2**63 - 1, 1]
    requests = [
        Request(prompt=prompt, negative_prompt=negative, seed=seed, **fields)
        for prompt, negative, seed in zip(prompts, negatives, seeds, strict=True)
    ]
    alone = {request.prompt + str(request.seed): tiny.generate(request)[0] for request in requests}
    assert min(difference(a, b) for a in alone.values() for b in alone.values() if a is not b) > 20
    rotated = [requests[i:] + requests[:i] for i in range(5)]
    plenty, little = 1 << 24, 1 << 12  # bytes: room for all, and for two in the decoder, one in the upsampler
    whole = [*((order, 5, plenty) for order in rotated), (requests, 2, plenty), (requests[::-1], 3, plenty)]
    for order, batch_size, room in [*whole, (requests, 5, little)]:
        monkeypatch.setattr(stage, "CHUNK_BYTES", {"cpu": room})
        for result in tiny.generate(order, batch_size=batch_size):
            assert difference(result, alone[result.request.prompt + str(result.seed)]) <= 1


@pytest.mark.parametrize("sampler", ["unclip", "dpmpp-2m"])
def test_the_same_run_gives_the_same_bytes(tiny: Unclip, tiny_model: Path, sampler: str) -> None:
    fields = {"n": 3, "seed": 11, "sampler": sampler, "prior_sampler": sampler}
    runs = [p.generate("a cat", **fields) for p in (tiny, tiny, Unclip.from_pretrained(tiny_model, "cpu", "float32"))]
    assert len({b"".join(r.image.tobytes() for r in run) for run in runs}) == 1
    assert len({tuple(r.score for r in run) for run in runs}) == 1


def test_a_random_seed_is_recorded_and_reproduces_the_image(tiny: Unclip) -> None:
    results = tiny.generate(["a cat", "a cat"], n=2, size=16)
    assert [r.seed - results[0].seed for r in results[:2]] == [0, 1]
    assert results[2].seed not in (results[0].seed, results[1].seed)
    for result in results:
        [again] = tiny.generate(result.request)
        assert again.request == result.request
        assert difference(again, result) <= 1


# ---- 0 and 1 are values


def test_a_seed_of_zero_is_a_seed(tiny: Unclip) -> None:
    first, second = (tiny.generate("a cat", seed=0, size=16)[0] for _ in range(2))
    assert first.seed == first.request.seed == 0
    assert first.image.tobytes() == second.image.tobytes()


def test_one_step_is_one_step(tiny: Unclip) -> None:
    calls: list[tuple[str, int, int]] = []
    for sampler in SAMPLER_NAMES:
        fields = {"steps": 1, "prior_steps": 1, "upsampler_steps": 1, "sampler": sampler, "prior_sampler": sampler}
        [result] = tiny.generate("a cat", seed=5, progress=lambda *call: calls.append(call), **fields)
        assert (result.request.steps, result.request.prior_steps, result.request.upsampler_steps) == (1, 1, 1)
    once = [(stage, done, 1) for stage in ("prior", "decoder", "upsampler") for done in (0, 1)]
    assert calls == once * len(SAMPLER_NAMES)


# ---- other precisions


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions(tiny_model: Path, tiny: Unclip, dtype: str) -> None:
    fields = {"seed": 7, "size": 16, "steps": 1, "prior_best_of": 1}
    [result] = Unclip.from_pretrained(tiny_model, "cpu", dtype).generate("a red cat", **fields)
    assert np.abs(pixels(result) - pixels(tiny.generate("a red cat", **fields)[0])).mean() < 8


# ---- keywords


@pytest.mark.parametrize("method", ["generate", "stream", "inpaint", "outpaint", "vary", "edit", "reconstruct"])
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_inference_steps": 20}, "'num_inference_steps' is not a field of a request; did you mean 'steps'?"),
        ({"guidance_scale": 3}, "'guidance_scale' is not a field of a request; did you mean 'guidance'?"),
        ({"width": 64, "height": 64}, "'width' is not a field of a request; use size, such as 64x64"),
        ({"sampler_name": "DDIM"}, "'sampler_name' is not a field of a request; did you mean 'sampler'?"),
        ({"cfg_scale": 7}, "'cfg_scale' is not a field of a request; did you mean 'guidance'?"),
        ({"num_images_per_prompt": 4}, "'num_images_per_prompt' is not a field of a request; did you mean 'n'?"),
        ({"generator": None}, "'generator' is not a field of a request; use seed"),
        ({"guidence": 3}, "'guidence' is not a field of a request; did you mean 'guidance'?"),
    ],
)
def test_a_keyword_of_another_tool_names_ours(tiny: Unclip, method: str, fields: dict, says: str) -> None:
    for given in ((), ("a cat",), (None,)):
        with pytest.raises(RequestError) as caught:
            getattr(tiny, method)(*given, **fields)
        assert str(caught.value) == says


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda pipe: pipe.generate(), "prompt must be text, a Request, or a list of these, not None"),
        (lambda pipe: pipe.generate(None), "prompt must be text, a Request, or a list of these, not None"),
        (lambda pipe: pipe.generate(None, n=2), "prompt is empty; say what the image should show"),
        (lambda pipe: pipe.generate([None]), "prompt must be text, not None"),
        (lambda pipe: pipe.generate(3), "prompt must be text, a Request, or a list of these, not 3"),
        (lambda pipe: pipe.generate(b"a cat"), "prompt must be text, a Request, or a list of these, not b'a cat'"),
        (lambda pipe: pipe.generate({"prompt": "a cat"}), "prompt must be text, a Request, or a list of these, not {"),
        (lambda pipe: pipe.generate(prompts=["a cat"]), "'prompts' is not a field of a request; use prompt"),
        (lambda pipe: pipe.generate("b.gif"), "prompt 'b.gif' ends like the name of an image file"),
        (lambda pipe: pipe.generate(["a cat", __file__]), "is the name of a file"),
        (lambda pipe: pipe.generate("(a cat:1.3)"), "prompt has a weight, '(a cat:1.3)', and weights are not read"),
        (lambda pipe: pipe.vary(), "image is missing; name the image to vary"),
        (lambda pipe: pipe.vary(prompt="a cat"), "image is missing; name the image to vary"),
        (lambda pipe: pipe.vary(init_image="a.png"), "'init_image' is not a field of a request; did you mean 'image'?"),
        (lambda pipe: pipe.vary("a.png", "b.png"), "prompt 'b.png' ends like the name of an image file"),
        (lambda pipe: pipe.vary("a.png", mode="edit"), "mode cannot be a keyword here, as the method sets it"),
        (lambda pipe: pipe.inpaint("a.png", mask_image="b.png"), "did you mean 'mask'?"),
        (lambda pipe: pipe.edit("a.png", "a cat", __file__), "from_prompt '"),
        (lambda pipe: pipe.interpolate("a"), "sources must be the path of an image, or a PIL image, not None"),
        (lambda pipe: pipe.interpolate("a", "b", sources=["a"]), "sources cannot be a keyword here"),
        (lambda pipe: pipe.mix(), "sources must be two or more images or prompts"),
        (lambda pipe: pipe.mix(["a", "b"], [1, 1], frames=3), "weights are for one image"),
    ],
)
def test_mistaken_arguments_are_one_line(tiny: Unclip, call, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        call(tiny)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_embedding_needs_no_prompt(tiny: Unclip, tmp_path: Path) -> None:
    path = tiny.save_embedding(tmp_path / "cat.safetensors", "a red cat", seed=3)
    [result] = tiny.generate(embedding=path, size=16, seed=1)
    assert result.request == tiny.generate("", embedding=path, size=16, seed=1)[0].request


def test_images_come_in_a_list_that_a_notebook_shows(tiny):
    found = tiny.generate("a cat", n=2, seed=0, size=16)
    assert isinstance(found, list) and found._repr_png_().startswith(b"\x89PNG")
    assert len(tiny.vary(found[0].image, n=3, seed=0, steps=2)[1:]._repr_png_()) > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_copied_and_pickled_after_it_has_generated(tiny_model: Path, dtype: str) -> None:
    pipe = Unclip.from_pretrained(tiny_model, "cpu", dtype)
    fields = {"seed": 1, "steps": 2, "upsampler_steps": 1}
    [made] = pipe.generate("a red cat", **fields)
    for other in (copy.deepcopy(pipe), pickle.loads(pickle.dumps(pipe))):
        assert difference(other.generate("a red cat", **fields)[0], made) == 0
    assert difference(pipe.generate("a red cat", **fields)[0], made) == 0
