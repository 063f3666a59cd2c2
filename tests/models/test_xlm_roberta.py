"""XLM-R: the same numbers and tokens as transformers'."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import XLMRobertaTokenizer as TheirTokenizer

from tests.published_kandinsky_2_1 import multilingual_clip, xlm_roberta_tokenizer
from unclip.checkpoints import offload
from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.transformers_xlm_roberta import prepare_xlm_roberta
from unclip.errors import CheckpointError
from unclip.models.xlm_roberta import XlmRobertaTextEncoder, XlmRobertaTokenizer

CPU = torch.device("cpu")
SIZES = {
    "one": {"width": 16, "heads": 2, "layers": 3, "dim": 12},
    "other": {"width": 24, "heads": 3, "layers": 1, "dim": 24},
}
PROMPTS = ["red cat, 4k photo", "", "Красный  кот", "a<pad>b", "cat </s> dog", "red cat dog " * 9, "\tUnknown Ünï ☃\n"]


def model(name: str, tmp_path: Path):
    """MultilingualCLIP with random weights, saved."""
    made = multilingual_clip(**SIZES[name])
    made.save_pretrained(tmp_path / "text_encoder")
    return made


def load(folder: Path, low: bool = False, dtype: torch.dtype = torch.float32) -> XlmRobertaTextEncoder:
    loader = ComponentLoader(folder, CPU, dtype, offload.OffloadStore() if low else None)
    return loader.load_prepared(*prepare_xlm_roberta(folder / "text_encoder", CPU, dtype))


def some_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, 50, (3, 11), generator=torch.Generator().manual_seed(0))
    for row, end in zip(ids, (11, 5, 2), strict=True):
        row[end:] = 1
    ids[0, 4] = 1  # a pad token that the prompt spells out
    return ids, torch.arange(11) < torch.tensor([[11], [5], [2]])


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_same_numbers_as_transformers(name: str, low: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALL", 64)
    theirs, ours, (ids, mask) = model(name, tmp_path), load(tmp_path, low), some_tokens()
    assert any(parameter.is_meta for parameter in ours.parameters()) == low
    with torch.no_grad():
        embed, states = theirs(ids, mask.long())
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):  # torch has a faster way without gradients
        with mode():
            found = ours.encode_tokens(ids, mask)
        torch.testing.assert_close(found.embed, embed, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.states, states, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.mask, mask) and torch.equal(found.tokens, ids)
    assert embed.std() > 0.1 and (embed[0] - embed[1]).abs().max() > 0.1
    own = ours.encode_tokens(ids).mask
    assert torch.equal(own, ids != 1)


def test_precision_can_be_half(tmp_path: Path) -> None:
    theirs, ours, (ids, mask) = model("one", tmp_path), load(tmp_path, dtype=torch.bfloat16), some_tokens()
    with torch.no_grad():
        embed, states = theirs(ids, mask.long())
        found = ours.encode_tokens(ids, mask)
    for mine, expected in ((found.embed, embed), (found.states, states)):
        assert mine.dtype == torch.float32
        assert (mine - expected).norm() < 0.05 * expected.norm()


def test_tensors_and_settings_are_checked(tmp_path: Path) -> None:
    model("one", tmp_path)
    path = tmp_path / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"hidden_act": "relu"}, "hidden_act is 'relu', and only gelu"),
        ({"transformerDimensions": 17}, "transformerDimensions is 17, hidden_size 16"),
        ({"num_hidden_layers": 2}, "has unexpected tensors: transformer.encoder.layer.2"),
        ({"num_attention_heads": 3}, "does not fit XLM-R"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)
    path.write_text(json.dumps(config))
    [file] = (tmp_path / "text_encoder").glob("*.safetensors")
    tensors = load_file(file)
    assert "transformer.pooler.dense.weight" in tensors  # published, and used by nobody
    tensors.pop("LinearTransformation.bias")
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="lacks tensors: LinearTransformation.bias"):
        load(tmp_path)


# ---- tokens


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[XlmRobertaTokenizer, TheirTokenizer]:
    theirs = xlm_roberta_tokenizer()
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs.save_pretrained(folder)
    return XlmRobertaTokenizer(folder / "tokenizer.json", 16), theirs


def test_same_tokens_as_transformers(tokenizers: tuple[XlmRobertaTokenizer, TheirTokenizer]) -> None:
    ours, theirs = tokenizers
    found = ours.tokenize(PROMPTS)
    expected = theirs(PROMPTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    assert torch.equal(found.ids, expected.input_ids)
    assert torch.equal(found.mask, expected.attention_mask.bool())
    assert len(set(map(tuple, found.ids.tolist()))) == len(PROMPTS)


def test_overflow_is_the_text_that_does_not_fit(tokenizers: tuple[XlmRobertaTokenizer, TheirTokenizer]) -> None:
    ours, _ = tokenizers
    assert ours.capacity == 14
    fits = "red cat dog red cat dog red cat dog red cat dog red cat"
    assert ours.overflow(fits) == ours.overflow("") == ""
    assert ours.overflow(f"{fits} photo dog") == "photo dog"


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="is missing: .* XLMRobertaTokenizerFast"):
        XlmRobertaTokenizer(file)
    file.write_text("{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        XlmRobertaTokenizer(file)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(CheckpointError, match=r"needs tokenizers: pip install 'unclip\[kandinsky\]'"):
        XlmRobertaTokenizer(file)
