"""Modes, one file each: the source of the embeddings, the initial noise and the known pixels."""
