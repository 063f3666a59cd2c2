"""The networks: CLIP (open_clip), and the prior, decoder and upsampler (diffusers), with their configs."""
