"""Is a checkpoint whole? Every file against its config and, where one is known, its hash. Nothing is run."""

from collections.abc import Iterator
from pathlib import Path

import torch

from unclip.checkpoints import hub
from unclip.checkpoints.index import INDEX, components, predicted
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.networks import empty_network, shapes_of
from unclip.checkpoints.tensors import check_fit, files_of, tensor_shapes
from unclip.checkpoints.transformers_clip import check_tokenizer
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError, InputError
from unclip.system.files import read_json


def check(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(component, what was found, whether it is right) for each component, and for the checkpoint as a whole."""
    sound = True
    parts = components(read_json(folder / INDEX))
    for part in parts:
        try:
            found = check_part(folder / part)
        except InputError as error:
            yield part, str(error), False
            sound = False
        else:
            yield part, found, True
    if hub.identity(folder) is not None:
        damaged = hub.damaged_files(folder)
        names = ", ".join(str(path.relative_to(folder)) for path in damaged)
        yield "hashes", f"wrong: {names}" if damaged else "those that the hub gave", not damaged
        sound = sound and not damaged
    if sound:  # do the components fit each other?
        try:
            load_checkpoint(folder, torch.device("cpu"), torch.float32, memory="low")  # reads next to nothing
        except InputError as error:
            yield "together", str(error), False
        else:
            yield "together", "the components fit", True


def check_part(folder: Path) -> str:
    """What a component is. Raises CheckpointError if it is damaged."""
    if (folder / "scheduler_config.json").is_file():
        schedule = Schedule.from_config(read_json(folder / "scheduler_config.json"))
        difference = predicted(folder.parent, folder.name.removesuffix("_scheduler")) == "difference"
        return f"{'difference' if difference else schedule.prediction_type}, {schedule.variance_type}"
    if (folder / "tokenizer_config.json").is_file():
        check_tokenizer(folder)
        return "the tokenizer of CLIP"
    if (folder / "preprocessor_config.json").is_file():
        read_json(folder / "preprocessor_config.json")
        return "settings"
    config = read_json(folder / "config.json")
    shapes = tensor_shapes(folder)
    if "_class_name" in config:  # what is left are transformers' networks, which are looked at together
        check_fit(folder, shapes_of(empty_network(folder)), shapes)
    elif not str(config.get("model_type")).startswith("clip"):
        raise CheckpointError(f"{folder / 'config.json'} says of no class what it is; get the checkpoint anew")
    values = sum(torch.Size(shape).numel() for shape in shapes.values())
    return f"{values / 1e6:.1f} M parameters in {len(files_of(folder))} file{'s' * (len(files_of(folder)) > 1)}"
