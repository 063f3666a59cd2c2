"""One network in memory at a time, and reading weights without a second copy."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unclip import Unclip
from unclip.checkpoints import load, offload, tensors
from unclip.checkpoints.tensors import read_tensors
from unclip.inference import stage
from unclip.system import device

STEPS = {"seed": 3, "prior_steps": 2, "steps": 2, "upsampler_steps": 2}


def weights(network: nn.Module) -> int:
    """The number of a network's parameters in memory."""
    return sum(p.numel() for p in network.parameters() if not p.is_meta)


def test_threads_take_turns(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALL", 64)
    low = Unclip.from_pretrained(tiny_model, "cpu", "float32", "low")
    prompts = ["a cat", "a red dog", "a cat on a dog", "two dogs"]
    alone = [low.generate(prompt, **STEPS)[0].image.tobytes() for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            images = pool.map(lambda prompt: low.generate(prompt, **STEPS)[0].image.tobytes(), prompts)
            assert list(images) == alone

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    inner = low.model.decoder.network.unet.conv_in.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        low.generate("a cat", **STEPS)
    inner.remove()  # the lock is free for the other threads
    with ThreadPoolExecutor(1) as pool:
        images = pool.submit(lambda: low.generate("a cat", **STEPS)[0].image.tobytes())
        assert images.result(timeout=60) == alone[0]


@pytest.mark.parametrize("model", ["tiny_model", "karlo"])
def test_only_the_network_that_runs_is_in_memory(model: str, request, monkeypatch: pytest.MonkeyPatch) -> None:
    found = request.getfixturevalue(model)
    folder = found if isinstance(found, Path) else found("one")[0]
    monkeypatch.setattr(offload, "SMALL", 64)  # default 65,536: tiny networks have no tensor that large
    high = Unclip.from_pretrained(folder, "cpu", "float32", "high")
    low = Unclip.from_pretrained(folder, "cpu", "float32", "low")

    def parts(pipe: Unclip) -> dict[str, nn.Module]:
        upsampler = pipe.model.upsamplers[0]
        found = {
            "text": pipe.model.clip.text,
            "images": pipe.model.clip.visual,
            "prior": pipe.model.prior.stage.network.transformer,
            "decoder": pipe.model.decoder.network.unet,
            "first": upsampler.network.unet,
            "last": None if upsampler.last_network is None else upsampler.last_network.unet,
        }
        return {name: network for name, network in found.items() if network is not None}

    full = {name: weights(network) for name, network in parts(high).items()}
    networks, seen = parts(low), []
    assert all(weights(network) < full[name] / 2 for name, network in networks.items())

    def watch(name: str):
        def hook(*_: object) -> None:
            resident = [other for other, network in networks.items() if weights(network) == full[other]]
            assert resident == [name]
            if seen[-1:] != [name]:
                seen.append(name)

        return hook

    for name, network in networks.items():
        network.register_forward_hook(watch(name))
    [result] = low.generate("a cat", **STEPS)
    order = ["text", "prior", "decoder", "first", "last", "images"]
    assert seen == [name for name in order if name in networks]
    [expected] = high.generate("a cat", **STEPS)
    assert result.image.tobytes() == expected.image.tobytes()
    assert result.score == expected.score


@pytest.mark.parametrize(("mode", "kept"), [("high", True), ("low", False)])
def test_freed_memory_is_reused_only_in_high_memory_mode(karlo, mode: str, kept: bool, monkeypatch) -> None:
    pipe, wanted = Unclip.from_pretrained(karlo("one")[0], "cpu", "float32", mode), []
    monkeypatch.setattr(stage, "reuse_freed_blocks", lambda asked: wanted.append(asked) or contextlib.nullcontext())
    pipe.generate("a cat", **STEPS)
    assert wanted == [kept] * 3  # prior, decoder, upsampler


def test_auto_decides_from_the_free_memory(karlo, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = karlo("one")
    needed = load.weight_bytes(load.component_folders([folder]), torch.bfloat16)
    pipe = Unclip.from_pretrained(folder, "cpu", "bfloat16", "high")
    stages = (pipe.model.prior.stage, pipe.model.decoder, pipe.model.upsamplers[0])
    networks = [*(s.network for s in stages), pipe.model.upsamplers[0].last_network]
    denoisers = sum(p.nbytes for n in networks for p in (*n.parameters(), *dict(n.named_buffers()).values()))
    assert needed == pytest.approx(denoisers + sum(p.nbytes for p in pipe.model.clip.parameters()), rel=0.01)
    stores = []
    monkeypatch.setattr(load, "OffloadStore", lambda: stores.append(offload.OffloadStore()) or stores[-1])
    for free, low in ((needed, True), (needed * 2, False)):
        monkeypatch.setattr(load, "free_memory", lambda _, free=free: free)
        stores.clear()
        Unclip.from_pretrained(folder, "cpu", "bfloat16", "auto")
        assert bool(stores) == low


def test_free_memory_is_no_more_than_the_machine_has() -> None:
    assert 0 < device.free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


# ---- reading


def test_tensors_are_mapped_or_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "REMAP_BYTES", 3000)  # one file is mapped several times
    g = torch.Generator().manual_seed(0)
    given = {f"half.{i}": torch.randn(20, 30, generator=g).half() for i in range(5)}
    given |= {
        "full": torch.randn(7, generator=g),
        "kernel": torch.randn(4, 3, 3, 3, generator=g),
        "one": torch.ones(()),
    }
    given["count"] = torch.tensor([2**40])
    save_file(given, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path, "cpu", torch.float32, channels_last=True)
    assert found.keys() == given.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, given[name].float() if name != "count" else given[name]), name
        assert tensor.dtype == (torch.int64 if name == "count" else torch.float32)
    assert found["kernel"].is_contiguous(memory_format=torch.channels_last)
    assert not found["kernel"].is_contiguous()
    some = read_tensors(tmp_path, "cpu", torch.bfloat16, names={"full", "half.3"})
    assert some.keys() == {"full", "half.3"}
    assert torch.equal(some["full"], given["full"].bfloat16())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_no_tensor_is_in_memory_twice(tmp_path: Path) -> None:
    """Converted tensors leave no page of the file in memory; unconverted ones use memory only once they are read."""
    part = torch.ones(1 << 20)
    path = tmp_path / "model.safetensors"

    def mapped() -> int:
        """KiB of the file that are in the memory of this process."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        starts = [i for i, line in enumerate(lines) if line.endswith(str(path))]
        return sum(int(lines[i + k].split()[1]) for i in starts for k in range(1, 6) if lines[i + k].startswith("Rss:"))

    save_file({str(i): part.half() for i in range(12)}, path)
    converted = read_tensors(tmp_path, "cpu", torch.float32)
    assert mapped() == 0
    assert all(tensor.dtype == torch.float32 for tensor in converted.values())
    as_it_is = read_tensors(tmp_path, "cpu", torch.float16)
    assert mapped() < 4096
    assert sum(float(tensor.float().sum()) for tensor in as_it_is.values()) == 12 << 20
    assert mapped() > 20_000  # the pages of the file


@pytest.mark.parametrize("model", ["tiny_model", "karlo"])
def test_reused_features_are_the_same_with_one_network_in_memory(
    model: str, request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of the networks that skip layers load the weights as the networks do."""
    found = request.getfixturevalue(model)
    folder = found if isinstance(found, Path) else found("one")[0]
    monkeypatch.setattr(offload, "SMALL", 64)
    fields = {"seed": 3, "steps": 4, "prior_steps": 2, "upsampler_steps": 4}
    images = [
        Unclip.from_pretrained(folder, "cpu", "float32", memory)
        .generate("a cat", **fields, **shortcut)[0]
        .image.tobytes()
        for memory in ("high", "low")
        for shortcut in ({}, {"cache_every": 2, "upsampler_cache_every": 2})
    ]
    assert images[:2] == images[2:] and images[0] != images[1]
