"""Faster equivalents of network layers for CPUs. They compute the same as the plain layers."""
