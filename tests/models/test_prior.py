import torch

from tests.tiny import DIM, PRIOR, TOKENS, tiny_network
from unclip.models.prior import Prior
from unclip.models.text import TextEncoding


def texts(b: int, seed: int = 1) -> TextEncoding:
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(TOKENS) < torch.arange(3, 3 + b)[:, None]  # b n
    embed, states = torch.randn(b, DIM, generator=g), torch.randn(b, TOKENS, DIM, generator=g)
    return TextEncoding(embed, states, mask, torch.randint(0, 49408, (b, TOKENS), generator=g))


def test_output_is_that_of_diffusers_transformer() -> None:
    prior, text = Prior(tiny_network("PriorTransformer", PRIOR)), texts(3)
    x, t = torch.randn(3, DIM), torch.tensor([999, 500, 0])
    ours = prior(x, t, **prior.condition(text))
    for i in range(3):
        theirs = prior.transformer(
            x[i : i + 1],
            timestep=t[i],
            proj_embedding=text.embed[i : i + 1],
            encoder_hidden_states=text.states[i : i + 1],
            attention_mask=text.mask[i : i + 1],
        ).predicted_image_embedding
        torch.testing.assert_close(ours[i : i + 1], theirs)


def test_every_input_affects_the_output_and_padding_does_not() -> None:
    prior, text = Prior(tiny_network("PriorTransformer", PRIOR)), texts(2)
    x, t = torch.randn(2, DIM), torch.tensor([700, 700])
    out = prior(x, t, **prior.condition(text))
    other = texts(2, seed=2)
    padding = torch.where(text.mask[..., None], text.states, other.states)
    torch.testing.assert_close(prior(x, t, **prior.condition(text._replace(states=padding))), out)
    for change in (
        (x + 1, t, text),
        (x, t - 1, text),
        (x, t, text._replace(embed=other.embed)),
        (x, t, text._replace(states=other.states)),
        (x, t, text._replace(mask=~text.mask)),
    ):
        changed = prior(*change[:2], **prior.condition(change[2]))
        assert (changed - out).abs().amax(1).min() > 1e-4


def test_tokens_masked_in_every_row_are_skipped_when_sampling() -> None:
    prior, text = Prior(tiny_network("PriorTransformer", PRIOR)), texts(3)
    text.mask[:, 1] = False  # masked, but not at the end
    x, t, lengths = torch.randn(3, DIM), torch.tensor([700, 400, 10]), []
    for block in prior.transformer.transformer_blocks:
        block.ff.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    whole = prior(x, t, **prior.condition(text))  # with gradients, as in training, all tokens are computed
    with torch.no_grad():
        exact = prior(x, t, **prior.condition(text))
        prior.bfloat16()
        half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in prior.condition(text).items()}
        sampled = prior(x.bfloat16(), t, **half)
    seen = int(text.mask.any(0).sum())
    # float32 keeps blocks of 16 tokens, for batch invariance; here, these are all
    assert lengths == [TOKENS + 4] * 4 + [seen + 4] * 2
    torch.testing.assert_close(exact, whole)
    torch.testing.assert_close(sampled.float(), whole, atol=0.1, rtol=0.1)


def test_whitening_and_its_inverse() -> None:
    prior = Prior(tiny_network("PriorTransformer", PRIOR))
    mean, std = prior.transformer.clip_mean[0], prior.transformer.clip_std[0]
    embed = mean + std * torch.randn(5000, DIM, generator=torch.Generator().manual_seed(0))
    white = prior.whiten(embed)
    torch.testing.assert_close(white.mean(0), torch.zeros(DIM), rtol=0, atol=0.06)
    torch.testing.assert_close(white.std(0), torch.ones(DIM), rtol=0, atol=0.06)
    torch.testing.assert_close(prior.unwhiten(white), embed)
    # diffusers' own inverse
    torch.testing.assert_close(prior.unwhiten(white), prior.transformer.post_process_latents(white))
