"""Measures the time per step of each stage of a model, relative to the machine's peak, here or with diffusers.

Each measurement runs in a process of its own, so that its peak memory is its own: `python -m unclip.benchmark.stages`
takes `StageBenchmark` as JSON and prints the report of `measure_stages` as JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from unclip.benchmark.pipelines import StageBenchmark, load_pipeline
from unclip.errors import UnclipError

MIN_STEPS = 2  # the upsampler's last step has a network of its own


def measure_in_process(settings: StageBenchmark) -> dict[str, Any]:
    """Return the report of `measure_stages` from a new process. Raises UnclipError if that fails."""
    command = [sys.executable, "-m", "unclip.benchmark.stages", json.dumps(asdict(settings))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no error output"]
        raise UnclipError(f"the measurement of {settings.library} failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_stages(settings: StageBenchmark) -> dict[str, Any]:
    """Return seconds per step by stage, images per minute with the model's default steps, and peak memory in MiB.

    The fraction of the peak relates a stage's arithmetic to the rate of a large matrix product in the same precision,
    measured in the same process.
    """
    import torch

    pipeline = load_pipeline(settings)
    networks, device = pipeline.networks, pipeline.device
    seconds: dict[str, list[float]] = {stage: [] for stage in networks}
    count = max(MIN_STEPS, settings.steps)
    flops = count_flops(networks, pipeline.generate)  # this also warms up
    with timed_calls(networks, seconds, device):
        pipeline.generate(count)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_memory()
    peak = measure_matmul_rate(device, pipeline.dtype)
    stages = {}
    for stage, calls in seconds.items():
        own_steps = pipeline.steps[stage]
        per_step = seconds_per_step(calls, count_steps(stage, count, networks), own_steps) if calls else None
        flop = flops[stage] / count_steps(stage, MIN_STEPS, networks)
        stages[stage] = {
            "seconds_a_step": per_step,
            "steps": own_steps,
            "tflop": flop / 1e12,
            "share_of_peak": flop / per_step / peak if per_step else None,
        }
    total = sum(row["seconds_a_step"] * row["steps"] for row in stages.values() if row["seconds_a_step"] is not None)
    return {
        "side": settings.library,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "device": str(device),
        "stages": stages,
        "peak_tflop_s": peak / 1e12,
        "images_a_minute": 60 * settings.batch_size / total,
        "peak_mib": memory,
    }


def seconds_per_step(calls: Sequence[float], measured_steps: int, steps: int) -> float:
    """Return the mean time of a step in a run of `steps`, where the first step is slower than the others.

    Args:
        calls: Seconds of each call of the network; a step of a split batch takes several calls.
        measured_steps: The number of steps of these calls.
        steps: The number of steps to compute the mean for.
    """
    calls_per_step = len(calls) // measured_steps
    first, others = sum(calls[:calls_per_step]), sum(calls[calls_per_step:])
    return first if measured_steps == 1 else (first + (steps - 1) * others / (measured_steps - 1)) / steps


def count_steps(stage: str, count: int, stages: Iterable[str]) -> int:
    """Return the number of steps of a stage when images are generated in `count` steps.

    The text encoder runs twice, for the prompt and the negative prompt; the image encoder and the autoencoder run once.
    """
    if stage == "text":
        return 2
    if stage.endswith(", last") or stage in ("image encoder", "autoencoder"):
        return 1
    return count - 1 if f"{stage}, last" in stages else count


@contextmanager
def timed_calls(networks: Mapping[str, Any], seconds: Mapping[str, list[float]], device: Any) -> Iterator[None]:
    """Append the seconds of each call of the networks to their lists; with low memory, the first includes loading."""
    import torch

    started: dict[str, float] = {}

    def now() -> float:
        if device.type == "cuda":  # calls return before they are computed
            torch.cuda.synchronize(device)
        return time.perf_counter()

    hooks = []
    for stage, network in networks.items():
        hooks.append(network.register_forward_pre_hook(lambda *_, stage=stage: started.update({stage: now()})))
        hooks.append(
            network.register_forward_hook(lambda *_, stage=stage: seconds[stage].append(now() - started[stage]))
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def count_flops(networks: Mapping[str, Any], generate: Callable[[int], None]) -> dict[str, int]:
    """Return the floating-point operations of each network in `generate(MIN_STEPS)`; a multiply-add counts as two."""
    from torch.utils.flop_counter import FlopCounterMode

    from unclip.models.cpu.onednn import onednn_conv_flops

    found = dict.fromkeys(networks, 0)
    before: dict[str, int] = {}
    hooks = []
    with FlopCounterMode(display=False, custom_mapping=onednn_conv_flops()) as counter:
        for stage, network in networks.items():

            def enter(*_: Any, stage: str = stage) -> None:
                before[stage] = counter.get_total_flops()

            def leave(*_: Any, stage: str = stage) -> None:
                found[stage] += counter.get_total_flops() - before[stage]

            hooks += [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]
        generate(MIN_STEPS)
    for hook in hooks:
        hook.remove()
    return found


def measure_matmul_rate(device: Any, dtype: Any, repeat: int = 7) -> float:
    """Return the operations per second of a large matrix product: the practical peak of the machine."""
    import torch

    from unclip.system.device import has_native_bfloat16

    fast = dtype is torch.bfloat16 and has_native_bfloat16(device)  # emulated elsewhere, which takes minutes
    side = 8192 if device.type == "cuda" else 4096 if fast else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    product, seconds = torch.empty_like(a), []
    for _ in range(repeat):
        start = time.perf_counter()
        torch.mm(a, b, out=product)  # allocating memory would take time too
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def peak_memory(children: bool = False) -> float | None:
    """Return the peak resident set in MiB of this process, or of its finished children; None if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # macOS counts bytes, Linux KiB


def format_stages(report: Mapping[str, Any]) -> str:
    """Return a report of `measure_stages` as a table."""
    lines = [f"{report['side']}, {report['dtype']} on {report['device']}"]
    lines.append(f"  {'stage':<18}{'s/step':>10}{'steps':>7}{'TFLOP':>9}{'of peak':>9}")
    for stage, row in report["stages"].items():
        per_step = "-" if row["seconds_a_step"] is None else f"{row['seconds_a_step']:.3f}"
        of_peak = "-" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
        lines.append(f"  {stage:<18}{per_step:>10}{row['steps']:>7}{row['tflop']:>9.3f}{of_peak:>9}")
    memory = "unknown" if report["peak_mib"] is None else f"{report['peak_mib']:.0f} MiB"
    lines.append(
        f"  {report['images_a_minute']:.2f} images a minute, peak memory {memory}, "
        f"matrix product {report['peak_tflop_s']:.2f} TFLOP/s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(measure_stages(StageBenchmark(**json.loads(sys.argv[1])))))
