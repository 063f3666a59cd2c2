"""Find the prior of a checkpoint whose prior is published in a repository of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.checkpoints import hub
from unclip.checkpoints.families import default_prior, takes_prior
from unclip.checkpoints.hub_files import snapshot_identity
from unclip.checkpoints.index import INDEX, component_classes
from unclip.checkpoints.locate import find_checkpoint
from unclip.errors import CheckpointError
from unclip.system.files import read_json


def find_prior(folder: Path, default: str, prior: str | Path | None = None, download: bool = True) -> Path:
    """The folder of the prior of the checkpoint in `folder`.

    prior: a folder or hub id that is used instead. Otherwise the model card names the prior, and `default`, a hub id,
    is used where it does not. It is looked for beside `folder`, then in the hub's cache; it is downloaded only if
    `folder` is from the hub itself. download: False forbids it. Raises CheckpointError if there is none.
    """
    if prior is not None:
        return check_prior(find_checkpoint(prior, download=download), str(prior))
    name = prior_in_card(folder) or default
    beside = folder.absolute().parent / name.rpartition("/")[2]
    if (beside / INDEX).is_file():
        return check_prior(beside, str(beside))
    try:
        return check_prior(find_checkpoint(name, download=download and snapshot_identity(folder) is not None), name)
    except CheckpointError as error:
        raise CheckpointError(f"the prior of {folder.name} is missing ({error}); or give one by --prior") from None


def find_prior_folders(
    folder: Path, index: Mapping[str, Any], prior: str | Path | None = None, download: bool = True
) -> list[Path]:
    """The folder of the prior, for a checkpoint whose prior is in a repository of its own; else none.

    prior, download: as in `find_prior`. Raises CheckpointError for a prior that the checkpoint does not take, or that
    is missing.
    """
    default = default_prior(index)
    if prior is None and default is None:
        return []
    if not takes_prior(index):
        raise CheckpointError(f"{folder.name} has a prior of its own, and takes no other: leave prior out")
    return [find_prior(folder, default or "", prior, download)]


def find_prior_configs(folder: Path, index: Mapping[str, Any], prior: str | Path | None = None) -> Path | None:
    """A folder with the configs of the prior; None if the checkpoint takes none from another repository.

    Nothing but configs is downloaded. folder: of a checkpoint from the hub. prior: as in `find_prior`. Raises
    CheckpointError as `find_prior`.
    """
    name = (prior_in_card(folder) or default_prior(index)) if prior is None else str(prior)
    if name is None or not takes_prior(index):
        return None
    hub_id = None if Path(name).is_dir() else hub.parse_hub_id(name)
    return find_checkpoint(name) if hub_id is None else hub.download_configs(hub_id)


def prior_in_card(folder: Path) -> str | None:
    """The hub id of the prior that a model card's front matter names; None if it names none."""
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        found = ModelCard.load(card, ignore_metadata_errors=True).data.get("prior")
    except Exception:  # whatever a damaged card makes the YAML reader raise; its prior is found otherwise
        return None
    name = found[0] if isinstance(found, list) and found else found
    return name if isinstance(name, str) and hub.parse_hub_id(name) is not None else None


def check_prior(folder: Path, name: str) -> Path:
    """The same folder. Raises CheckpointError if it holds no prior."""
    if "prior" not in component_classes(read_json(folder / INDEX)):
        raise CheckpointError(f"{name} has no prior: give the repository of one, such as a kandinsky-2-2-prior")
    return folder
