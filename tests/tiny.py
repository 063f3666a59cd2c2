"""The tiny model of all tests: random weights, images of 16x16 and 32x32 pixels in milliseconds."""

from pathlib import Path

import torch
from torch import nn

from unclip.checkpoints.decoder_copy import NAME, PARTS, save_copy
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.networks import load_network, new_network, save_network
from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.schedule import Schedule
from unclip.system.files import read_json, write_json

DIM = 16  # of CLIP embeddings
TOKENS = 13  # per prompt; with 12, 4 + tokens would equal height * width, where diffusers fails
CODEC = PixelUnshuffle(4)

CLIP = {
    "embed_dim": DIM,
    "image_size": 16,
    "patch_size": 8,
    "vision_width": 16,
    "vision_layers": 1,
    "vision_heads": 2,
    "context_length": TOKENS,
    "text_width": DIM,  # the prior requires this
    "text_layers": 1,
    "text_heads": 2,
}
PRIOR = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "embedding_dim": DIM,
    "num_embeddings": TOKENS,
}
AUTOREGRESSIVE_PRIOR = {
    "embed_dim": DIM,
    "text_width": DIM,
    "context_length": TOKENS,
    "components": 5,
    "buckets": 8,
    "waves": 8,
    "width": 16,
    "layers": 2,
    "heads": 2,
}
TEXT_PROJ = {"clip_embeddings_dim": DIM, "time_embed_dim": 64, "cross_attention_dim": 24}
DECODER_TEXT = {"width": DIM, "layers": 1, "heads": 2, "context_length": TOKENS}
DECODER = {
    "sample_size": 4,
    "in_channels": 48 + 48 + 16,  # the noised latent, and GLIDE's inpainting inputs
    "out_channels": 48,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "cross_attention_dim": 24,
    "attention_head_dim": 8,
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
}
UPSAMPLER = {
    "sample_size": 8,
    "in_channels": 96,
    "out_channels": 48,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"],
    "up_block_types": ["ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"],
    "add_attention": False,
}
RESTORER = {"channels": 48, "widths": [8, 8], "blocks": [1, 1, 1]}
STAGES = {
    "prior": {"sampler": "ddim", "steps": 3, "guidance": 1.5},
    "autoregressive_prior": {"guidance": 1.5, "temperature": 0.9, "top_p": 0.95, "dot_from": 0.5},
    "decoder": {"sampler": "dpmpp-2m", "steps": 4, "guidance": 2.0, "size": [16, 16], "codec": CODEC.to_config()},
    "upsampler": {"sampler": "ddim", "steps": 2, "guidance": 1.0, "size": [32, 32], "codec": CODEC.to_config()},
}
SCHEDULES = {
    "prior": Schedule(prediction_type="sample", clip=5.0),
    "decoder": Schedule(prediction_type="v_prediction"),
    "upsampler": Schedule(prediction_type="v_prediction"),
}


def tiny_network(kind: str, config: dict, seed: int = 0) -> nn.Module:
    """A network of class `kind` with random weights, none all zero, so that every input affects the output."""
    torch.manual_seed(seed)
    network = new_network(kind, config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.mul_(1.5)  # stronger effects than at initialization
        if not parameter.any():
            parameter.normal_(std=0.3)
    if kind == "PriorTransformer":
        network.clip_std.uniform_(0.5, 1.5)
    return network


def write_tiny_model(folder: Path) -> Path:
    """Write the tiny model in the native layout, as training does; returns the folder."""
    components = {
        "clip": ("Clip", CLIP),
        "prior": ("PriorTransformer", PRIOR),
        "autoregressive_prior": ("AutoregressiveTransformer", AUTOREGRESSIVE_PRIOR),
        "text_proj": ("TextProjection", TEXT_PROJ),
        "decoder": ("UNet2DConditionModel", DECODER),
        "decoder_text": ("TextEncoder", DECODER_TEXT),
        "upsampler": ("UNet2DModel", UPSAMPLER),
    }
    index: dict = {"_class_name": "Unclip", "name": "tiny", "stages": STAGES}
    seeds = {"autoregressive_prior": 6}
    for component, (kind, config) in components.items():
        seed = seeds.setdefault(component, len(seeds) - 1)
        save_network(tiny_network(kind, config, seed), folder / component)
        own = config in (CLIP, AUTOREGRESSIVE_PRIOR, TEXT_PROJ, DECODER_TEXT)
        index[component] = ["unclip" if own else "diffusers", kind]
    for stage, schedule in SCHEDULES.items():
        write_json(folder / f"{stage}_scheduler" / "scheduler_config.json", schedule.to_config())
        index[f"{stage}_scheduler"] = ["diffusers", schedule.to_config()["_class_name"]]
    write_json(folder / "vocabulary.json", {"words": ["a", "cat", "dog", "on", "red", "blue"]})
    write_json(folder / INDEX, index)
    return folder


def use_clip_embedding(folder: Path) -> Path:
    """Give the text encoder of the tiny model's decoder CLIP's token embedding, as training does; return the folder."""
    encoder, clip = load_network(folder / "decoder_text"), load_network(folder / "clip")
    encoder.transformer.token_embedding.weight = clip.text.token_embedding.weight  # pyright: ignore
    save_network(encoder, folder / "decoder_text")
    return folder


def add_inpainting_decoder(folder: Path, *changed: str) -> Path:
    """Give the tiny model in a folder an inpainting decoder, and return the folder.

    changed: beginnings of the names of its own tensors, such as "decoder.conv_in"; all others are the decoder's.
    """
    networks = {part: load_network(folder / part) for part in PARTS}
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for part, network in networks.items():
            for name, parameter in network.named_parameters():
                if f"{part}.{name}".startswith(changed):
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    save_copy(networks, folder)
    index = read_json(folder / INDEX)
    index[NAME] = ["unclip", "InpaintingDecoder"]
    index["stages"][NAME] = {"sampler": "ddim", "steps": 3, "guidance": 1.5, "shown_above": 0.9}
    write_json(folder / INDEX, index)
    return folder


def add_second_upsampler(folder: Path) -> Path:
    """Give the tiny model in a folder a second upsampler, from 32 to 128 px; returns the folder."""
    save_network(tiny_network("Restorer", RESTORER, seed=7), folder / "second_upsampler")
    schedule = Schedule(prediction_type="sample", clip=1.0).to_config()
    write_json(folder / "second_upsampler_scheduler" / "scheduler_config.json", schedule)
    index = read_json(folder / INDEX)
    index["second_upsampler"] = ["unclip", "Restorer"]
    index["second_upsampler_scheduler"] = ["diffusers", schedule["_class_name"]]
    index["stages"]["second_upsampler"] = {"sampler": "ddim", "size": [128, 128], "codec": CODEC.to_config()}
    write_json(folder / INDEX, index)
    return folder
