"""The published size of each family, and a tiny one."""

from typing import Any

Config = dict[str, Any]


def transformer(width: int, layers: int, heads: int, mlp: int | None = None, act: str = "quick_gelu") -> Config:
    """The size of a CLIP encoder, with the names of transformers."""
    mlp = 4 * width if mlp is None else mlp
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    return dict(zip(names, (width, layers, heads, mlp, act), strict=True))


CLIP_L = {"dim": 768, "text": transformer(768, 12, 12), "image": transformer(1024, 24, 16)}
CLIP_BIG_G = {
    "dim": 1280,
    "text": transformer(1280, 32, 20, act="gelu"),
    "image": transformer(1664, 48, 16, 8192, act="gelu"),
}
CLIP_TINY = {"dim": 16, "text": transformer(16, 1, 2), "image": transformer(16, 1, 2)}
PRIOR, PRIOR_TINY = (32, 64, 20), (2, 8, 1)  # heads, channels a head, layers
UNET = {"depth": 3, "groups": 32, "head": 64}
UNET_TINY = {"depth": 1, "groups": 8, "head": 8}
XLM_R, XLM_R_TINY = (1024, 24, 16, 250_002), (16, 1, 2, 300)  # width, layers, heads, tokens
LATENT = {"side": 64, "autoencoder": (128, 256, 256, 512)}
LATENT_TINY = {"side": 16, "autoencoder": (32, 32, 32, 32)}

KANDINSKY = {"prior": PRIOR, **UNET, **LATENT, "widths": (384, 768, 1152, 1536), "cross": 768}
KANDINSKY_TINY = {"prior": PRIOR_TINY, **UNET_TINY, **LATENT_TINY, "widths": (16, 32), "cross": 16}
SIZES = {  # family -> (published size, tiny size)
    "karlo": (
        CLIP_L | UNET | {"prior": PRIOR, "widths": (320, 640, 960, 1280), "cross": 1536, "sides": (64, 256)},
        CLIP_TINY | UNET_TINY | {"prior": PRIOR_TINY, "widths": (16, 32), "cross": 24, "sides": (8, 16)},
    ),
    "kandinsky-2-2": (CLIP_BIG_G | KANDINSKY, CLIP_TINY | KANDINSKY_TINY),
    "kandinsky-2-1": (CLIP_L | KANDINSKY | {"xlm_r": XLM_R}, CLIP_TINY | KANDINSKY_TINY | {"xlm_r": XLM_R_TINY}),
    "stable-unclip": (
        CLIP_L
        | {"prior": PRIOR, "widths": (320, 640, 1280, 1280), "depth": 2, "groups": 32, "heads": (5, 10, 20, 20)}
        | {"side": 96, "autoencoder": (128, 256, 512, 512), "decoder_text": transformer(1024, 23, 16, act="gelu")},
        CLIP_TINY
        | {"prior": PRIOR_TINY, "widths": (16, 32), "depth": 1, "groups": 8, "heads": (2, 4)}
        | LATENT_TINY
        | {"decoder_text": transformer(24, 1, 2, act="gelu")},
    ),
}
