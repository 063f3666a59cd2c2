"""Diffusion in plain torch: a network becomes a prediction of x0, wrappers compose around it, one loop samples."""
