"""How fast each stage of a model runs, next to what the machine can do, and next to diffusers.

A measurement is a process of its own, so that its peak memory is its own: `python -m unclip.evaluation.speed` takes a
`Run` as JSON and prints what `measure` found.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from unclip.errors import InputError, UnclipError

PROMPT = "a penguin on a pink background"
SIDES = ("unclip", "diffusers")


@dataclass(frozen=True)
class Run:
    """What is measured. side: whose pipeline runs the model; diffusers' runs as `from_pretrained` gives it."""

    side: str
    folder: str
    batch_size: int = 1
    steps: int = 7  # timed in each stage, two at least; the first is slower, for it finds no memory to use again
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"


def in_process(run: Run) -> dict[str, Any]:
    """`measure` in a process of its own. Raises UnclipError with its last line if it fails."""
    command = [sys.executable, "-m", "unclip.evaluation.speed", json.dumps(asdict(run))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UnclipError(f"the measurement of {run.side} failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(run: Run) -> dict[str, Any]:
    """Seconds a step and share of the machine's peak, by stage; images a minute at the model's own steps; peak memory.

    The shares are of the rate of a large matrix product in the same precision, measured here and now.
    """
    import torch

    networks, steps, draw, dtype, device = (ours if run.side == "unclip" else theirs)(run)
    seconds = {stage: [] for stage in networks}
    count = max(FEWEST, run.steps)
    flops = count_flops(networks, draw)  # also what warms up
    with timed_calls(networks, seconds, device):
        draw(count)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_resident()
    peak = matmul_rate(device, dtype)
    stages = {}
    for stage, each in seconds.items():  # a batch may have been cut up, so that a step takes several calls
        a_step = seconds_a_step(each, steps_drawn(stage, count, networks), steps[stage]) if each else None
        arithmetic = flops[stage] / steps_drawn(stage, FEWEST, networks)
        rate = arithmetic / a_step if a_step else None
        stages[stage] = {
            "seconds_a_step": a_step,
            "steps": steps[stage],
            "tflop": arithmetic / 1e12,
            "share_of_peak": None if rate is None else rate / peak,
        }
    total = sum(s["seconds_a_step"] * s["steps"] for s in stages.values() if s["seconds_a_step"] is not None)
    return {
        "side": run.side,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "stages": stages,
        "peak_tflop_s": peak / 1e12,
        "images_a_minute": 60 * run.batch_size / total,
        "peak_mib": memory,
    }


def seconds_a_step(calls: Sequence[float], drawn: int, steps: int) -> float:
    """The mean over a model's own `steps`, of the calls of a network in `drawn` steps, of which the first is slower."""
    each = len(calls) // drawn
    first, others = sum(calls[:each]), sum(calls[each:])
    return first if drawn == 1 else (first + (steps - 1) * others / (drawn - 1)) / steps


FEWEST = 2  # steps that a picture can be drawn in: the upsampler's last one has a network of its own


def steps_drawn(stage: str, count: int, stages: Iterable[str]) -> int:
    """How often a stage took a step when a picture was drawn in `count` steps. Text is read, and its absence."""
    if stage == "text":
        return 2
    if stage.endswith(", last"):
        return 1
    return count - 1 if f"{stage}, last" in stages else count


Side = tuple[Mapping[str, Any], Mapping[str, int], Callable[[int], None], Any, Any]
"""Networks and the model's own steps by stage, a function that draws a batch in so many steps, dtype and device."""


def ours(run: Run) -> Side:
    """This project's pipeline."""
    from unclip.pipeline import Unclip
    from unclip.requests.request import Request

    pipe = Unclip.from_pretrained(run.folder, run.device, run.dtype, run.memory)
    pipe.check_prior()
    own = pipe.defaults()
    networks = {"text": pipe.clip.text, "prior": pipe.prior.network.transformer, "decoder": pipe.decoder.network.unet}
    steps = {"text": 2, "prior": own["prior_steps"], "decoder": own["steps"]}
    for stage in pipe.upsamplers:
        networks[stage.name], steps[stage.name] = stage.network.unet, stage.steps
        if stage.last_network is not None:
            networks[f"{stage.name}, last"], steps[f"{stage.name}, last"] = stage.last_network.unet, 1
            steps[stage.name] -= 1

    def draw(count: int) -> None:
        request = Request(
            prompt=PROMPT, n=run.batch_size, seed=0, steps=count, prior_steps=count, upsampler_steps=count
        )
        pipe.generate(request, batch_size=run.batch_size)

    return networks, steps, draw, pipe.decoder.network.projection.null_embed.dtype, pipe.device


def theirs(run: Run) -> Side:
    """diffusers' pipeline for the published layout, as its user gets it."""
    import torch
    from diffusers import PriorTransformer, UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    from unclip.system.device import pick_device

    device = pick_device(run.device)
    dtype = torch.float32 if run.dtype == "auto" else getattr(torch, run.dtype)
    classes = {
        "prior": PriorTransformer,
        "decoder": UNet2DConditionModel,
        "text_encoder": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "text_proj": sys.modules[UnCLIPPipeline.__module__].UnCLIPTextProjModel,
        "super_res_first": UNet2DModel,
        "super_res_last": UNet2DModel,
        **{f"{stage}_scheduler": UnCLIPScheduler for stage in ("prior", "decoder", "super_res")},
    }
    # Part by part: not every release of diffusers finds the class of text_proj by what an index calls its home.
    parts = {part: cls.from_pretrained(run.folder, subfolder=part) for part, cls in classes.items()}
    pipe = UnCLIPPipeline(**parts).to(device, dtype)  # transformers keeps the precision of the file, diffusers does not
    pipe.set_progress_bar_config(disable=True)
    networks = {
        "text": pipe.text_encoder,
        "prior": pipe.prior,
        "decoder": pipe.decoder,
        "upsampler": pipe.super_res_first,
        "upsampler, last": pipe.super_res_last,
    }

    def draw(count: int) -> None:
        noise = [torch.Generator("cpu").manual_seed(i) for i in range(run.batch_size)]
        pipe(
            [PROMPT] * run.batch_size,
            generator=noise,
            prior_num_inference_steps=count,
            decoder_num_inference_steps=count,
            super_res_num_inference_steps=count,
        )

    return networks, {"text": 2, "prior": 25, "decoder": 25, "upsampler": 6, "upsampler, last": 1}, draw, dtype, device


def check_against(side: str, index: Mapping[str, Any]) -> None:
    """Raise InputError unless a model can be run by `side` as well."""
    if side not in SIDES[1:]:
        raise InputError(f"--against {side!r} is unknown; choose from {', '.join(SIDES[1:])}")
    if index.get("_class_name") != "UnCLIPPipeline":
        raise InputError("diffusers runs published checkpoints only: give one with --model")
    if find_spec("transformers") is None:
        raise InputError("diffusers needs transformers for this: pip install transformers")


@contextmanager
def timed_calls(networks: Mapping[str, Any], seconds: Mapping[str, list[float]], device: Any) -> Iterator[None]:
    """Note how long each call of the networks takes; in low memory, the first with the reading of its weights."""
    import torch

    started: dict[str, float] = {}

    def now() -> float:
        if device.type == "cuda":  # which answers before it has computed
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


def count_flops(networks: Mapping[str, Any], draw: Callable[[int], None]) -> dict[str, int]:
    """The arithmetic of each network for a picture in `FEWEST` steps: two operations a multiplication and addition."""
    from torch.utils.flop_counter import FlopCounterMode

    from unclip.models.cpu.onednn import packed_conv_flops

    found = dict.fromkeys(networks, 0)
    before: dict[str, int] = {}
    hooks = []
    with FlopCounterMode(display=False, custom_mapping=packed_conv_flops()) as counter:
        for stage, network in networks.items():

            def enter(*_: Any, stage: str = stage) -> None:
                before[stage] = counter.get_total_flops()

            def leave(*_: Any, stage: str = stage) -> None:
                found[stage] += counter.get_total_flops() - before[stage]

            hooks += [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]
        draw(FEWEST)
    for hook in hooks:
        hook.remove()
    return found


def matmul_rate(device: Any, dtype: Any, repeat: int = 7) -> float:
    """Operations a second of a large matrix product: what this machine gives a program that does nothing else."""
    import torch

    from unclip.system.device import has_native_bfloat16

    fast = dtype is torch.bfloat16 and has_native_bfloat16(device)  # elsewhere it would take minutes
    side = 8192 if device.type == "cuda" else 4096 if fast else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    product, seconds = torch.empty_like(a), []
    for _ in range(repeat):
        start = time.perf_counter()
        torch.mm(a, b, out=product)  # new memory would take a part of the time
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def peak_resident(children: bool = False) -> float | None:
    """Largest resident set so far, in MiB, of this process or of those it waited for; None where that is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # macOS counts bytes, Linux KiB


def table(found: Mapping[str, Any]) -> str:
    """What `measure` found, as lines."""
    lines = [f"{found['side']}, {found['dtype']} on {found['device']}"]
    lines.append(f"  {'stage':<18}{'s/step':>10}{'steps':>7}{'TFLOP':>9}{'of peak':>9}")
    for stage, row in found["stages"].items():
        a_step, share = row["seconds_a_step"], row["share_of_peak"]
        told = "-" if a_step is None else f"{a_step:.3f}"
        of_peak = "-" if share is None else f"{share:.0%}"
        lines.append(f"  {stage:<18}{told:>10}{row['steps']:>7}{row['tflop']:>9.3f}{of_peak:>9}")
    memory = "unknown" if found["peak_mib"] is None else f"{found['peak_mib']:.0f} MiB"
    lines.append(
        f"  {found['images_a_minute']:.2f} images a minute, peak memory {memory}, "
        f"matrix product {found['peak_tflop_s']:.2f} TFLOP/s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(measure(Run(**json.loads(sys.argv[1])))))
