"""`unclip bench`: how fast a model runs here, and how much memory it takes."""

import json
import statistics
from contextlib import closing
from dataclasses import replace
from typing import Annotated, Any

import typer

from unclip.benchmark import stages as stage_benchmark
from unclip.benchmark.pipelines import StageBenchmark, check_library
from unclip.benchmark.settings import ModelSettings
from unclip.benchmark.throughput import describe_machine, format_throughput, measure_throughput, time_first_image
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.cli import options
from unclip.cli.progress import Progress, on_terminal
from unclip.system.choices import check_device, check_dtype, check_memory
from unclip.system.files import read_json


def bench(
    model: options.Model = "stickers",
    batch_size: Annotated[int, typer.Option(help="Images computed at a time.")] = 16,
    repeat: Annotated[int, typer.Option(help="Runs of each measure; the median counts.")] = 3,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    stages: Annotated[
        bool, typer.Option("--stages", help="Only seven steps of each stage: for models that take minutes a picture.")
    ] = False,
    against: Annotated[
        str | None, typer.Option(metavar="diffusers", help="The same by diffusers, as it comes; as --stages.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure seconds a step of every stage, images a minute, peak memory, and the time to the first picture.

    Example: unclip bench --batch-size 8
    """
    options.check_at_least_one("--batch-size", batch_size)
    options.check_at_least_one("--repeat", repeat)
    check_device(device)
    check_dtype(dtype)
    check_memory(memory)
    folder = find_checkpoint(model, download=True)  # a mistake here is not to look like a failed measurement
    if against is not None:
        check_library(against, read_json(folder / INDEX))
    if stages or against is not None:
        settings = StageBenchmark("unclip", str(folder), batch_size, device=device, dtype=dtype, memory=memory)
        found = [stage_benchmark.measure_in_process(settings)]
        if against is not None:  # in its own default precision, unless one is asked for
            found.append(stage_benchmark.measure_in_process(replace(settings, library=against)))
        report = {"machine": describe_machine(), "model": model, "batch_size": batch_size, "sides": found}
        text = "\n".join(
            [f"{report['machine']}; {model}, batch {batch_size}", *map(stage_benchmark.format_stages, found)]
        )
        print(json.dumps(report) if as_json else text)
        return
    model_settings = ModelSettings(model, device, dtype, memory)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "model": model,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        # Processes of their own, and first: this one is to stay without torch until they are timed.
        "first_picture_s": statistics.median(time_first_image(model_settings) for _ in range(repeat)),
        "first_picture_peak_mib": stage_benchmark.peak_memory(children=True),
    }
    with closing(Progress(on_terminal(quiet=False))) as progress:
        report["images_per_s"] = measure_throughput(model_settings, batch_size, repeat, progress)
    report["peak_mib"] = stage_benchmark.peak_memory()
    print(json.dumps(report) if as_json else format_throughput(report))
