from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from diffusers import UnCLIPPipeline
from torch import Tensor

from tests.tiny import CODEC, DECODER, DECODER_TEXT, DIM, TEXT_PROJ, TOKENS, tiny_network
from unclip.diffusion.codecs import Identity, PixelUnshuffle
from unclip.models.cpu.batch_invariance import KEY_BLOCK
from unclip.models.cpu.onednn import can_pack, pack_convolutions
from unclip.models.decoder import Decoder
from unclip.models.text import TextEncoding

# Its module moves between releases; find it beside the pipeline.
UnCLIPTextProjModel = import_module(UnCLIPPipeline.__module__).UnCLIPTextProjModel

PIXELS = {**DECODER, "sample_size": 8, "in_channels": 3, "out_channels": 6}  # as Karlo has it


def decoder(channels: int = 48, **changes) -> Decoder:
    unet = tiny_network("UNet2DConditionModel", {**DECODER, **changes}, seed=1)
    return Decoder(tiny_network("TextProjection", TEXT_PROJ), unet, channels)


def texts(b: int, seed: int = 1) -> TextEncoding:
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(TOKENS) < torch.arange(3, 3 + b)[:, None]  # b n
    embed, states = torch.randn(b, DIM, generator=g), torch.randn(b, TOKENS, DIM, generator=g)
    return TextEncoding(embed, states, mask, torch.randint(0, 49408, (b, TOKENS), generator=g))


def test_a_text_encoder_of_its_own_replaces_clips() -> None:
    unet, projection = (
        tiny_network(*part) for part in (("UNet2DConditionModel", DECODER), ("TextProjection", TEXT_PROJ))
    )
    own = tiny_network("TextEncoder", DECODER_TEXT)
    network, text, embed = Decoder(projection, unet, 48, own), texts(3), torch.randn(3, DIM)
    ours = network.condition(embed, text)
    pooled, states = own.transformer(text.tokens)
    expected = Decoder(projection, unet, 48).condition(embed, TextEncoding(pooled, states, text.mask, text.tokens))
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value)
    other = text._replace(embed=text.embed + 1, states=text.states + 1)  # CLIP's encoding is not used
    torch.testing.assert_close(network.condition(embed, other)["tokens"], ours["tokens"])


def test_pooled_scales_the_text_in_the_time_embedding() -> None:
    network, text, embed = decoder(), texts(3), torch.randn(3, DIM)
    whole, scaled = network.condition(embed, text), network.condition(embed, text, pooled=torch.tensor([1.0, 0.0, 1.0]))
    without = network.condition(embed, text._replace(embed=torch.zeros_like(text.embed)))
    torch.testing.assert_close(scaled["time_condition"][[0, 2]], whole["time_condition"][[0, 2]])
    torch.testing.assert_close(scaled["time_condition"][1], without["time_condition"][1])
    assert not torch.allclose(whole["time_condition"][1], without["time_condition"][1])
    torch.testing.assert_close(scaled["tokens"], whole["tokens"])  # the tokens are unaffected


def both_halves(network: Decoder, embed: Tensor) -> tuple[TextEncoding, TextEncoding, dict[str, Tensor]]:
    """Two texts, and [uncond, cond] of them in one batch."""
    text, negative = texts(len(embed)), texts(len(embed), seed=2)
    halves = (
        network.condition(network.projection.null_embed.expand_as(embed), negative),
        network.condition(embed, text),
    )
    return text, negative, {key: torch.cat([half[key] for half in halves]) for key in halves[0]}


def test_text_projection_equals_diffusers() -> None:
    network = decoder()
    theirs = UnCLIPTextProjModel(clip_extra_context_tokens=4, **TEXT_PROJ)
    theirs.load_state_dict(network.projection.state_dict(), strict=True)  # equal parameter names
    embed = torch.randn(3, DIM)
    text, negative, ours = both_halves(network, embed)
    tokens, time = theirs(
        image_embeddings=embed,
        prompt_embeds=torch.cat([negative.embed, text.embed]),
        text_encoder_hidden_states=torch.cat([negative.states, text.states]),
        do_classifier_free_guidance=True,
    )
    torch.testing.assert_close(ours["tokens"], tokens)
    torch.testing.assert_close(ours["time_condition"], time)
    mask = torch.cat([negative.mask, text.mask])
    assert torch.equal(ours["token_mask"], F.pad(mask, (4, 0), value=True))


def test_output_is_that_of_diffusers_unet() -> None:
    network, embed, t = decoder(3, **PIXELS), torch.randn(2, DIM), 321
    assert not network.has_inpainting_inputs
    text, negative, conditioning = both_halves(network, embed)
    x = torch.randn(2, 3, 8, 8).repeat(2, 1, 1, 1)
    theirs = network.unet(
        sample=x,
        timestep=t,
        encoder_hidden_states=conditioning["tokens"],
        class_labels=conditioning["time_condition"],
        attention_mask=F.pad(torch.cat([negative.mask, text.mask]), (4, 0), value=True),
    ).sample
    assert theirs.shape == (4, 6, 8, 8)
    torch.testing.assert_close(network(x, torch.full((4,), t), **conditioning), theirs)


