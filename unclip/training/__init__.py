"""Train each stage of a model: data, tasks, the loop and its state."""
