"""Write the components of a checkpoint, as diffusers and transformers save them."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file

from random_checkpoint.sizes import Config
from unclip.checkpoints.networks import new_network, parameter_shapes
from unclip.checkpoints.transformers_clip import image_sources, text_sources
from unclip.checkpoints.transformers_tensors import TensorNames, source_shape
from unclip.checkpoints.transformers_xlm_roberta import tensor_names
from unclip.models.clip import Clip, ClipConfig
from unclip.models.xlm_roberta import XlmRobertaConfig, XlmRobertaTextEncoder

Shapes = dict[str, tuple[int, ...]]


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
