"""Checkpoint layouts: of this project and of published models."""
