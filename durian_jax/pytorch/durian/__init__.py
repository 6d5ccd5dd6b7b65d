"""Durian's networks in PyTorch."""
