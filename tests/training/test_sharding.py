"""Weights in shards over two processes: the same run as that of one, in whole files. The stages are in
`test_processes`."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import prepare_multi_gpu_env
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from tests.forked import forks, in_processes
from tests.training.test_processes import assert_same_run
from tests.training.toy import CPU, QUICK, Broken, Toy, at, rows, run, shade, step_of
from unclip.errors import DataError, InputError, ProcessError, RecipeError
from unclip.system.processes import Processes
from unclip.training.accelerator import connect
from unclip.training.batch import Batch
from unclip.training.budget import Budget
from unclip.training.module import ParallelLoss
from unclip.training.options import TrainingOptions
from unclip.training.sharding import Sharding, find_units, local
from unclip.training.state import new_optimizer

pytestmark = [forks, pytest.mark.usefixtures("no_tensorboard")]
SETTINGS = QUICK.model_copy(update={"batch_size": 4})
EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "fsdp.yaml"
run_toy = partial(run, dtype=torch.float32, settings=SETTINGS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        run_toy(folder := tmp_path_factory.mktemp("alone"))
    return folder


def environment(*arguments: str) -> dict[str, str]:
    """What `accelerate launch` sets for its processes."""
    args = launch_command_parser().parse_args([*arguments, "script.py"])
    args, *_ = _validate_launch_command(args)
    found = prepare_multi_gpu_env(args)
    return {key: value for key, value in found.items() if key.startswith(("ACCELERATE_", "FSDP_"))}


def set_fsdp(monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    for key, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **options}.items():
        monkeypatch.setenv(key, value)


def in_two(function) -> None:
    assert in_processes(2, lambda _: function() and None) == [None, None]


# ---- the same run


def test_the_example_configuration_of_accelerate(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for key, value in environment("--config_file", str(EXAMPLE), "--num_processes", "2").items():
        monkeypatch.setenv(key, value)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true" and os.environ["FSDP_VERSION"] == "2"
    assert TrainingOptions().precision(CPU) == torch.bfloat16
    in_two(lambda: run_toy(tmp_path))
    assert_same_run(tmp_path, alone)


def test_each_process_has_a_part_of_weights_gradients_and_moments():
    def count(_: int) -> list[int]:
        processes = connect(CPU)
        task = Toy()
        loss_of = ParallelLoss(task, CPU, processes, Sharding())
        loss, _figures = loss_of(Batch(torch.zeros(2, 3, 8, 8), ["0", "1"], torch.Generator(), processes))
        loss.backward()
        parameters = dict(task.network.named_parameters())
        optimizer = new_optimizer(parameters, SETTINGS)
        optimizer.step()
        tensors = [*parameters.values()], [p.grad for p in parameters.values() if p.grad is not None]
        moments = [optimizer.state[p]["exp_avg_sq"] for p in parameters.values()]
        return [sum(local(tensor).numel() for tensor in each) for each in (*tensors, moments)]

    first, second = in_processes(2, count)
    total = sum(p.numel() for p in Toy().network.parameters())
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] + second[0] == total and max(first[0], second[0]) < 0.6 * total


@pytest.mark.parametrize("before", [1, 2])
def test_a_run_resumes_with_and_without_shards(alone: Path, tmp_path: Path, before: int):
    def part(count: int, **options) -> list:
        return in_processes(count, lambda _: run_toy(tmp_path, **options, shard=count > 1) and None)

    stop = Toy(before=at(4, lambda: signal.raise_signal(signal.SIGTERM)))
    assert [kind for kind, _ in part(before, task=stop)] == [KeyboardInterrupt] * before
    assert step_of(tmp_path / "state.safetensors") == 4
    after = 3 - before
    assert part(after, resume=True) == [None] * after
    assert_same_run(tmp_path, alone)


def test_a_run_resumes_from_shards_to_shards_with_muon_and_two_parts(tmp_path: Path):
    settings = SETTINGS.model_copy(update={"optimizer": "muon"})
    run_toy(tmp_path / "one", settings=settings)
    sharded = partial(run_toy, tmp_path / "two", settings=settings, shard=True, accumulation=2)
    in_two(lambda: sharded(budget=Budget(3)))
    in_two(lambda: sharded(resume=True))
    one, two = (float(rows(tmp_path / name)[2]["loss"]) for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)
    # The rate falls towards the end of each of the two runs: compare with one that was resumed in the same way.
    run_toy(tmp_path / "three", settings=settings, budget=Budget(3))
    run_toy(tmp_path / "three", settings=settings, resume=True)
    assert_same_run(tmp_path / "two", tmp_path / "three")


def test_samples_of_the_average_do_not_disturb_a_run(alone: Path, tmp_path: Path):
    """The sheet after each step has the shade of the averaged weights; the next step has the weights again."""
    settings = SETTINGS.model_copy(update={"sample_minutes": 1e-9})
    shades = {}
    for name, count in (("one", 1), ("two", 2)):
        in_processes(count, lambda _, n=name, c=count: run_toy(tmp_path / n, settings=settings, shard=c > 1) and None)
        sheets = sorted((tmp_path / name / "samples").iterdir())
        shades[name] = [sheet.read_bytes() for sheet in sheets]
        assert len(sheets) == 8
    assert shades["one"] == shades["two"]
    assert_same_run(tmp_path / "two", alone)


def test_the_main_process_returns_whole_averaged_weights(alone: Path, tmp_path: Path):
    def finish(rank: int) -> int | None:
        network = run_toy(tmp_path, shard=True)
        assert not network.training
        return shade(network) if rank == 0 else None

    assert in_processes(2, finish) == [shade(run_toy(alone, resume=True)), None]


def test_processes_without_rows_of_a_weight(tmp_path: Path):
    """Four processes, and three rows in the last weight."""
    run_toy(tmp_path / "one", budget=Budget(3))
    sharded = partial(run_toy, tmp_path / "four", budget=Budget(3), shard=True)
    assert in_processes(4, lambda _: sharded() and None) == [None] * 4
    assert_same_run(tmp_path / "four", tmp_path / "one")


# ---- runs that end early


def test_an_error_of_all_saves_the_state(alone: Path, tmp_path: Path):
    results = in_processes(2, lambda _: run_toy(tmp_path, data=Broken(11), shard=True))  # the last of batch 3
    assert [kind for kind, _ in results] == [DataError] * 2
    assert results[0][1].endswith("; the state of step 2 is saved for --resume")
    assert step_of(tmp_path / "state.safetensors") == 2
    in_two(lambda: run_toy(tmp_path, resume=True, shard=True))
    assert_same_run(tmp_path, alone)


def test_a_killed_process_leaves_the_last_state_that_was_saved(tmp_path: Path):
    settings = SETTINGS.model_copy(update={"save_minutes": 1e-9})  # after each step

    def die(rank: int) -> None:
        act = at(4, lambda: os.kill(os.getpid(), signal.SIGKILL)) if rank == 1 else None
        run_toy(tmp_path, Toy(before=act), settings=settings, shard=True)

    (kind, message), killed = in_processes(2, die)
    assert killed == signal.SIGKILL and kind is ProcessError
    assert message == "another process of this run ended early; the state of step 3 is saved for --resume"
    assert step_of(tmp_path / "state.safetensors") == 3


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version: 1 is not supported: set fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params is not supported"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing is not supported"),
        ({"FSDP_IGNORED_MODULES": "lm_head"}, "fsdp_ignored_modules is not supported"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed is not supported: use FSDP with fsdp_version 2"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "dynamo_backend is not supported: set compile = true"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "mixed_precision: fp8 is not supported: use bf16 or fp16"),
    ],
)
def test_configurations_that_are_not_supported(tmp_path: Path, monkeypatch, options: dict, message: str):
    set_fsdp(monkeypatch, **options)
    with pytest.raises(RecipeError, match=f"^accelerate's configuration: {message}"):
        run_toy(tmp_path)
    assert not list(tmp_path.iterdir())


def test_moments_in_8_bits_are_refused(tmp_path: Path):
    settings = SETTINGS.model_copy(update={"optimizer": "adamw8bit"})
    results = in_processes(2, lambda _: run_toy(tmp_path, settings=settings, shard=True))
    message = 'optimizer = "adamw8bit" cannot divide its moments: use adamw or muon with shards of weights'
    assert results == [(RecipeError, message)] * 2


def test_one_process_has_no_shards(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="^--shard-weights divides them among processes: add --processes N"):
        TrainingOptions(shard=True).for_process(Processes())
    set_fsdp(monkeypatch)  # a configuration for many is no mistake on one
    run_toy(tmp_path)
    assert_same_run(tmp_path, alone)


# ---- units


def unet() -> nn.Module:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def names(sharding: Sharding) -> list[str]:
    network = nn.Sequential(unet())
    found = find_units(network, sharding)
    return [name for module in found for name, each in network.named_modules() if each is module]


def test_the_blocks_of_a_network_are_its_units():
    found = names(Sharding())
    assert {"0.down_blocks.0.resnets.0", "0.up_blocks.1.resnets.1", "0.mid_block.resnets.0"} < set(found)
    assert "0.down_blocks.1.attentions.0" in found and "0.conv_in" not in found
    inner = found.index("0.down_blocks.1.attentions.0.transformer_blocks.0")
    assert inner < found.index("0.down_blocks.1.attentions.0")


def test_units_by_class_and_by_size():
    assert set(names(Sharding(classes=("ResnetBlock2D",)))) == {n for n in names(Sharding()) if ".resnets." in n}
    with pytest.raises(RecipeError, match="no modules of the classes Gpt that FSDP should wrap: leave"):
        find_units(unet(), Sharding(classes=("Gpt",)))
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in unet().named_modules()}
    found = names(Sharding(least=3000))
    assert found and all(sizes[name.removeprefix("0.").removeprefix("0")] >= 3000 for name in found)
    assert len(found) < len(names(Sharding(least=1000)))


def test_a_configuration_names_the_units(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    set_fsdp(monkeypatch, FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP", FSDP_TRANSFORMER_CLS_TO_WRAP="Conv2d,Linear")
    in_two(lambda: run_toy(tmp_path / "classes"))
    assert_same_run(tmp_path / "classes", alone)
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "Gpt")
    assert [kind for kind, _ in in_processes(2, lambda _: run_toy(tmp_path / "none"))] == [RecipeError] * 2
    set_fsdp(monkeypatch, FSDP_AUTO_WRAP_POLICY="SIZE_BASED_WRAP", FSDP_MIN_NUM_PARAMS="100")
    in_two(lambda: run_toy(tmp_path / "sizes"))
    assert_same_run(tmp_path / "sizes", alone)
