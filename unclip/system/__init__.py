"""The machine: devices, memory, and files."""
