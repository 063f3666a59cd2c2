"""Load Kandinsky 2.1's MultilingualCLIP, which transformers saved, into `XlmRobertaTextEncoder`."""

from functools import partial
from pathlib import Path

import torch

from unclip.checkpoints.networks import ReadTensors, make_empty, one_line, parameter_shapes
from unclip.checkpoints.settings import FIX, XlmRobertaSettings, validate
from unclip.checkpoints.transformers_tensors import TensorNames, check_sources, read_sources, stored_shapes
from unclip.errors import CheckpointError
from unclip.models.xlm_roberta import XlmRobertaConfig, XlmRobertaTextEncoder
from unclip.system.files import read_json

_EMBEDDINGS = {"tokens": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
_LAYER = {  # torch -> transformers
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


def prepare_xlm_roberta(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[XlmRobertaTextEncoder, ReadTensors]:
    """An empty text encoder, and a function that reads its weights onto `device` in `dtype`.

    folder: of the component. Raises CheckpointError for a config or tensors that do not belong to a MultilingualCLIP.
    """
    path = folder / "config.json"
    found = validate(XlmRobertaSettings, read_json(path), str(path))
    if found.transformerDimensions != found.hidden_size:
        raise CheckpointError(
            f"{path}: transformerDimensions is {found.transformerDimensions}, hidden_size {found.hidden_size}; {FIX}"
        )
    config = XlmRobertaConfig(
        width=found.hidden_size,
        layers=found.num_hidden_layers,
        heads=found.num_attention_heads,
        mlp_width=found.intermediate_size,
        vocab_size=found.vocab_size,
        positions=found.max_position_embeddings,
        token_types=found.type_vocab_size,
        embed_dim=found.numDims,
        pad=found.pad_token_id,
        eps=found.layer_norm_eps,
    )
    try:
        encoder = make_empty(partial(XlmRobertaTextEncoder, config), stored_shapes(folder))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; {FIX}") from None
    except Exception as error:  # torch raises many kinds
        raise CheckpointError(f"{path} does not fit XLM-R: {one_line(error)}") from None
    sources = check_sources(folder, tensor_names(config.layers), parameter_shapes(encoder))
    return encoder, partial(read_sources, sources, device, dtype)


def tensor_names(layers: int) -> TensorNames:
    """The tensors of transformers for each parameter. torch keeps query, key and value in one parameter."""
    model = "transformer"
    names = {f"{own}.weight": [f"{model}.embeddings.{other}.weight"] for own, other in _EMBEDDINGS.items()}
    for part in ("weight", "bias"):
        names[f"norm.{part}"] = [f"{model}.embeddings.LayerNorm.{part}"]
        names[f"projection.{part}"] = [f"LinearTransformation.{part}"]
        for i in range(layers):
            theirs = f"{model}.encoder.layer.{i}"
            attention = [f"{theirs}.attention.self.{which}.{part}" for which in ("query", "key", "value")]
            names[f"layers.{i}.self_attn.in_proj_{part}"] = attention
            for own, other in _LAYER.items():
                names[f"layers.{i}.{own}.{part}"] = [f"{theirs}.{other}.{part}"]
    return names
