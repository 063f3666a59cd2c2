"""Benchmarks: time per step of each stage, images per second, cold start, peak memory."""
