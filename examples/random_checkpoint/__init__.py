"""Checkpoints of published layouts with random weights."""