def test_every_input_affects_the_output_and_padding_does_not() -> None:
    network, embed, text = decoder(), torch.randn(2, DIM), texts(2)
    x, t = torch.randn(2, 48, 4, 4), torch.tensor([700, 700])
    out = network(x, t, **network.condition(embed, text))
    other = texts(2, seed=2)
    padding = torch.where(text.mask[..., None], text.states, other.states)
    torch.testing.assert_close(network(x, t, **network.condition(embed, text._replace(states=padding))), out)
    for change in (
        (x + 1, t, embed, text),
        (x, t - 100, embed, text),
        (x, t, -embed, text),
        (x, t, embed, text._replace(embed=other.embed)),
        (x, t, embed, text._replace(states=other.states)),
        (x, t, embed, text._replace(mask=~text.mask)),
    ):
        changed = network(*change[:2], **network.condition(*change[2:]))
        assert (changed - out).abs().amax((1, 2, 3)).min() > 1e-4


def test_prepare_drops_tokens_that_are_masked_in_every_row() -> None:
    network, embed = decoder(), torch.randn(3, DIM)
    x, t = torch.randn(3, 48, 4, 4), torch.tensor([700, 400, 10])
    text = texts(3)
    text.mask[:, 1] = False  # masked, but not at the end
    whole = network.condition(embed, text)
    seen = int(text.mask.any(0).sum())
    assert seen < TOKENS - 1
    short = network.prepare(whole)
    assert short["tokens"].shape[1] == short["token_mask"].shape[1] == KEY_BLOCK  # in float32, whole blocks are kept
    half = {key: value.bfloat16() if value.is_floating_point() else value for key, value in whole.items()}
    assert network.prepare(half)["tokens"].shape[1] == 4 + seen
    out = network(x, t, **whole)
    torch.testing.assert_close(network(x, t, **short), out)
    alone = network.prepare({key: value[1:2] for key, value in whole.items()})
    assert "token_mask" not in network.prepare({key: value[1:2] for key, value in half.items()})  # none is left to mask
    torch.testing.assert_close(network(x[1:2], t[1:2], **alone), out[1:2])


@pytest.mark.skipif(not can_pack(), reason="this torch or CPU cannot pack weights")
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("time", ["scale_shift", "default"])
def test_packed_weights_give_the_same_output(rows: int, time: str) -> None:
    network = decoder(resnet_time_scale_shift=time)
    embed, x, t = torch.randn(rows, DIM), torch.randn(rows, 48, 4, 4), torch.tensor([700, 300, 20])[:rows]
    with torch.inference_mode():
        conditioning = network.condition(embed, texts(rows))
        expected = network(x, t, **conditioning)
        pack_convolutions(network.unet.bfloat16().to(memory_format=torch.channels_last))
        half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in conditioning.items()}
        found = network(x.bfloat16(), t, **half)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


# ---- GLIDE's inpainting inputs


def test_without_known_pixels_the_hint_is_zero() -> None:
    network, embed, text = decoder(), torch.randn(2, DIM), texts(2)
    assert network.has_inpainting_inputs
    image = CODEC.encode(torch.rand(2, 3, 16, 16))
    nothing = CODEC.encode_mask(torch.zeros(2, 1, 16, 16))
    without, zero = network.condition(embed, text), network.condition(embed, text, image, nothing)
    assert without.keys() == zero.keys()
    assert all(torch.equal(without[key], zero[key]) for key in zero)
    x, t = torch.randn(2, 48, 4, 4), torch.tensor([700, 700])
    assert torch.equal(network(x, t, **without), network(x, t, **zero))
    known = network.condition(embed, text, image, 1 - nothing)
    assert (network(x, t, **known) - network(x, t, **zero)).abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("codec", [PixelUnshuffle(4), PixelUnshuffle(2), Identity()])
def test_the_hint_is_the_known_image_and_one_mask_per_pixel(codec: PixelUnshuffle | Identity) -> None:
    channels, side, _ = codec.latent_shape(16, 16)
    masks = channels // 3
    network = decoder(channels, sample_size=side, in_channels=2 * channels + masks, out_channels=channels)
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    known = (torch.rand(2, 1, 16, 16) > 0.5).float()
    embed, text = torch.randn(2, DIM), texts(2)
    conditioning = network.condition(embed, text, codec.encode(image), codec.encode_mask(known))
    hint = conditioning["hint"]
    assert hint.shape == (2, channels + masks, side, side)
    assert torch.equal(codec.decode(hint[:, :channels]), image * known)
    assert torch.equal(F.pixel_shuffle(hint[:, channels:], 16 // side), known)  # the mask of each pixel, in its place
    x = torch.randn(2, channels, side, side)
    assert network(x, torch.tensor([5, 5]), **conditioning).shape == x.shape


def test_a_unet_without_mask_inputs_gets_no_hint() -> None:
    network = decoder(3, **PIXELS)
    image, known = torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    assert "hint" not in network.condition(torch.randn(2, DIM), texts(2), image, known)


def test_the_decoder_compiles_to_one_graph() -> None:
    """Training compiles the decoder; several graphs would not be faster than no compilation."""
    network, embed, t = decoder(), torch.randn(2, DIM), torch.tensor([300, 700])
    x, conditioning = torch.randn(2, 48, 4, 4), network.condition(embed, texts(2))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, **conditioning), network(x, t, **conditioning))
