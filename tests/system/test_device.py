import pytest
import torch

from unclip.errors import InputError
from unclip.system.choices import DTYPES
from unclip.system.device import has_native_bfloat16, pick_device, pick_dtype


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    """Simulate a machine with these accelerators."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("there", "expected"),
    [({"cuda": 2, "mps": True}, "cuda"), ({"cuda": 1}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")],
)
def test_auto_picks_the_fastest_device(monkeypatch: pytest.MonkeyPatch, there: dict, expected: str) -> None:
    machine(monkeypatch, **there)
    assert pick_device() == pick_device("auto") == torch.device(expected)


def test_a_device_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "mps", "cuda:2", "cuda:99"])
def test_a_missing_device(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine(monkeypatch, cuda=2 if ":" in name else 0)
    with pytest.raises(InputError, match=f"device '{name}' is not available here; use --device cpu or auto"):
        pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:", "cuda:01", "cuda:300", "tpu:0", "meta", "CPU"])
def test_an_unknown_device(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown device '{name}'; choose from auto, cpu, mps, cuda, cuda:N"):
        pick_device(name)


@pytest.mark.parametrize(
    ("flags", "native"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True), ({"avx2": True}, False)],
)
def test_bfloat16_on_a_cpu_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch, flags: dict, native: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    cpu = torch.device("cpu")
    assert has_native_bfloat16(cpu) is native
    assert pick_dtype("auto", cpu) == (torch.bfloat16 if native else torch.float32)


def test_bfloat16_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # an older torch
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_a_dtype_by_name() -> None:
    for name in DTYPES[1:]:
        assert str(pick_dtype(name, torch.device("cpu"))) == f"torch.{name}"
    with pytest.raises(InputError, match="unknown dtype 'half'; choose from auto, float32, bfloat16, float16"):
        pick_dtype("half", torch.device("cpu"))
