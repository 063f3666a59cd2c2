"""The published layout: this pipeline gives the same images as diffusers' own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UnCLIPPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor

from tests.published import SIZES
from tests.sampling import sample_tensors
from unclip import Unclip
from unclip.diffusion.noise import make_generators
from unclip.errors import CheckpointError, RequestError
from unclip.images.result import record
from unclip.models.text import TextEncoding
from unclip.models.upsampler import enlarge
from unclip.modes.base import make_run
from unclip.modes.resolve import model_defaults
from unclip.requests.request import Request

COMMIT = 40 * "0"
PROMPTS = ["a red cat!", "two dogs & a   HOUSE", "!!", ""]
ODD = [
    "hello!world ! !!!",
    "a &amp; b “quoted” it's 123",
    "Ünï  code\n x ﬁne ！",
    "<|endoftext|> x <|startoftext|>",
    "<|ENDOFTEXT|>",
    "ペンギン 🐧 word " * 9,
]


@pytest.fixture(scope="module", params=SIZES)
def both(request, karlo) -> tuple[Unclip, UnCLIPPipeline]:
    """A checkpoint, loaded by this project and by diffusers."""
    folder, theirs = karlo(request.param)
    return Unclip.from_pretrained(folder, "cpu", "float32"), theirs


def sample_diffusers(pipe: UnCLIPPipeline, requests: list[Request]) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Images `b h w 3` in [0, 1] of diffusers, its prior's embeddings, and its enlarged small images."""
    first, seen = requests[0], {}

    def record_embed(_module, _args, kwargs) -> None:
        seen.setdefault("embed", kwargs.get("image_embeddings"))

    def record_enlarged(_module, _args, kwargs) -> None:
        seen["enlarged"] = kwargs["sample"][:, 3:]

    hooks = [
        pipe.text_proj.register_forward_pre_hook(record_embed, with_kwargs=True),
        pipe.super_res_last.register_forward_pre_hook(record_enlarged, with_kwargs=True),
    ]
    noise = make_generators([request.seed for request in requests])
    images = pipe(
        [request.prompt for request in requests],
        generator=noise if len(noise) > 1 else noise[0],
        prior_num_inference_steps=first.prior_steps,
        decoder_num_inference_steps=first.steps,
        super_res_num_inference_steps=first.upsampler_steps,
        prior_guidance_scale=first.prior_guidance,
        decoder_guidance_scale=first.guidance,
        output_type="np",
    ).images
    for hook in hooks:
        hook.remove()
    return images, seen


# ---- whole images


def stable_requests(ours: Unclip, prompts: list[str], fields: dict) -> list[Request]:
    """Requests with the first seeds whose images do not depend on rounding.

    Random networks that predict noise are ill-conditioned: the first step divides by sqrt(alpha bar) = 5e-5 and clips
    at 1, so where x and the noise nearly cancel, the last bit of either decides a pixel. Scaling the first layers of
    the decoder and the prior by 1e-6 reveals such seeds.
    """
    layers = ours.model.decoder.network.unet.conv_in, ours.model.prior.stage.network.transformer.proj_in
    for first in range(7, 27):
        requests = [ours.resolve(Request(prompt=p, seed=first + 5 * i, **fields)) for i, p in enumerate(prompts)]
        image = sample_tensors(ours, requests)
        others = []
        for change in (1e-6, -1e-6, 5e-6):
            hooks = [layer.register_forward_hook(lambda _, given, out, e=change: out * (1 + e)) for layer in layers]
            others.append(sample_tensors(ours, requests))
            for hook in hooks:
                hook.remove()
        if all((image - other).abs().max() < 1 / 255 for other in others):
            return requests
    raise AssertionError("no seed gives an image that is stable under rounding")


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        (["a red cat!"], {}),
        (["a red cat!", "two dogs", "a red cat!"], {"prior_steps": 2, "steps": 3, "upsampler_steps": 4}),
        (["a cat"], {"prior_guidance": 1.0}),
        (["a cat", "a dog"], {"guidance": 1.0}),
        (["a cat"], {"guidance": 1.0, "prior_guidance": 1.0, "steps": 5}),
        (["a cat", "a dog"], {"prior_steps": 7, "steps": 6, "upsampler_steps": 5}),
    ],
)
def test_images_are_those_of_diffusers(both, prompts: list[str], fields: dict) -> None:
    ours, theirs = both
    steps = {"prior_steps": 3, "steps": 4, "upsampler_steps": 3}
    requests = stable_requests(ours, prompts, steps | fields)
    assert (requests[0].prior_best_of, requests[0].sampler, requests[0].prior_sampler) == (1, "unclip", "unclip")
    expected, seen = sample_diffusers(theirs, requests)
    images = sample_tensors(ours, requests)
    found = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2 / 255
    inside = (expected > 0.02) & (expected < 0.98)
    assert inside.mean() > 0.2 and expected.std() > 0.05  # most pixels are not clipped to black or white

    # If the images differ, these show where: in the prior, the decoder or the upsampler.
    text, negative = ours.model.encode_text(prompts), ours.model.encode_text([""] * len(prompts))
    embed = ours.model.sample_prior(text, negative, make_run(ours.model, requests))
    torch.testing.assert_close(embed, seen["embed"], rtol=1e-4, atol=1e-4)
    small = sample_tensors(ours, [request.replace(size=ours.model.sizes[0]) for request in requests])
    torch.testing.assert_close(enlarge(small, ours.model.sizes[1]), seen["enlarged"], rtol=0, atol=2 / 255)


