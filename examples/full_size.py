"""Write a checkpoint of the published layout and size with random weights, for benchmarks.

    python examples/full_size.py runs/full
    unclip bench --model runs/full --against diffusers --batch-size 1
    unclip bench --model runs/full --stages --batch-size 1 --dtype bfloat16 --memory low

It takes 6.6 GB of disk, in bfloat16. `--tiny` writes a small one, to try the commands.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file

from unclip.checkpoints.networks import new_network, parameter_shapes
from unclip.checkpoints.transformers_clip import text_sources
from unclip.checkpoints.transformers_tensors import source_shape
from unclip.models.clip import Clip, ClipConfig

PUBLISHED = {
    "dim": 768,
    "text_heads": 12,
    "text_layers": 12,
    "heads": 32,
    "head": 64,
    "layers": 20,
    "cross": 1536,
    "widths": [320, 640, 960, 1280],
    "depth": 3,
    "groups": 32,
    "sides": (64, 256),
}
TINY = {
    "dim": 16,
    "text_heads": 2,
    "text_layers": 1,
    "heads": 2,
    "head": 8,
    "layers": 1,
    "cross": 24,
    "widths": [16, 32],
    "depth": 1,
    "groups": 8,
    "sides": (8, 16),
}
Shapes = dict[str, tuple[int, ...]]


def networks(size: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the class and the config of each component, except the text encoder."""
    widths, levels = size["widths"], len(size["widths"])
    down, up = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    unet = {
        "block_out_channels": widths,
        "layers_per_block": size["depth"],
        "norm_num_groups": size["groups"],
    }
    decoder = {
        **unet,
        "resnet_time_scale_shift": "scale_shift",
        "sample_size": size["sides"][0],
        "in_channels": 3,
        "out_channels": 6,
        "down_block_types": [down, *["SimpleCrossAttnDownBlock2D"] * (levels - 1)],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * (levels - 1), up],
        "cross_attention_dim": size["cross"],
        "attention_head_dim": size["head"],
        "class_embed_type": "identity",
    }
    upsampler = {
        **unet,
        "sample_size": size["sides"][1],
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": [down] * levels,
        "up_block_types": [up] * levels,
        "add_attention": False,
    }
    prior = {
        "num_attention_heads": size["heads"],
        "attention_head_dim": size["head"],
        "num_layers": size["layers"],
        "embedding_dim": size["dim"],
        "num_embeddings": 77,
        "additional_embeddings": 4,
    }
    projection = {
        "clip_extra_context_tokens": 4,
        "clip_embeddings_dim": size["dim"],
        "time_embed_dim": 4 * widths[0],
        "cross_attention_dim": size["cross"],
    }
    return {
        "prior": ("PriorTransformer", prior),
        "decoder": ("UNet2DConditionModel", decoder),
        "super_res_first": ("UNet2DModel", upsampler),
        "super_res_last": ("UNet2DModel", upsampler),
        "text_proj": ("UnCLIPTextProjModel", projection),
    }


def write_weights(path: Path, shapes: Shapes) -> int:
    """Write random weights that preserve the scale of activations; return their number."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        fan_in = max(1, torch.Size(shape[1:]).numel())
        values = torch.empty(shape, dtype=torch.bfloat16).normal_(std=fan_in**-0.5, generator=generator)
        if len(shape) < 2:  # a norm's weight, or a bias
            values.fill_(1.0 if name.endswith("weight") else 0.0)
        tensors[name] = torch.ones_like(values) if name == "clip_std" else values
    save_file(tensors, path, metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in tensors.values())


def write_text_encoder(folder: Path, size: dict[str, Any]) -> int:
    """Write the text encoder in the layout of transformers, and CLIP's tokenizer; return the number of weights."""
    dim = size["dim"]
    with init_empty_weights(include_buffers=False):
        clip = Clip(ClipConfig(embed_dim=dim, context_length=77, vision_layers=0, text_width=dim,
                               text_layers=size["text_layers"], text_heads=size["text_heads"]))  # fmt: skip
    shapes: Shapes = {}
    for name, parts in text_sources("text", size["text_layers"], projected=True).items():
        shapes |= dict.fromkeys(parts, source_shape(name, parameter_shapes(clip)[name], len(parts)))
    config = {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "hidden_size": dim,
        "intermediate_size": 4 * dim,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "num_attention_heads": size["text_heads"],
        "num_hidden_layers": size["text_layers"],
        "projection_dim": dim,
        "vocab_size": clip.config.vocab_size,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer").mkdir()
    vocabulary = sorted(SimpleTokenizer().encoder.items(), key=lambda item: item[1])
    names = [token for token, _ in vocabulary[:-2]] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    ends = {"bos_token": names[-2], "eos_token": names[-1], "unk_token": names[-1], "pad_token": "!"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **ends}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    return write_weights(folder / "text_encoder" / "model.safetensors", shapes)


def write_checkpoint(folder: Path, size: dict[str, Any]) -> int:
    """Write the whole checkpoint into a new folder; return the number of weights."""
    folder.mkdir(parents=True)
    index: dict[str, Any] = {"_class_name": "UnCLIPPipeline", "tokenizer": ["transformers", "CLIPTokenizer"]}
    total = write_text_encoder(folder, size)
    index["text_encoder"] = ["transformers", "CLIPTextModelWithProjection"]
    for component, (name, config) in networks(size).items():
        with init_empty_weights(include_buffers=False):
            shapes = parameter_shapes(new_network(name, config))
        (folder / component).mkdir()
        (folder / component / "config.json").write_text(json.dumps({"_class_name": name, **config}, indent=2))
        count = write_weights(folder / component / "diffusion_pytorch_model.safetensors", shapes)
        print(f"{component:<18}{count / 1e6:8.1f} M parameters", flush=True)
        total += count
        index[component] = ["unclip" if component == "text_proj" else "diffusers", name]
    schedules = {
        "prior": {"prediction_type": "sample", "variance_type": "fixed_small_log", "clip_sample_range": 5.0},
        "decoder": {"prediction_type": "epsilon", "variance_type": "learned_range", "clip_sample_range": 1.0},
        "super_res": {"prediction_type": "epsilon", "variance_type": "fixed_small_log", "clip_sample_range": 1.0},
    }
    for stage, config in schedules.items():
        config |= {"_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000, "clip_sample": True}
        (folder / f"{stage}_scheduler").mkdir()
        (folder / f"{stage}_scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=2))
        index[f"{stage}_scheduler"] = ["diffusers", "UnCLIPScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return total


def main(*given: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the commands")
    arguments = parser.parse_args(given)
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists; give a new folder")
    total = write_checkpoint(arguments.folder, TINY if arguments.tiny else PUBLISHED)
    print(f"{total / 1e6:.1f} M parameters in {arguments.folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
