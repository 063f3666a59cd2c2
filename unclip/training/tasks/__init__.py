"""The training tasks: per stage, its network, its loss and its sample images."""