def test_the_defaults_are_the_published_ones(both) -> None:
    ours, _ = both
    side, large = (ours.model.sizes[0][0], ours.model.sizes[-1][0])
    assert ours.model.sizes == [(side, side), (large, large)]
    found = {name: value for name, value in model_defaults(ours.model).items() if value is not None}
    assert found == {
        "prior": "diffusion",
        "steps": 25,
        "prior_steps": 25,
        "upsampler_steps": 7,
        "guidance": 8.0,
        "prior_guidance": 4.0,
        "sampler": "unclip",
        "prior_sampler": "unclip",
        "size": (large, large),
        "prior_best_of": 1,
    }


def test_the_last_upsampler_step_uses_the_last_network(both) -> None:
    ours, _ = both
    stage, calls = ours.model.upsamplers[0], []
    for name in ("network", "last_network"):
        getattr(stage, name).register_forward_pre_hook(lambda _m, _a, name=name, **_: calls.append(name))
    ours.generate("a cat", seed=1, prior_steps=1, steps=1, upsampler_steps=3)
    assert calls == ["network", "network", "last_network"]
    calls.clear()
    ours.generate("a cat", seed=1, prior_steps=1, steps=1, upsampler_steps=1)
    assert calls == ["last_network"]


# ---- each stage alone


def test_tokens_are_those_of_transformers(both) -> None:
    ours, theirs = both
    n = ours.model.clip.config.context_length
    there = theirs.tokenizer(PROMPTS + ODD, padding="max_length", max_length=n, truncation=True, return_tensors="pt")
    assert ours.model.encoder.tokenizer(PROMPTS + ODD).tolist() == there.input_ids.tolist()
    mask = ours.model.encode_text(PROMPTS + ODD).mask
    assert mask.tolist() == there.attention_mask.bool().tolist()


def test_overflow_counts_the_tokens_of_transformers(both) -> None:
    ours, _ = both
    words = " ".join(["cat"] * (ours.model.clip.config.context_length - 3))
    assert ours.model.encoder.tokenizer.overflow(f"{words}!") == ""
    assert ours.model.encoder.tokenizer.overflow(f"{words}! dog") == "dog"


def test_the_text_encoder(both) -> None:
    ours, theirs = both
    embed, states, mask = theirs._encode_prompt(PROMPTS, torch.device("cpu"), 1, True)
    none, text = ours.model.encode_text([""] * len(PROMPTS)), ours.model.encode_text(PROMPTS)
    for found, expected in zip(
        map(torch.cat, zip(none[:3], text[:3], strict=True)), (embed, states, mask), strict=True
    ):
        torch.testing.assert_close(found, expected)


def texts(ours: Unclip, theirs: UnCLIPPipeline) -> tuple[TextEncoding, tuple[Tensor, ...]]:
    return ours.model.encode_text(PROMPTS), theirs._encode_prompt(PROMPTS, torch.device("cpu"), 1, False)


@torch.inference_mode()
def test_the_prior(both) -> None:
    ours, theirs = both
    text, (embed, states, mask) = texts(ours, theirs)
    x, t = torch.randn(len(PROMPTS), embed.shape[1]), torch.full((len(PROMPTS),), 321)
    network = ours.model.prior.stage.network
    expected = theirs.prior(x, t, proj_embedding=embed, encoder_hidden_states=states, attention_mask=mask)
    torch.testing.assert_close(network(x, t, **network.condition(text)), expected.predicted_image_embedding)
    torch.testing.assert_close(network.unwhiten(x), theirs.prior.post_process_latents(x))


