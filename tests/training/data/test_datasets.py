"""Data tables: each kind is opened, and mistakes are named."""

import sys
from pathlib import Path

import pytest

from tests.training.data.helpers import folder_dataset, same, shard_dataset
from unclip.errors import DataError
from unclip.training.data.datasets import open_dataset


def test_open_dataset_opens_each_kind(folder: Path, shards: str):
    assert same(open_dataset({"kind": "folder", "path": str(folder)}, 4, 1)[7], folder_dataset(folder, 4, 1)[7])
    assert same(open_dataset({"kind": "webdataset", "shards": shards}, 4, 1)[7], shard_dataset(shards, 4, 1)[7])
    assert same(open_dataset({"kind": "webdataset", "shards": [shards]}, 4, 1)[7], shard_dataset(shards, 4, 1)[7])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "data kind None is unknown; known: scenes, folder, webdataset"),
        ({"kind": "webdatset"}, "did you mean 'webdataset'"),
        ({"kind": ["folder"]}, "is unknown"),
        ({"kind": "folder", "paht": "x"}, "unknown key 'paht'; did you mean 'path'"),
        ({"kind": "folder"}, "the key 'path' is missing"),
        ({"kind": "folder", "path": 3}, "data of kind 'folder': path = 3 should be a string"),
        ({"kind": "folder", "path": ""}, "path is empty; fill it in"),
        ({"kind": "webdataset", "shards": []}, "shards is empty; fill it in"),
        ({"kind": "scenes", "split": "trian"}, "did you mean 'train'"),
        ({"kind": "scenes", "alike": 0}, "alike = 0 should be 1 or more"),
        ({"kind": "scenes", "nouns": "cat"}, "nouns = 'cat' should be a list"),
        ({"kind": "scenes", "nouns": ["cat", "cat"]}, "a list of two nouns or more"),
        ({"kind": "scenes", "nouns": [["cat"], ["dog"]]}, r"nouns\[0\] = \['cat'\] should be a string"),
        ({"kind": "scenes", "nouns": ["cat", "penguim"]}, "no noun 'penguim'; did you mean 'penguin'"),
        ({"kind": "scenes", "singles": 1.5}, "singles = 1.5 should be from 0 to 1"),
        ({"kind": "scenes", "alike": 1.5}, "alike = 1.5 should be a whole number"),
        ({"kind": "scenes", "hard_pairs": 1}, "hard_pairs = 1 should be true or false"),
    ],
)
def test_open_dataset_names_what_is_wrong(config: dict, words: str):
    with pytest.raises(DataError, match=words):
        open_dataset(config, 4, 0)


def test_vector_sprites_need_their_renderer_before_any_training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    open_dataset({"kind": "scenes"}, 16, 0)
    with pytest.raises(DataError, match=r'pip install "unclip\[train\]"'):
        open_dataset({"kind": "scenes", "styles": ("noto", "cartoon")}, 16, 0)
