"""Measure speed: each stage, whole images, start-up."""
