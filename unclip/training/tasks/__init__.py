"""One training task a stage: its networks, its loss and its samples."""
