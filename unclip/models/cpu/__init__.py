"""Faster equivalents of network layers for CPUs. Results agree with the plain layers."""
