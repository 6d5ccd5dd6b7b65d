"""One bidirectional name map between our parameters and those of diffusers and transformers."""
