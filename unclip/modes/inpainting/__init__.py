"""Inpainting and outpainting: masked denoising in windows of a canvas."""
