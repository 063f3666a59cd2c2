import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unclip.models.cpu import onednn
from unclip.models.cpu.onednn import can_pack, conv_add, onednn_conv_flops, pack_convolutions

KINDS = {
    "3x3": nn.Conv2d(16, 32, 3, padding=1),
    "1x1": nn.Conv2d(16, 32, 1),
    "stride": nn.Conv2d(16, 32, 3, stride=2, padding=1),
    "no bias": nn.Conv2d(16, 32, 3, padding=1, bias=False),
    "few channels": nn.Conv2d(6, 3, 3, padding=1),
    "groups": nn.Conv2d(16, 32, 3, groups=4),
    "blocks of 48": nn.Conv2d(16, 96, 3, padding=1),
}
needs_packing = pytest.mark.skipif(not can_pack(), reason="this torch or CPU cannot pack weights")


@needs_packing
@pytest.mark.parametrize("conv", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (32, 32)], ids=str)
def test_a_packed_convolution_computes_the_same(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    conv = copy.deepcopy(conv).bfloat16().requires_grad_(False)
    x = torch.randn(2, conv.in_channels, *size).bfloat16()
    expected = conv(x.float().bfloat16())
    packed = pack_convolutions(nn.Sequential(copy.deepcopy(conv)))
    found = packed(x)
    assert packed[0].weight.is_mkldnn
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)  # of bfloat16's 8 bits
    assert found.is_contiguous(memory_format=torch.channels_last)


@needs_packing
@pytest.mark.parametrize("sizes", [(4, 4), (4, 64, 4)], ids=["one size", "two sizes"])
def test_onednn_reorders_no_weight_of_a_packed_convolution(sizes, capfd) -> None:
    """A weight of 384 x 192 channels that is packed for large inputs has the wrong layout for 4 x 4 pixels."""
    conv = pack_convolutions(nn.Sequential(nn.Conv2d(384, 192, 3, padding=1)).bfloat16().requires_grad_(False))
    with torch.inference_mode():
        for size in sizes:
            x = torch.randn(2, 384, size, size).bfloat16()
            conv(x)
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            conv(x)
    lines = capfd.readouterr().out.splitlines()
    assert any(",exec,cpu,convolution," in line for line in lines)
    assert not any(",exec,cpu,reorder," in line and "192x384" in line for line in lines)


@needs_packing
def test_packing_twice_changes_nothing() -> None:
    conv = nn.Sequential(nn.Conv2d(8, 8, 3)).bfloat16().requires_grad_(False)
    x = torch.randn(1, 8, 6, 6).bfloat16()
    pack_convolutions(conv)(x)
    weight = conv[0].weight
    pack_convolutions(conv)(x)
    assert conv[0].weight is weight


@needs_packing
@pytest.mark.parametrize("channels", [96, 384])
def test_the_layout_is_that_of_the_input(channels: int) -> None:
    """In another layout, a convolution computes the same, but takes up to fifty times as long."""
    dense = nn.Conv2d(channels, channels, 3, padding=1).bfloat16().requires_grad_(False)
    conv = pack_convolutions(nn.Sequential(copy.deepcopy(dense)))
    operators, geometry = torch.ops.mkldnn, ((1, 1), (1, 1), (1, 1), 1)
    for rows, side in ((2, 32), (2, 8), (1, 8), (2, 32), (2, 4)):
        x = torch.randn(rows, channels, side, side).bfloat16()
        with torch.inference_mode():
            found = conv(x)
        torch.testing.assert_close(found, dense(x), atol=0.02, rtol=0.02)
        expected = operators._reorder_convolution_weight(dense.weight, *geometry, x.shape)
        layouts = [operators._get_mkldnn_serialized_md(each).tolist() for each in (conv[0].weight, expected)]
        assert layouts[0] == layouts[1]
        assert not conv[0].weight.is_inference()  # it could not be used outside inference mode


@needs_packing
def test_a_packed_convolution_accepts_a_dense_weight() -> None:
    conv = nn.Sequential(nn.Conv2d(8, 8, 3)).bfloat16().requires_grad_(False)
    dense = copy.deepcopy(conv.state_dict())
    x = torch.randn(1, 8, 6, 6).bfloat16()
    expected = pack_convolutions(conv)(x)
    conv.load_state_dict(dense, assign=True)
    assert not conv[0].weight.is_mkldnn
    torch.testing.assert_close(conv(x), expected, atol=0.02, rtol=0.02)


def saved_and_loaded(conv: nn.Sequential) -> nn.Sequential:
    file = io.BytesIO()
    torch.save(conv.state_dict(), file)
    file.seek(0)
    made = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)).bfloat16()
    made.load_state_dict(torch.load(file))
    return made


