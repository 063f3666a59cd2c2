"""Checkpoints of Stable unCLIP's layout with random weights, saved by diffusers and transformers."""

from pathlib import Path

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    PriorTransformer,
    StableUnCLIPImg2ImgPipeline,
    StableUnCLIPPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.published import randomize, tokenizer

SIZES = {
    # As in the published sizes, activations are whole vectors of 32: their remainders would be rounded otherwise.
    "one": {"dim": 64, "tokens": 16, "prior": (2, 8, 2), "cross": 24, "widths": (16, 32), "side": 16},
    "other": {"dim": 24, "tokens": 11, "prior": (3, 4, 1), "cross": 16, "widths": (8, 16), "side": 8},
}


def decoder_parts(size: dict, scratch: Path) -> dict:
    """The components that both pipelines have."""
    dim, cross, widths = size["dim"], size["cross"], size["widths"]
    text = CLIPTextConfig(
        hidden_size=cross,
        intermediate_size=3 * cross,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=size["tokens"],
        hidden_act="gelu",
    )
    unet = UNet2DConditionModel(
        sample_size=size["side"],
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=cross,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * dim,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    normalizer = StableUnCLIPImageNormalizer(embedding_dim=dim)
    normalizer.requires_grad_(False)
    normalizer.mean.normal_()
    normalizer.std.uniform_(0.5, 1.5)
    return {
        "image_normalizer": normalizer,
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "tokenizer": tokenizer(scratch, size["tokens"]),
        "text_encoder": randomize(CLIPTextModel(text), 3),
        "unet": randomize(unet, 2),
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
            set_alpha_to_one=False,
            steps_offset=1,
            clip_sample=False,
        ),
        "vae": randomize(vae, 4),
    }


def text_to_image(size: dict, scratch: Path) -> StableUnCLIPPipeline:
    """A pipeline of diffusers with a prior, and the structure of Stable unCLIP."""
    dim, (heads, channels, layers) = size["dim"], size["prior"]
    text = CLIPTextConfig(
        hidden_size=dim,
        intermediate_size=3 * dim,
        projection_dim=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=size["tokens"],
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
    pipe = StableUnCLIPPipeline(
        **decoder_parts(size, scratch),
        prior_tokenizer=tokenizer(scratch, size["tokens"]),
        prior_text_encoder=randomize(CLIPTextModelWithProjection(text), 5),
        prior=prior,
        prior_scheduler=DDPMScheduler(
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample_range=5.0,
            beta_schedule="squaredcos_cap_v2",
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_variation(size: dict, scratch: Path) -> StableUnCLIPImg2ImgPipeline:
    """A pipeline of diffusers with an image encoder, and the structure of stabilityai/stable-diffusion-2-1-unclip."""
    vision = CLIPVisionConfig(
        hidden_size=20,
        intermediate_size=60,
        projection_dim=size["dim"],
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        hidden_act="quick_gelu",
    )
    pipe = StableUnCLIPImg2ImgPipeline(
        **decoder_parts(size, scratch),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        image_encoder=randomize(CLIPVisionModelWithProjection(vision), 7),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
