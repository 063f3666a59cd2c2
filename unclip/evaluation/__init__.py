"""Evaluation of a model: correctness, FID, CLIP retrieval, the prior, super-resolution."""
