"""Verify a checkpoint: each file against its config and, if known, its hash. Runs no network."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch

from unclip.checkpoints.component_loader import read_schedule
from unclip.checkpoints.decoder_copy import NAME as INPAINTING
from unclip.checkpoints.decoder_copy import open_copy
from unclip.checkpoints.families import is_kandinsky_prior
from unclip.checkpoints.hub_files import find_damaged_files, snapshot_identity
from unclip.checkpoints.index import INDEX, check_pipeline, component_classes, prediction_target
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.networks import build_empty_network, parameter_shapes
from unclip.checkpoints.prior_repository import find_prior_folders
from unclip.checkpoints.tensors import check_shapes, tensor_shapes
from unclip.checkpoints.token_embedding import find_shared
from unclip.checkpoints.transformers_clip import read_pad_token
from unclip.checkpoints.weight_files import require_weight_files
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError, InputError
from unclip.models.xlm_roberta import XlmRobertaTokenizer
from unclip.system.files import read_json

TEXT_AND_IMAGE_ENCODERS = ("clip", "xlm-roberta", "M-CLIP")  # of transformers; checked with the components together


class Finding(NamedTuple):
    """The result of one check. component: its name, "hashes" or "together". text: description or error."""

    component: str
    text: str
    valid: bool


def check_checkpoint(folder: Path) -> Iterator[Finding]:
    """A finding for each component, for the hashes of a hub model, and for the components together.

    The prior of a Kandinsky, which has a repository of its own, is checked too.
    """
    valid, index = True, read_json(folder / INDEX)
    if not is_kandinsky_prior(index):  # it is no model of its own, but its files can be checked
        check_pipeline(index, folder / INDEX)
    parts = [("", folder)]
    try:
        parts += [("prior/", prior) for prior in find_prior_folders(folder, index, download=False)]
    except InputError as error:
        yield Finding("prior", str(error), False)
        valid = False
    for finding in chain.from_iterable(check_repository(*part) for part in parts):
        valid = valid and finding.valid
        yield finding
    if is_kandinsky_prior(index):  # its decoder's repository is loaded with it
        return
    if valid:
        try:
            load_checkpoint(folder, torch.device("cpu"), torch.float32, memory="low")  # reads little
        except InputError as error:
            yield Finding("together", str(error), False)
        else:
            yield Finding("together", "the components fit", True)


def check_repository(prefix: str, folder: Path) -> Iterator[Finding]:
    """A finding for each component of a folder, named with the prefix, and for the hashes of a hub model."""
    for component in component_classes(read_json(folder / INDEX)):
        try:
            yield Finding(prefix + component, describe_component(folder / component), True)
        except InputError as error:
            yield Finding(prefix + component, str(error), False)
    if snapshot_identity(folder) is not None:
        damaged = find_damaged_files(folder)
        names = ", ".join(str(path.relative_to(folder)) for path in damaged)
        yield Finding(f"{prefix}hashes", f"wrong: {names}" if damaged else "match the hub", not damaged)


def describe_component(folder: Path) -> str:
    """A short description of a component. Raises CheckpointError if it is damaged."""
    if (folder / "scheduler_config.json").is_file():
        path = folder / "scheduler_config.json"
        is_unclip = read_json(path).get("_class_name") == "UnCLIPScheduler"
        schedule = read_schedule(path, Schedule.from_config if is_unclip else Schedule.from_ddpm_config)
        stage, suffix, _ = folder.name.rpartition("_scheduler")
        is_difference = suffix and prediction_target(folder.parent, stage) == "difference"
        return f"{'difference' if is_difference else schedule.prediction_type}, {schedule.variance_type}"
    if (folder / "tokenizer_config.json").is_file():
        if str(read_json(folder / "tokenizer_config.json").get("tokenizer_class")).startswith("XLMRoberta"):
            XlmRobertaTokenizer(folder / "tokenizer.json")
            return "the tokenizer of XLM-R"
        read_pad_token(folder)
        return "the tokenizer of CLIP"
    if (folder / "preprocessor_config.json").is_file():
        read_json(folder / "preprocessor_config.json")
        return "settings"
    config = read_json(folder / "config.json")
    shapes = tensor_shapes(folder)
    rest = ""
    if folder.name == INPAINTING:
        open_copy(folder.parent)
        rest = "; the others are the decoder's"
    elif "_class_name" in config:
        check_shapes(folder, parameter_shapes(build_empty_network(folder)), shapes)
    elif not str(config.get("model_type")).startswith(TEXT_AND_IMAGE_ENCODERS):
        raise CheckpointError(f"{folder / 'config.json'} names no class; download the checkpoint again")
    if (shared := find_shared(folder)) is not None:
        shared.read()  # compares it with the CLIP that is there
        del shapes[shared.name]
        rest = "; its token embedding is CLIP's"
    parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    files = len(require_weight_files(folder))
    return f"{parameters / 1e6:.1f} M parameters in {files} file{'s' * (files > 1)}{rest}"
