"""A name, a folder or a hub id <-> networks: `model_index.json` and a subfolder a component, as diffusers has it.

Two layouts are read into one `Checkpoint`: this project's own (`own.py`), and that of the published checkpoints
(`karlo.py`). Nothing but safetensors is ever read.
"""

from unclip.bundled import INDEX
from unclip.checkpoints.loading import Checkpoint, load_checkpoint
from unclip.checkpoints.networks import DIFFUSERS, load_network, network_config, new_network, save_network
from unclip.checkpoints.tensors import read_tensors
from unclip.files import read_json, write_json

__all__ = [
    "DIFFUSERS",
    "INDEX",
    "Checkpoint",
    "load_checkpoint",
    "load_network",
    "network_config",
    "new_network",
    "read_json",
    "read_tensors",
    "save_network",
    "write_json",
]
