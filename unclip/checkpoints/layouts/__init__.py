"""Checkpoint layouts: this project's own and those of published models."""
