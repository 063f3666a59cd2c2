"""LoRA files: read in the formats of peft and diffusers, and added to the weights."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from tests.helpers import difference
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from unclip import Unclip
from unclip.errors import CheckpointError

FAST = {"seed": 3, "steps": 3, "prior_steps": 2}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj", "conv1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Kandinsky 2.2."""
    folder, size = tmp_path_factory.mktemp("models"), SIZES_2_2["one"]
    kandinsky_prior(size, folder).save_pretrained(folder / "kandinsky-2-2-prior")
    kandinsky_decoder(size).save_pretrained(folder / "decoder")
    return folder / "decoder"


@pytest.fixture
def adapted(folder, tmp_path) -> tuple[Path, torch.nn.Module]:
    """A LoRA file in peft's format, and the U-Net to which peft applies it."""
    unet = Unclip.from_pretrained(folder, "cpu", "float32").model.decoder.network.unet
    with torch.inference_mode(False):
        model = get_peft_model(unet, LoraConfig(r=3, lora_alpha=6, target_modules=TARGETS))
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(std=0.2)
    found = get_peft_model_state_dict(model)
    tensors = {f"unet.{name.removeprefix('base_model.model.')}": t.contiguous() for name, t in found.items()}
    modules = {name.partition(".lora_")[0] for name in tensors}
    save_file(tensors | {f"{name}.alpha": torch.tensor(6.0) for name in modules}, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors", model.base_model.model


@pytest.mark.parametrize("memory", ["high", "low"])
def test_a_merged_lora_gives_the_images_of_one_that_peft_applies(folder, adapted, memory: str) -> None:
    path, applied = adapted
    plain = Unclip.from_pretrained(folder, "cpu", "float32")
    [without] = plain.generate("a cat", **FAST)
    plain.model.decoder.network.unet = applied
    [expected] = plain.generate("a cat", **FAST)
    merged = Unclip.from_pretrained(folder, "cpu", "float32", memory, lora=path)
    [found] = merged.generate("a cat", **FAST)
    assert difference(found, expected) <= 1 and difference(found, without) > 5
    assert found.loras == ("style.safetensors",)


def test_scales_add_up(folder, adapted) -> None:
    path, _ = adapted
    [whole] = Unclip.from_pretrained(folder, "cpu", "float32", lora=path).generate("a cat", **FAST)
    parts = Unclip.from_pretrained(folder, "cpu", "float32", lora=[f"{path}:0.25", f"{path}:0.75"])
    assert difference(parts.generate("a cat", **FAST)[0], whole) <= 1
    none = Unclip.from_pretrained(folder, "cpu", "float32", lora=f"{path}:0").generate("a cat", **FAST)
    assert difference(none[0], Unclip.from_pretrained(folder, "cpu", "float32").generate("a cat", **FAST)[0]) <= 1
    assert parts.model.loras == ("style.safetensors:0.25", "style.safetensors:0.75")


def test_files_of_diffusers_attention_processors_are_read(folder, tmp_path) -> None:
    unet = Unclip.from_pretrained(folder, "cpu", "float32").model.decoder.network.unet
    attention = "down_blocks.1.attentions.0"
    weight = unet.get_submodule(f"{attention}.to_out.0").weight
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    tensors = {
        f"{attention}.processor.to_out_lora.down.weight": down,
        f"{attention}.processor.to_out_lora.up.weight": up,
    }
    save_file(tensors, tmp_path / "kandinsky.safetensors")
    changed = Unclip.from_pretrained(folder, "cpu", "float32", lora=tmp_path / "kandinsky.safetensors")
    found = changed.model.decoder.network.unet.get_submodule(f"{attention}.to_out.0").weight
    torch.testing.assert_close(found, weight + up @ down)


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_files_of_kohyas_scripts_are_read(folder, adapted, tmp_path, alpha: float | None) -> None:
    """Their names have no dots. Without alpha, a change is added as it is."""
    path, _ = adapted
    tensors = load_file(path)
    renamed = {}
    for name, tensor in tensors.items():
        module, _, part = name.removeprefix("unet.").partition(".lora_")
        if part:
            part = {"A": "down", "B": "up"}[part[0]]
            renamed[f"lora_unet_{module.replace('.', '_')}.lora_{part}.weight"] = tensor
        elif alpha is not None:
            renamed[f"lora_unet_{module.removesuffix('.alpha').replace('.', '_')}.alpha"] = tensor
    save_file(renamed, tmp_path / "kohya.safetensors")
    kohya = Unclip.from_pretrained(folder, "cpu", "float32", lora=tmp_path / "kohya.safetensors")
    same = Unclip.from_pretrained(
        folder, "cpu", "float32", lora=f"{path}:{1 if alpha else 0.5}"
    )  # alpha is twice the rank
    for one, other in zip(
        kohya.model.decoder.network.parameters(), same.model.decoder.network.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other)
    save_file(renamed | {"lora_te_text_model_x.lora_down.weight": torch.zeros(2, 8)}, tmp_path / "kohya.safetensors")
    with pytest.raises(CheckpointError, match="a U-Net or a prior alone: it has a tensor 'lora_te_text_model"):
        Unclip.from_pretrained(folder, "cpu", "float32", lora=tmp_path / "kohya.safetensors")


def test_bfloat16_and_several_files(folder, adapted) -> None:
    """The sum is computed in float32 and rounded once for each file."""
    path, _ = adapted
    plain, changed = (
        Unclip.from_pretrained(folder, "cpu", "float32", lora=lora).model.decoder.network.unet
        for lora in ((), (path, f"{path}:-0.5"))
    )
    half = Unclip.from_pretrained(folder, "cpu", "bfloat16", "low", lora=(path, f"{path}:-0.5")).model
    name = "mid_block.attentions.0.to_q.weight"
    reference, before = changed.state_dict()[name], plain.state_dict()[name]
    half.decoder.network.unet(
        torch.zeros(1, 4, 16, 16).bfloat16(), 1, None, added_cond_kwargs={"image_embeds": torch.zeros(1, 16).bfloat16()}
    )
    found = half.decoder.network.unet.state_dict()[name]
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), reference, atol=0.02, rtol=0.02)
    assert (reference - before).abs().max() > 0.1


