"""Measure a model: correctness, distances, CLIP retrieval, the prior, super-resolution."""
