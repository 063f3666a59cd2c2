"""Checkpoints of Kandinsky's layout with random weights, saved by diffusers and transformers."""

from pathlib import Path

from diffusers import (
    DDPMScheduler,
    KandinskyV22InpaintPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.published import randomize, tokenizer

SIZES_2_2 = {
    "one": {
        "dim": 16,
        "tokens": 13,
        "prior": (2, 8, 2),  # heads, channels a head, layers
        "cross": 24,
        "widths": (16, 32),
        "layers": 1,
        "head": 8,
        "movq": (32, 64),
        "side": 16,  # of the latent
    },
    "other": {
        "dim": 24,
        "tokens": 11,
        "prior": (3, 4, 1),
        "cross": 20,
        "widths": (8, 16, 24),
        "layers": 2,
        "head": 4,
        "movq": (32, 32, 64),
        "side": 8,
    },
}


def kandinsky_prior(size: dict, scratch: Path) -> KandinskyV22PriorPipeline:
    """A pipeline of diffusers with the structure of kandinsky-community/kandinsky-2-2-prior."""
    dim, (heads, channels, layers) = size["dim"], size["prior"]
    clip = {"intermediate_size": 3 * dim, "projection_dim": dim, "hidden_act": "gelu"}
    text = CLIPTextConfig(
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=size["tokens"],
        **clip,
    )
    vision = CLIPVisionConfig(
        hidden_size=20, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, **clip
    )
    prior = PriorTransformer(
        num_attention_heads=heads,
        attention_head_dim=channels,
        num_layers=layers,
        embedding_dim=dim,
        num_embeddings=size["tokens"],
        additional_embeddings=4,
    )
    randomize(prior, 1).clip_std.uniform_(0.5, 1.5)
    pipe = KandinskyV22PriorPipeline(
        prior=prior,
        image_encoder=randomize(CLIPVisionModelWithProjection(vision), 7),
        text_encoder=randomize(CLIPTextModelWithProjection(text), 3),
        tokenizer=tokenizer(scratch, size["tokens"]),
        scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def kandinsky_decoder(
    size: dict, inpaint: bool = False, clip_sample: bool = True
) -> KandinskyV22Pipeline | KandinskyV22InpaintPipeline:
    """A pipeline of diffusers with the structure of kandinsky-community/kandinsky-2-2-decoder, or -decoder-inpaint."""
    coarser = len(size["widths"]) - 1
    unet = UNet2DConditionModel(
        sample_size=size["side"],
        in_channels=9 if inpaint else 4,
        out_channels=8,
        block_out_channels=size["widths"],
        layers_per_block=size["layers"],
        norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * coarser),
        up_block_types=(*["SimpleCrossAttnUpBlock2D"] * coarser, "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        resnet_time_scale_shift="scale_shift",
        cross_attention_dim=size["cross"],
        attention_head_dim=size["head"],
        addition_embed_type="image",
        encoder_hid_dim_type="image_proj",
        encoder_hid_dim=size["dim"],
    )
    levels = len(size["movq"])
    movq = VQModel(
        block_out_channels=size["movq"],
        down_block_types=(*["DownEncoderBlock2D"] * (levels - 1), "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * (levels - 1)),
        layers_per_block=1,
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=12,
        norm_num_groups=4,
        norm_type="spatial",
    )
    scheduler = DDPMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=clip_sample
    )
    cls = KandinskyV22InpaintPipeline if inpaint else KandinskyV22Pipeline
    pipe = cls(unet=randomize(unet, 2), scheduler=scheduler, movq=randomize(movq, 4))
    pipe.set_progress_bar_config(disable=True)
    return pipe
