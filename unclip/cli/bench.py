"""`unclip bench`: how fast a model runs here, and how much memory it takes."""

import json
import statistics
from dataclasses import replace
from typing import Annotated, Any

import typer

from unclip.benchmark import stages as speed
from unclip.benchmark.throughput import machine, measure_throughput, table, time_first_image
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.cli import options
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
        speed.check_against(against, read_json(folder / INDEX))
    if stages or against is not None:
        run = speed.Run("unclip", str(folder), batch_size, device=device, dtype=dtype, memory=memory)
        found = [speed.in_process(run)]
        if against is not None:  # in its own default precision, unless one is asked for
            found.append(speed.in_process(replace(run, side=against)))
        report = {"machine": machine(), "model": model, "batch_size": batch_size, "sides": found}
        text = "\n".join([f"{report['machine']}; {model}, batch {batch_size}", *map(speed.table, found)])
        print(json.dumps(report) if as_json else text)
        return
    report: dict[str, Any] = {
        "machine": machine(),
        "model": model,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        # Processes of their own, and first: this one is to stay without torch until they are timed.
        "first_picture_s": statistics.median(time_first_image(model, device, dtype, memory) for _ in range(repeat)),
        "first_picture_peak_mib": speed.peak_resident(children=True),
    }
    report["images_per_s"] = measure_throughput(model, device, dtype, memory, batch_size, repeat)
    report["peak_mib"] = speed.peak_resident()
    print(json.dumps(report) if as_json else table(report))
