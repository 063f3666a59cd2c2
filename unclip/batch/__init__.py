"""Prompt files: read, checked line by line, generated in micro-batches, recorded, resumed."""
