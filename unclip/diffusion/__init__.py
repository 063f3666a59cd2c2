"""Diffusion in plain torch: a network becomes a prediction of x0, wrappers compose around it, a loop samples.

It knows nothing of text, CLIP, files or PIL. This file imports nothing: `unclip.diffusion.names`
is free of torch.
"""