@torch.inference_mode()
def test_the_projection_and_the_decoder(both) -> None:
    ours, theirs = both
    text, (embed, states, mask) = texts(ours, theirs)
    image = torch.randn(embed.shape)
    network = ours.model.decoder.network
    tokens, time = theirs.text_proj(
        image_embeddings=image,
        prompt_embeds=embed,
        text_encoder_hidden_states=states,
        do_classifier_free_guidance=False,
    )
    found = network.condition(image, text)
    torch.testing.assert_close(found["tokens"], tokens)
    torch.testing.assert_close(found["time_condition"], time)
    mask = F.pad(mask, (4, 0), value=True)
    assert torch.equal(found["token_mask"], mask)
    for t in (999, 321):  # the second call reuses the text's keys and values
        x = torch.randn(len(PROMPTS), *ours.model.decoder.shape)
        expected = theirs.decoder(x, t, encoder_hidden_states=tokens, class_labels=time, attention_mask=mask).sample
        torch.testing.assert_close(network(x, torch.full((len(x),), t), **found), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("which", ["first", "last"])
def test_the_upsamplers(both, which: str) -> None:
    ours, theirs = both
    stage = ours.model.upsamplers[0]
    network = stage.network if which == "first" else stage.last_network
    x, enlarged = torch.randn(2, 2, *stage.shape)
    expected = getattr(theirs, f"super_res_{which}")(torch.cat([x, enlarged], dim=1), 321).sample
    found = network(x, torch.full((2,), 321), enlarged)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ---- image variation checkpoints


def test_variations_have_an_image_encoder_and_no_prior(variations) -> None:
    folder, encoder, _ = variations
    pipe = Unclip.from_pretrained(folder, "cpu", "float32")
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((28, 28), (56, 40))]
    processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")
    for image in images:
        with torch.inference_mode():
            expected = encoder(processor(image, return_tensors="pt").pixel_values).image_embeds
        found = pipe.embed_image(image)
        close = 1e-5 if image.size == (28, 28) else 0.05  # both resize bytes, in different ways
        torch.testing.assert_close(found, expected, rtol=0, atol=close * float(expected.abs().max()))
    assert model_defaults(pipe.model)["prior_steps"] is None
    for call in (lambda: pipe.generate("a cat"), lambda: sample_tensors(pipe, [pipe.resolve(Request(prompt="a cat"))])):
        with pytest.raises(RequestError, match="variations has no prior, so a prompt alone cannot guide it: give"):
            call()


def test_images_of_an_embedding_are_those_of_diffusers(variations) -> None:
    folder, _, theirs = variations
    pipe = Unclip.from_pretrained(folder, "cpu", "float32")
    image = Image.new("RGB", (40, 30), "red")
    embed = pipe.embed_image([image, image.rotate(90)])
    requests = [pipe.resolve(Request(prompt="a cat", seed=s, steps=3, upsampler_steps=2)) for s in (3, 9)]
    images = sample_tensors(pipe, requests, embed)
    # Diffusers' pipeline takes no embedding, so its prior is patched to return one.
    with pytest.MonkeyPatch.context() as patch:
        noise = make_generators([3, 9])
        patch.setattr(theirs.prior, "post_process_latents", lambda _: embed)
        patch.setattr(theirs.prior_scheduler, "step", lambda *_, **k: type("", (), {"prev_sample": embed})())
        real = type(theirs).prepare_latents
        patch.setattr(
            theirs,
            "prepare_latents",
            lambda shape, *a: embed if len(shape) == 2 else real(theirs, shape, *a),
        )
        expected = theirs(
            ["a cat", "a cat"],
            generator=noise,
            prior_num_inference_steps=2,
            decoder_num_inference_steps=3,
            super_res_num_inference_steps=2,
            output_type="np",
        ).images
    found = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - expected).max() < 2 / 255


def test_image_inputs_are_refused_without_an_image_encoder(karlo, tmp_path: Path) -> None:
    pipe = Unclip.from_pretrained(karlo("one")[0], "cpu", "float32")
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    with pytest.raises(RequestError, match="karlo has no image encoder"):
        pipe.embed_image(image)
    with pytest.raises(RequestError, match="karlo has no image encoder: give a prompt"):
        pipe.inpaint(image)
    [result] = pipe.inpaint(image, prompt="a cat", steps=2, prior_steps=2, upsampler_steps=2, resample=1, seed=1)
    assert result.score is None


