"""Load checkpoints: a name, a folder or a hub id becomes an `UnclipModel`. Weights are read from safetensors only."""
