"""`unclip bench`: speed and memory of a model on this machine."""

import json
import statistics
from contextlib import closing
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from unclip.benchmark import stages as stage_benchmark
from unclip.benchmark.pipelines import LIBRARIES, StageBenchmark, check_library
from unclip.benchmark.serving import Load, measure_serving
from unclip.benchmark.settings import ModelSettings
from unclip.benchmark.throughput import describe_machine, format_throughput, measure_throughput, time_first_image
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.cli import checks, options
from unclip.cli.progress import Progress, bar_or_lines, on_terminal
from unclip.cli.serve import check_installed
from unclip.system.files import read_json


def bench(
    repeat: Annotated[
        int,
        typer.Option(metavar="N", help="Runs of each measurement; the median counts.", callback=checks.at_least_one),
    ] = 3,
    stages: Annotated[
        bool, typer.Option("--stages", help="Time a few steps of each stage only, for models that take minutes.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="diffusers",
            help="Compare with diffusers' own pipeline; implies --stages.",
            callback=checks.checked(lambda _, value: checks.check_choice("--against", value, LIBRARIES[1:])),
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Measure a server instead, with many clients; takes the extra `serve`.")
    ] = False,
    clients: Annotated[
        int, typer.Option(metavar="N", help="With --serve: clients at a time.", callback=checks.at_least_one)
    ] = 32,
    requests: Annotated[
        int, typer.Option(metavar="N", min=0, help="With --serve: calls over which memory is watched.")
    ] = 500,
    as_json: options.Json = False,
    model: options.Model = "stickers",
    prior: options.PriorModel = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    batch_size: options.BatchSize = 16,
) -> None:
    """Measure speed and memory on this machine.

    These are the time to the first image, images per second and peak memory; with --stages the seconds per step of each
    stage; with --serve the start, the latency, the throughput and the memory of `unclip serve`.

    \b
    Example:
      unclip bench --batch-size 8
    """
    size = batch_size or 16
    folder = find_checkpoint(model, download=True)  # first: a wrong name must not look like a failed measurement
    if against is not None:
        check_library(read_json(folder / INDEX))
    if stages or against is not None:
        settings = StageBenchmark("unclip", str(folder), size, device=device, dtype=dtype, memory=memory, prior=prior)
        found = [stage_benchmark.measure_in_process(settings)]
        if against is not None:  # in its own default precision, unless one is asked for
            found.append(stage_benchmark.measure_in_process(replace(settings, library=against)))
        report = {"machine": describe_machine(), "model": model, "batch_size": size, "sides": found}
        text = "\n".join([f"{report['machine']}; {model}, batch {size}", *map(stage_benchmark.format_stages, found)])
        print(json.dumps(report) if as_json else text)
        return
    model_settings = ModelSettings(model, device, dtype, memory, prior)
    if serve:
        check_installed()
        load = Load(clients, size, repeat, requests)
        report = {"machine": describe_machine(), "model": model, **asdict(load)}
        if not as_json:
            print(f"{report['machine']}; {model}, batch {size}", flush=True)
        with closing(bar_or_lines()) as progress, closing(measure_serving(model_settings, load, progress)) as figures:
            for figure in figures:
                report[figure.name] = figure.value
                progress.close()
                if not as_json:
                    print(figure, flush=True)
        if as_json:
            print(json.dumps(report))
        return
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "model": model,
        "device": device,
        "dtype": dtype,
        "batch_size": size,
        # These run first, in their own processes: this process must not import torch until they have been timed.
        "first_picture_s": statistics.median(time_first_image(model_settings) for _ in range(repeat)),
        "first_picture_peak_mib": stage_benchmark.peak_memory(children=True),
    }
    with closing(Progress(on_terminal(quiet=False))) as progress:
        report["images_per_s"] = measure_throughput(model_settings, size, repeat, progress)
    report["peak_mib"] = stage_benchmark.peak_memory()
    print(json.dumps(report) if as_json else format_throughput(report))
