"""Device, memory and files."""
