"""Write a checkpoint of each family."""

from pathlib import Path
from typing import Any

from random_checkpoint.sizes import Config
from random_checkpoint.writer import Checkpoint


def prior(size: Config) -> Config:
    heads, channels, layers = size["prior"]
    sizes = {"num_attention_heads": heads, "attention_head_dim": channels, "num_layers": layers}
    return sizes | {"embedding_dim": size["dim"], "num_embeddings": 77, "additional_embeddings": 4}


def unet(size: Config, **more: Any) -> Config:
    """The config of a U-Net of Karlo or Kandinsky, whose levels below the first attend to tokens."""
    coarser = len(size["widths"]) - 1
    return {
        "block_out_channels": size["widths"],
        "layers_per_block": size["depth"],
        "norm_num_groups": size["groups"],
        "resnet_time_scale_shift": "scale_shift",
        "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * coarser],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * coarser, "ResnetUpsampleBlock2D"],
        "cross_attention_dim": size["cross"],
        "attention_head_dim": size["head"],
        **more,
    }


def autoencoder(size: Config, **more: Any) -> Config:
    """The config of a KL autoencoder or, with `more`, of MoVQ."""
    levels = len(size["autoencoder"])
    return {
        "block_out_channels": size["autoencoder"],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        **more,
    }


def write_karlo(folder: Path, size: Config) -> int:
    """Write a checkpoint like kakaobrain/karlo-v1-alpha; returns its number of weights, as all of these functions."""
    made, levels = Checkpoint(folder, "UnCLIPPipeline"), len(size["widths"])
    made.text_encoder(size["text"], size["dim"])
    made.tokenizer()
    made.network("prior", "PriorTransformer", prior(size))
    channels = {"in_channels": 3, "out_channels": 6, "sample_size": size["sides"][0]}
    made.network("decoder", "UNet2DConditionModel", unet(size, class_embed_type="identity", **channels))
    upsampler = {
        **{name: unet(size)[name] for name in ("block_out_channels", "layers_per_block", "norm_num_groups")},
        "sample_size": size["sides"][1],
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] * levels,
        "up_block_types": ["ResnetUpsampleBlock2D"] * levels,
        "add_attention": False,
    }
    for name in ("super_res_first", "super_res_last"):
        made.network(name, "UNet2DModel", upsampler)
    projection = {
        "clip_extra_context_tokens": 4,
        "clip_embeddings_dim": size["dim"],
        "time_embed_dim": 4 * size["widths"][0],
        "cross_attention_dim": size["cross"],
    }
    made.network("text_proj", "UnCLIPTextProjModel", projection, library="unclip")
    for stage, target, variance, limit in (
        ("prior", "sample", "fixed_small_log", 5.0),
        ("decoder", "epsilon", "learned_range", 1.0),
        ("super_res", "epsilon", "fixed_small_log", 1.0),
    ):
        config = {"prediction_type": target, "variance_type": variance, "clip_sample_range": limit}
        made.schedule(f"{stage}_scheduler", "UnCLIPScheduler", config | {"clip_sample": True})
    return made.total


def write_kandinsky(folder: Path, size: Config) -> int:
    """Write the repositories of a Kandinsky's decoder and, beside it, of its prior. "xlm_r" in size: of version 2.1."""
    is_2_1 = "xlm_r" in size
    pipeline = "Kandinsky" if is_2_1 else "KandinskyV22"
    beside = folder.parent / ("kandinsky-2-1-prior" if is_2_1 else "kandinsky-2-2-prior")
    first = Checkpoint(beside, f"{pipeline}PriorPipeline")
    first.text_encoder(size["text"], size["dim"])
    first.tokenizer()
    first.image_encoder(size["image"], size["dim"])
    first.network("prior", "PriorTransformer", prior(size))
    config = {"prediction_type": "sample", "variance_type": "fixed_small_log", "clip_sample_range": 10.0}
    first.schedule("scheduler", "UnCLIPScheduler", config | {"clip_sample": True})
    made = Checkpoint(folder, f"{pipeline}Pipeline")
    conditioning = {
        "addition_embed_type": "text_image" if is_2_1 else "image",
        "encoder_hid_dim_type": "text_image_proj" if is_2_1 else "image_proj",
        "encoder_hid_dim": size["xlm_r"][0] if is_2_1 else size["dim"],
    }
    channels = {"in_channels": 4, "out_channels": 8, "sample_size": size["side"]}
    made.network("unet", "UNet2DConditionModel", unet(size, **channels, **conditioning))
    movq = autoencoder(size, norm_type="spatial", num_vq_embeddings=16384, vq_embed_dim=4)
    movq["down_block_types"][-1], movq["up_block_types"][0] = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"
    made.network("movq", "VQModel", movq)
    betas = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    if is_2_1:
        made.xlm_roberta(size["xlm_r"], size["dim"])
        made.schedule("scheduler", "DDIMScheduler", betas | {"clip_sample": False, "set_alpha_to_one": False})
    else:
        made.schedule("scheduler", "DDPMScheduler", betas | {"clip_sample": True})
    return first.total + made.total


def write_stable_unclip(folder: Path, size: Config) -> int:
    """Write a Stable unCLIP with Karlo's prior: text to image."""
    made, levels, width = Checkpoint(folder, "StableUnCLIPPipeline"), len(size["widths"]), size["decoder_text"]
    made.text_encoder(size["text"], size["dim"], "prior_text_encoder")
    made.tokenizer("prior_tokenizer")
    made.network("prior", "PriorTransformer", prior(size))
    squared = {"beta_schedule": "squaredcos_cap_v2"}
    config = {"prediction_type": "sample", "variance_type": "fixed_small_log", "clip_sample_range": 5.0}
    made.schedule("prior_scheduler", "DDPMScheduler", config | squared)
    made.network("image_normalizer", "StableUnCLIPImageNormalizer", {"embedding_dim": size["dim"]}, "stable_diffusion")
    made.schedule("image_noising_scheduler", "DDPMScheduler", squared)
    made.text_encoder(width, None)
    made.tokenizer()
    config = {
        "sample_size": size["side"],
        "block_out_channels": size["widths"],
        "layers_per_block": size["depth"],
        "norm_num_groups": size["groups"],
        "down_block_types": [*["CrossAttnDownBlock2D"] * (levels - 1), "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * (levels - 1)],
        "attention_head_dim": size["heads"],
        "cross_attention_dim": width["hidden_size"],
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 2 * size["dim"],
        "use_linear_projection": True,
    }
    made.network("unet", "UNet2DConditionModel", config)
    made.network("vae", "AutoencoderKL", autoencoder(size))
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    config = {"prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True}
    made.schedule("scheduler", "PNDMScheduler", betas | config)
    return made.total


WRITERS = {
    "karlo": write_karlo,
    "kandinsky-2-2": write_kandinsky,
    "kandinsky-2-1": write_kandinsky,
    "stable-unclip": write_stable_unclip,
}
