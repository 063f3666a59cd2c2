"""Write a checkpoint of a published layout and size with random weights, for benchmarks.

    python examples/full_size.py runs/full --family kandinsky-2-2
    unclip bench --model runs/full --against diffusers --batch-size 1
    unclip bench --model runs/full --stages --batch-size 1 --dtype bfloat16 --memory low

The families take 4 to 10 GB of disk, in bfloat16. `--tiny` writes a small one, to try the commands.
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
from unclip.checkpoints.transformers_clip import image_sources, text_sources
from unclip.checkpoints.transformers_tensors import TensorNames, source_shape
from unclip.checkpoints.transformers_xlm_roberta import tensor_names
from unclip.models.clip import Clip, ClipConfig
from unclip.models.xlm_roberta import XlmRobertaConfig, XlmRobertaTextEncoder

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


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


class Checkpoint:
    """A checkpoint that is being written: its folder, its index, and its number of weights."""

    def __init__(self, folder: Path, pipeline: str):
        folder.mkdir(parents=True)
        self.folder, self.total = folder, 0
        self.index: dict[str, Any] = {"_class_name": pipeline}

    def add(self, name: str, library: str, cls: str, file: str, config: Config) -> Path:
        """Write the config of a component and list it in the index; returns its folder."""
        self.index[name] = [library, cls]
        (self.folder / name).mkdir()
        (self.folder / name / file).write_text(json.dumps(config, indent=2))
        (self.folder / "model_index.json").write_text(json.dumps(self.index, indent=2))
        return self.folder / name

    def write_weights(self, name: str, file: str, shapes: Shapes) -> None:
        """Write random weights that preserve the scale of activations."""
        generator, tensors = torch.Generator().manual_seed(0), {}
        for key, shape in shapes.items():
            fan_in = max(1, torch.Size(shape[1:]).numel())
            values = torch.empty(shape, dtype=torch.bfloat16).normal_(std=fan_in**-0.5, generator=generator)
            if len(shape) < 2:  # a norm's weight, or a bias
                values.fill_(1.0 if key.endswith("weight") else 0.0)
            tensors[key] = torch.ones_like(values) if key in ("clip_std", "std") else values
        save_file(tensors, self.folder / name / file, metadata={"format": "pt"})
        count = sum(tensor.numel() for tensor in tensors.values())
        print(f"{name:<20}{count / 1e6:8.1f} M parameters", flush=True)
        self.total += count

    def network(self, name: str, cls: str, config: Config, library: str = "diffusers") -> None:
        """Write a network of diffusers' layout."""
        with init_empty_weights(include_buffers=False):
            shapes = parameter_shapes(new_network(cls, config))
        self.add(name, library, cls, "config.json", {"_class_name": cls, **config})
        self.write_weights(name, "diffusion_pytorch_model.safetensors", shapes)

    def schedule(self, name: str, cls: str, config: Config) -> None:
        """Write the config of a scheduler."""
        config = {"_class_name": cls, "num_train_timesteps": 1000, **config}
        self.add(name, "diffusers", cls, "scheduler_config.json", config)

    def text_encoder(self, size: Config, dim: int | None, name: str = "text_encoder") -> None:
        """Write a text encoder of CLIP. dim: of its embedding; None for one without a projection."""
        clip = ClipConfig(embed_dim=dim or 1, context_length=77, vision_layers=0, **open_clip("text", size))
        cls = "CLIPTextModel" if dim is None else "CLIPTextModelWithProjection"
        config = {
            "architectures": [cls],
            "model_type": "clip_text_model",
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 77,
            "vocab_size": clip.vocab_size,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            **({} if dim is None else {"projection_dim": dim}),
        }
        self.add(name, "transformers", cls, "config.json", config | size)
        sources = text_sources("text", size["num_hidden_layers"], projected=dim is not None)
        self.encoder_weights(name, clip, sources)

    def image_encoder(self, size: Config, dim: int) -> None:
        """Write an image encoder of CLIP, and its preprocessing."""
        clip = ClipConfig(embed_dim=dim, image_size=224, patch_size=14, text_layers=0, **open_clip("vision", size))
        config = {
            "architectures": ["CLIPVisionModelWithProjection"],
            "model_type": "clip_vision_model",
            "layer_norm_eps": 1e-5,
            "image_size": 224,
            "patch_size": 14,
            "projection_dim": dim,
        }
        self.add("image_encoder", "transformers", "CLIPVisionModelWithProjection", "config.json", config | size)
        self.encoder_weights("image_encoder", clip, image_sources(size["num_hidden_layers"]))
        pixels = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 224},
            "crop_size": {"height": 224, "width": 224},
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        }
        self.add("image_processor", "transformers", "CLIPImageProcessor", "preprocessor_config.json", pixels)

    def encoder_weights(self, name: str, config: ClipConfig, sources: TensorNames) -> None:
        """Write the weights of an encoder with the names of transformers."""
        with init_empty_weights(include_buffers=False):
            shapes = parameter_shapes(Clip(config))
        self.write_weights(name, "model.safetensors", stored(shapes, sources))

    def tokenizer(self, name: str = "tokenizer") -> None:
        """Write CLIP's tokenizer."""
        vocabulary = sorted(SimpleTokenizer().encoder.items(), key=lambda item: item[1])
        names = [token for token, _ in vocabulary[:-2]] + ["<|startoftext|>", "<|endoftext|>"]
        ends = {"bos_token": names[-2], "eos_token": names[-1], "unk_token": names[-1], "pad_token": "!"}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **ends}
        folder = self.add(name, "transformers", "CLIPTokenizer", "tokenizer_config.json", config)
        (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
        with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
            merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")

    def xlm_roberta(self, size: tuple[int, ...], dim: int) -> None:
        """Write the text encoder of Kandinsky 2.1, and a tokenizer that knows letters only."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        width, layers, heads, tokens = size
        sizes = XlmRobertaConfig(width, layers, heads, 4 * width, tokens, 514, 1, dim, pad=1, eps=1e-5)
        config = {
            "model_type": "M-CLIP",
            "architectures": ["MultilingualCLIP"],
            "transformerDimensions": width,
            "numDims": dim,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "vocab_size": tokens,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "pad_token_id": 1,
        }
        self.add("text_encoder", "kandinsky", "MultilingualCLIP", "config.json", config)
        with init_empty_weights(include_buffers=False):
            shapes = parameter_shapes(XlmRobertaTextEncoder(sizes))
        self.write_weights("text_encoder", "model.safetensors", stored(shapes, tensor_names(layers)))
        settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
        folder = self.add("tokenizer", "transformers", "XLMRobertaTokenizerFast", "tokenizer_config.json", settings)
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        letters = [("▁", -1.0), *((chr(code), -2.0) for code in range(33, 127))]
        letters = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *letters], unk_id=3))
        letters.pre_tokenizer = pre_tokenizers.Metaspace()
        letters.add_special_tokens(special)
        letters.save(str(folder / "tokenizer.json"))


def open_clip(encoder: str, size: Config) -> Config:
    """The fields of ClipConfig for the size of an encoder."""
    width, layers, heads, mlp, act = size.values()
    fields = {"width": width, "layers": layers, "heads": heads, "mlp_ratio": mlp / width}
    return {f"{encoder}_{name}": value for name, value in fields.items()} | {"quick_gelu": act == "quick_gelu"}


def stored(shapes: Shapes, sources: TensorNames) -> Shapes:
    """The shapes of the tensors of transformers for a network's parameters."""
    found: Shapes = {}
    for name, parts in sources.items():
        found |= dict.fromkeys(parts, source_shape(name, shapes[name], len(parts)))
    return found


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


def main(*given: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder; the prior of a Kandinsky comes beside it")
    parser.add_argument("--family", choices=WRITERS, default="karlo", help="the published layout  [default: karlo]")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the commands")
    arguments = parser.parse_args(given)
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists; give a new folder")
    total = WRITERS[arguments.family](arguments.folder, SIZES[arguments.family][1 if arguments.tiny else 0])
    print(f"{total / 1e6:.1f} M parameters in {arguments.folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
