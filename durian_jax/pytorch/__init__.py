"""Inference in PyTorch, on diffusers' modules. Imports no jax."""
