"""The networks: CLIP (open_clip); the prior, decoder and upsampler (diffusers), with their configs."""
