"""Conversion between our parameters and files of diffusers and transformers, by one name map for both directions."""
