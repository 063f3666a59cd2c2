"""The record of an output folder's runs: their seed, their model, and the options that names and files depend on."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from unclip.batch.manifest import PRIVATE, RUN
from unclip.batch.storage import disk_full
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import InputError
from unclip.system.files import write_atomic
from unclip.system.json_values import parse_json
from unclip.version import __version__


class RunRecord(BaseModel):
    """The fields of the record that are read again, beside the options."""

    model_config = ConfigDict(strict=True)

    seed: int
    model: str
    revision: str


def run_seed(
    path: str | Path,
    given: int | None,
    model: ModelIdentity,
    *,
    write: bool = True,
    naming: Mapping[str, str | None] | None = None,
    name: str | None = None,
) -> tuple[int, list[str]]:
    """The seed of a run, and notes: `given`, or else the seed of the folder's earlier runs, or else a random one.

    The folder records the seed, unless `write` is False. naming: options that names and files depend on, such as
    {"--format": "png"}; a note reports each that differs from the run before, since finished images are not written
    again. name: of the folder, for messages; None for its path. Raises InputError if the folder holds images of another
    model, or of another revision of it.
    """
    record = Path(path) / PRIVATE / RUN
    known = _read_run(record)
    if known is None:
        seed = secrets.randbelow(2**32) if given is None else given
        if write:
            state = {"seed": seed, **dataclasses.asdict(model), "version": __version__, **(naming or {})}
            state["model"] = state.pop("name")
            _write_run(record, state)
        return seed, []
    if (known["model"], known["revision"]) != (model.name, model.revision):
        theirs, ours = f"{known['model'][:80]} ({known['revision'][:16]})", f"{model.name} ({model.revision})"
        raise InputError(f"{name or str(path)!r} holds images by {theirs}, not by {ours}; give another folder")
    changed = {option: known[option] for option, value in (naming or {}).items() if known.get(option, value) != value}
    before = [f"no {option}" if was is None else f"{option} {str(was)[:80]}" for option, was in changed.items()]
    notes = [f"the run before had {option}; its images are kept as they are" for option in before]
    if write and changed:
        _write_run(record, {**known, **(naming or {})})
    return known["seed"] if given is None else given, notes


def _read_run(record: Path) -> dict[str, Any] | None:
    """The record of a folder's earlier runs, None if there is none. Raises InputError for a damaged one."""
    try:
        known = parse_json(record.read_bytes())
        RunRecord.model_validate(known)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {record} ({error.strerror}); give another folder") from None
    except ValueError:
        raise InputError(f"{record} is damaged (it is not the record of a run); remove it, and give --seed") from None
    return known


def _write_run(record: Path, state: Mapping[str, Any]) -> None:
    try:
        write_atomic(record, (json.dumps(state) + "\n").encode())
    except OSError as error:
        raise disk_full(error, record.parent.parent) from error
