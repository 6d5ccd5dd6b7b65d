"""The U-Net of Stable Diffusion 1.5's shape, at any size."""