def test_an_image_encoder_can_be_added(karlo, variations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Unclip.from_pretrained(karlo("one")[0], "cpu", "float32", image_encoder=variations[0])
    images_only = Unclip.from_pretrained(variations[0], "cpu", "float32", "low")
    image = Image.new("RGB", (30, 30), "red")
    assert torch.equal(both.embed_image(image), images_only.embed_image(image))
    fields = {"seed": 1, "steps": 2, "upsampler_steps": 2}
    [one], [other] = (pipe.vary(image, strength=0.5, **fields) for pipe in (both, images_only))
    assert one.image.tobytes() == other.image.tobytes()
    assert len(both.interpolate(image, "a cat", frames=2, prior_steps=2, **fields)) == 2
    assert record(one)["image_encoder"] == variations[0].name
    assert "image_encoder" not in record(other)
    cached = shutil.copytree(variations[0], tmp_path / "models--a--b" / "snapshots" / COMMIT)
    assert Unclip.from_pretrained(karlo("one")[0], "cpu", image_encoder=cached).model.image_encoder == f"a/b@{COMMIT}"
    monkeypatch.chdir(variations[0])
    assert Unclip.from_pretrained(karlo("one")[0], "cpu", image_encoder=".").model.image_encoder == variations[0].name
    with pytest.raises(CheckpointError, match="has its own image encoder: leave image_encoder out"):
        Unclip.from_pretrained(variations[0], "cpu", "float32", image_encoder=variations[0])
    with pytest.raises(CheckpointError, match="karlo has no image_encoder; give the image variation repository"):
        Unclip.from_pretrained(karlo("one")[0], "cpu", "float32", image_encoder=karlo("one")[0])
    with pytest.raises(CheckpointError, match="embed_dim is 16, the text's is 24"):
        Unclip.from_pretrained(karlo("other")[0], "cpu", "float32", image_encoder=variations[0])


def test_loading_reports_each_network(variations, karlo) -> None:
    published, images_only = karlo("one")[0], variations[0]
    for folder, images, networks in ((published, None, 6), (images_only, None, 5), (published, images_only, 6)):
        calls: list[tuple[str, int, int]] = []
        how = {"image_encoder": images, "progress": lambda *call, calls=calls: calls.append(call)}
        Unclip.from_pretrained(folder, "cpu", "float32", **how)
        assert calls == [("loading", done, networks) for done in range(networks + 1)]


# ---- memory and precision


@pytest.mark.parametrize("memory", ["low", "auto"])
def test_memory_modes_give_the_same_image(variations, karlo, memory: str) -> None:
    folder, _ = karlo("other")
    fields = {"seed": 3, "prior_steps": 2, "steps": 2, "upsampler_steps": 2}
    [high] = Unclip.from_pretrained(folder, "cpu", "float32", "high").generate("a cat", **fields)
    pipe = Unclip.from_pretrained(folder, "cpu", "float32", memory)
    for _ in range(2):
        [other] = pipe.generate("a cat", **fields)
        assert other.image.tobytes() == high.image.tobytes()


def test_bfloat16(karlo) -> None:
    pipe = Unclip.from_pretrained(karlo("one")[0], "cpu", "bfloat16", "low")
    assert pipe.generate("a cat", seed=1, steps=2, prior_steps=2, upsampler_steps=2)[0].image.size == (16, 16)
    assert {p.dtype for p in pipe.model.decoder.network.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in pipe.model.clip.parameters()} == {torch.float32}


def test_a_level_with_as_many_pixels_as_tokens(tmp_path: Path) -> None:
    """Diffusers fails there with a mask; without one, it gives the expected output of a mask that masks nothing."""
    from diffusers import UNet2DConditionModel

    from tests.published import randomize, unet
    from unclip.models.attention import use_text_attention

    size = SIZES["one"]
    network = randomize(
        unet(
            UNet2DConditionModel,
            size,
            attention=True,
            sample_size=8,
            out_channels=6,
            in_channels=3,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            cross_attention_dim=24,
            attention_head_dim=8,
            class_embed_type="identity",
        ),
        1,
    )
    x, tokens, time = torch.randn(2, 3, 8, 8), torch.randn(2, 16, 24), torch.randn(2, 64)  # 16 tokens, 4x4 pixels
    arguments = {"encoder_hidden_states": tokens, "class_labels": time}
    mask = torch.ones(2, 16, dtype=torch.bool)
    expected = network(x, 10, **arguments).sample
    with pytest.raises(RuntimeError):
        network(x, 10, **arguments, attention_mask=mask)
    use_text_attention(network)
    torch.testing.assert_close(network(x, 10, **arguments, attention_mask=mask).sample, expected)
    mask[:, 9:] = False
    changed = tokens.index_fill(1, torch.arange(9, 16), 5.0)
    masked = network(x, 10, **arguments, attention_mask=mask).sample
    arguments["encoder_hidden_states"] = changed
    torch.testing.assert_close(network(x, 10, **arguments, attention_mask=mask).sample, masked)
    assert not torch.allclose(masked, expected, atol=1e-3)


def test_a_copied_folder_names_the_model(karlo, tmp_path: Path) -> None:
    copy = shutil.copytree(karlo("one")[0], tmp_path / "mine")
    [result] = Unclip.from_pretrained(copy, "cpu", "float32").generate(
        "a", seed=1, steps=1, prior_steps=1, upsampler_steps=1
    )
    assert (result.model, result.revision) == ("mine", None)
