"""Training data: images with captions, addressed by an index that never ends.

Every dataset here answers `dataset[i] -> (image, caption)` for any i >= 0, a pure function of (seed, i);
the image is a uint8 tensor `3 size size`, RGB. A run that was stopped therefore resumes to the same data by
starting at the index where it stopped: no sampler state has to be saved.

Scenes draws its images (`unclip.training.scenes`), Folder reads a folder, Shards reads webdataset tar files;
`open_dataset` picks one from a recipe's table and `batches` feeds a training loop.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from unclip.errors import DataError, did_you_mean
from unclip.stickers.compose import SceneOptions
from unclip.training.data.decode import Sample
from unclip.training.data.folder import Folder
from unclip.training.data.scenes import Scenes
from unclip.training.data.webdataset import Shards

# The keys of each kind of data: is the key required?
KINDS = {
    "scenes": dict.fromkeys(("split", "singles", "alike", "nouns", "spread", "hard_pairs", "counts"), False),
    "folder": {"path": True},
    "webdataset": {"shards": True},
}


def open_dataset(config: Mapping[str, Any], size: int, seed: int) -> Dataset[Sample]:
    """The dataset a recipe's table asks for.

    One of {kind = "scenes"} and the options of `scenes.scene_at` (split, singles, alike, nouns, spread, hard_pairs,
    counts),
    {kind = "folder", path = "..."}, {kind = "webdataset", shards = "..." or a list}. Raises DataError, naming the
    nearest known name, for a kind or key that is not one of these.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"data kind {kind!r} is unknown; {did_you_mean(str(kind), KINDS)}")
    keys = KINDS[kind]
    for key in config:
        if key != "kind" and key not in keys:
            raise DataError(f"data of kind {kind!r} has no key {key!r}; {did_you_mean(key, keys)}")
    if missing := [key for key, required in keys.items() if required and key not in config]:
        raise DataError(f"data of kind {kind!r} needs the key {missing[0]!r}")
    for key in keys.keys() & config.keys():
        value = config[key]
        parts = value if key in ("shards", "nouns") and isinstance(value, list | tuple) and value else [value]
        if key in ("singles", "counts"):
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise DataError(f"data key {key!r} is {value!r}; it must be a share from 0 to 1")
        elif key in ("alike", "spread"):
            least = 1 if key == "alike" else 0
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise DataError(f"data key {key!r} is {value!r}; it must be a whole number from {least} up")
        elif key == "hard_pairs":
            if not isinstance(value, bool):
                raise DataError(f"data key 'hard_pairs' is {value!r}; it must be true or false")
        elif key == "nouns" and (isinstance(value, str) or len(set(map(str, parts))) < 2):
            raise DataError(f"data key 'nouns' is {value!r}; it must be a list of two nouns or more")
        elif not all(isinstance(part, str | Path) and str(part) for part in parts):
            kinds = "a path or a list of paths" if key == "shards" else "a string"
            raise DataError(f"data key {key!r} is {value!r}; it must be {kinds}")
    if kind == "scenes":
        given = {key: value for key, value in config.items() if key != "kind"}
        return Scenes(size, seed, SceneOptions(**given))
    if kind == "folder":
        return Folder(config["path"], size, seed)
    return Shards(config["shards"], size, seed)
