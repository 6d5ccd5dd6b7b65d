"""The MMDiT backbone: a transformer over latent patches (Stable Diffusion 3's shape, any size)."""
