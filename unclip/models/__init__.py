"""The networks: CLIP (open_clip); the diffusion prior, decoder and upsampler (diffusers); the autoregressive prior."""
