"""Checkpoints of the published layout with random weights, saved by diffusers and transformers."""

import gzip
import json
from importlib import import_module
from pathlib import Path

import torch
from diffusers import PriorTransformer, UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

# Its module moves between releases; find it beside the pipeline.
UnCLIPTextProjModel = import_module(UnCLIPPipeline.__module__).UnCLIPTextProjModel

SIZES = {
    "one": {
        "dim": 16,
        "heads": 2,
        "text_layers": 1,
        "tokens": 13,
        "prior": (2, 8, 2),  # heads, channels a head, layers
        "cross": 24,
        "widths": (16, 32),
        "layers": 1,
        "head": 8,
        "sides": (8, 16),
    },
    "other": {
        "dim": 24,
        "heads": 3,
        "text_layers": 2,
        "tokens": 11,
        "prior": (3, 4, 1),
        "cross": 20,
        "widths": (8, 16, 24),
        "layers": 2,
        "head": 4,
        "sides": (16, 32),
    },
}


def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Fill a network with random weights, none all zero, so that every input affects the output; returns it."""
    torch.manual_seed(seed)
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif not parameter.any():
            parameter.normal_(std=0.3)
    return network


def tokenizer(folder: Path, tokens: int, pad: str = "!") -> CLIPTokenizer:
    """CLIP's tokenizer; most published checkpoints pad with "!"."""
    vocabulary = dict(SimpleTokenizer().encoder)
    ends = sorted(vocabulary.values())[-2:]
    vocabulary = {token: i for token, i in vocabulary.items() if i not in ends}
    vocabulary |= {"<|startoftext|>": ends[0], "<|endoftext|>": ends[1]}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad, model_max_length=tokens)


def unet(cls: type, size: dict, attention: bool, **more: object) -> nn.Module:
    """A U-Net; with `attention`, all levels but the finest attend to the text."""
    coarser = len(size["widths"]) - 1
    down, up = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    return cls(
        block_out_channels=size["widths"],
        layers_per_block=size["layers"],
        norm_num_groups=4,
        down_block_types=(down, *["SimpleCrossAttnDownBlock2D" if attention else down] * coarser),
        up_block_types=(*["SimpleCrossAttnUpBlock2D" if attention else up] * coarser, up),
        resnet_time_scale_shift="scale_shift" if attention else "default",
        **more,
    )


def published(size: dict, scratch: Path, prediction: str = "epsilon") -> UnCLIPPipeline:
    """A pipeline of diffusers with the structure of kakaobrain/karlo-v1-alpha."""
    dim, (heads, channels, layers) = size["dim"], size["prior"]
    text = CLIPTextConfig(
        hidden_size=dim,
        intermediate_size=3 * dim,
        projection_dim=dim,
        num_hidden_layers=size["text_layers"],
        num_attention_heads=size["heads"],
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
    decoder = unet(
        UNet2DConditionModel,
        size,
        attention=True,
        sample_size=size["sides"][0],
        in_channels=3,
        out_channels=6,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=size["cross"],
        attention_head_dim=size["head"],
        class_embed_type="identity",
    )
    upsamplers = [
        unet(
            UNet2DModel,
            size,
            attention=False,
            sample_size=size["sides"][1],
            in_channels=6,
            out_channels=3,
            add_attention=False,
        )
        for _ in range(2)
    ]
    projection = UnCLIPTextProjModel(
        clip_embeddings_dim=dim, time_embed_dim=4 * size["widths"][0], cross_attention_dim=size["cross"]
    )
    randomize(prior, 1).clip_std.uniform_(0.5, 1.5)
    pipe = UnCLIPPipeline(
        prior=prior,
        decoder=randomize(decoder, 2),
        text_encoder=randomize(CLIPTextModelWithProjection(text), 3),
        tokenizer=tokenizer(scratch, size["tokens"]),
        text_proj=randomize(projection, 4),
        super_res_first=randomize(upsamplers[0], 5),
        super_res_last=randomize(upsamplers[1], 6),
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        decoder_scheduler=UnCLIPScheduler(variance_type="learned_range", prediction_type=prediction),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type=prediction),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def add_image_encoder(folder: Path, size: dict) -> CLIPVisionModelWithProjection:
    """Turn a checkpoint into an image variation checkpoint: an image encoder instead of the prior."""
    config = CLIPVisionConfig(
        hidden_size=20,
        intermediate_size=50,
        projection_dim=size["dim"],
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
    )
    encoder = randomize(CLIPVisionModelWithProjection(config), 7)
    encoder.save_pretrained(folder / "image_encoder")
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder / "feature_extractor"
    )
    index = json.loads((folder / "model_index.json").read_text())
    for gone in ("prior", "prior_scheduler"):
        del index[gone]
    index["_class_name"] = "UnCLIPImageVariationPipeline"
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return encoder