@needs_packing
@pytest.mark.parametrize(
    "change",
    [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv)), saved_and_loaded, nn.Module.bfloat16],
    ids=["copied", "pickled", "saved", "cast"],
)
def test_a_packed_convolution_is_copied_saved_and_cast_as_a_dense_one(change) -> None:
    dense = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)).bfloat16().requires_grad_(False)
    conv, x = pack_convolutions(copy.deepcopy(dense)), torch.randn(1, 16, 6, 6).bfloat16()
    expected = conv(x)
    assert conv[0].weight.is_mkldnn
    made = change(conv)
    assert torch.equal(made.state_dict()["0.weight"], dense[0].weight)
    torch.testing.assert_close(made(x), expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(conv(x), expected, atol=0, rtol=0)  # the first one is as it was
    assert torch.equal(copy.deepcopy(conv).float()[0].weight, dense[0].weight.float())


@needs_packing
def test_weights_that_change_after_packing_are_used() -> None:
    dense = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)).bfloat16().requires_grad_(False)
    conv, x = pack_convolutions(copy.deepcopy(dense)), torch.randn(1, 16, 6, 6).bfloat16()
    conv(x)
    changed = {name: value * 2 for name, value in dense.state_dict().items()}
    conv.load_state_dict(changed)  # into the weights that it has
    torch.testing.assert_close(conv(x), 2 * dense(x), atol=0.02, rtol=0.02)


@needs_packing
def test_gradients_pass_through_a_convolution_that_was_packed() -> None:
    dense = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)).bfloat16().requires_grad_(False)
    conv, x = pack_convolutions(copy.deepcopy(dense)), torch.randn(1, 16, 6, 6).bfloat16()
    conv(x)
    for trained in (False, True):  # of the input only, and of the weights as well
        found, expected = (each.requires_grad_(trained) for each in (conv, dense))
        given = [x.clone().requires_grad_(True) for _ in range(2)]
        for each, own in zip((found, expected), given, strict=True):
            each(own).square().sum().backward()
        assert given[0].grad is not None and given[0].grad.abs().max() > 0
        torch.testing.assert_close(given[0].grad, given[1].grad, atol=0.05, rtol=0.05)
    torch.testing.assert_close(conv[0].weight.grad, dense[0].weight.grad, atol=0.5, rtol=0.05)


@needs_packing
def test_threads_that_pack_for_different_sizes_compute_the_same_and_leave_the_layout_that_is_named() -> None:
    dense = nn.Conv2d(96, 96, 3, padding=1).bfloat16().requires_grad_(False)
    conv = pack_convolutions(nn.Sequential(copy.deepcopy(dense)))
    inputs = [torch.randn(1, 96, side, side).bfloat16() for side in (4, 32)]
    expected = [dense(x) for x in inputs]

    def run(i: int) -> None:
        with torch.inference_mode():
            for _ in range(10):
                torch.testing.assert_close(conv(inputs[i % 2]), expected[i % 2], atol=0.02, rtol=0.02)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    layout = torch.ops.mkldnn._get_mkldnn_serialized_md(conv[0].weight).numpy().tobytes()
    assert getattr(conv[0].weight, onednn.LAYOUT) == layout


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3),  # float32 gains nothing
        nn.Conv2d(8, 8, 3, padding="same").bfloat16(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular").bfloat16(),
    ],
    ids=["float32", "same", "circular"],
)
def test_other_convolutions_are_not_packed(conv: nn.Conv2d) -> None:
    assert type(pack_convolutions(nn.Sequential(conv))[0]) is nn.Conv2d


def test_a_torch_without_the_operators_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "OPERATIONS", ("no_such_operation",))
    conv = nn.Sequential(nn.Conv2d(8, 8, 3).bfloat16().requires_grad_(False))
    assert type(pack_convolutions(conv)[0]) is nn.Conv2d


@needs_packing
@pytest.mark.parametrize("conv", KINDS.values(), ids=KINDS)
def test_flops_are_those_of_the_dense_convolution(conv: nn.Conv2d) -> None:
    dense = nn.Sequential(copy.deepcopy(conv)).bfloat16().requires_grad_(False)
    x, packed = torch.randn(2, conv.in_channels, 9, 8).bfloat16(), pack_convolutions(copy.deepcopy(dense))
    term, counts = dense(x), []
    for run in (lambda: dense(x), lambda: packed(x), lambda: conv_add(packed[0], x, term)):
        with FlopCounterMode(display=False, custom_mapping=onednn_conv_flops()) as counter:
            run()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == counts[2] > 0


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=needs_packing)])
@pytest.mark.parametrize("conv", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("everywhere", [False, True], ids=["term for each pixel", "one term for all pixels"])
def test_conv_add_is_the_sum(packed: bool, conv: nn.Conv2d, batch: int, everywhere: bool) -> None:
    conv = nn.Sequential(copy.deepcopy(conv)).requires_grad_(False)
    conv = pack_convolutions(conv.bfloat16()) if packed else conv.float()
    x = torch.randn(batch, conv[0].in_channels, 9, 8).to(conv[0].weight.dtype)
    alone = conv(x)
    term = torch.randn_like(alone[..., :1, :1] if everywhere else alone)
    before = x.clone(), term.clone()
    found = conv_add(conv[0], x, term)
    torch.testing.assert_close(found, alone + term, atol=0.03 if packed else 1e-6, rtol=0.02 if packed else 1e-6)
    assert torch.equal(x, before[0])
    assert torch.equal(term, before[1])