def test_files_that_do_not_fit_are_refused_in_one_line(folder, tmp_path) -> None:
    def load(tensors: dict[str, torch.Tensor] | None, name: str = "bad.safetensors") -> None:
        if tensors is not None:
            save_file(tensors, tmp_path / name)
        Unclip.from_pretrained(folder, "cpu", "float32", lora=tmp_path / name)

    pair = {"down_blocks.9.x.lora_A.weight": torch.zeros(2, 8), "down_blocks.9.x.lora_B.weight": torch.zeros(8, 2)}
    for tensors, message in (
        (pair, "of another family or size"),
        ({"down_blocks.9.x.lora_A.weight": torch.zeros(2, 8)}, "half of its pair"),
        ({"conv_in.weight": torch.zeros(2, 8)}, "not a LoRA"),
        (pair | {"down_blocks.9.x.lora_B.weight": torch.zeros(8, 3)}, "not a LoRA's"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            load(tensors)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(CheckpointError, match="no LoRA file"):
        load(None, "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="text.safetensors"):
        load(None, "text.safetensors")
    with pytest.raises(CheckpointError, match="scale"):
        Unclip.from_pretrained(folder, "cpu", "float32", lora="x.safetensors:inf")


def test_the_prior_takes_files_of_diffusers_attention_processors(folder, tmp_path) -> None:
    """The names that diffusers' example train_text_to_image_lora_prior.py saves."""
    plain = Unclip.from_pretrained(folder, "cpu", "float32")
    transformer = plain.model.prior.stage.network.transformer
    torch.manual_seed(0)
    tensors, expected = {}, {}
    for part in ("to_q", "to_k", "to_v", "to_out"):
        layer = "transformer_blocks.1.attn1." + ("to_out.0" if part == "to_out" else part)
        weight = transformer.get_submodule(layer).weight
        down, up = torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
        name = f"transformer_blocks.1.attn1.processor.{part}_lora"
        tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
        expected[layer] = weight + up @ down
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    changed = Unclip.from_pretrained(folder, "cpu", "float32", lora=tmp_path / "pytorch_lora_weights.safetensors")
    for layer, weight in expected.items():
        torch.testing.assert_close(changed.model.prior.stage.network.transformer.get_submodule(layer).weight, weight)
    assert difference(changed.generate("a cat", **FAST)[0], plain.generate("a cat", **FAST)[0]) > 1
